//! The node's side of the nursery: started when the first cell is made, started again should it ever die.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::channel::Channel;
use super::{barriers, ids};
use crate::error::step;
use crate::lowered::Without;
use crate::wire::{self, Build, FromAgent, ToNursery};
use crate::{Error, agent, spawner};

/// The process that bears agents. Its end is theirs.
#[derive(Debug)]
pub(super) struct Nursery {
    channel: Channel,
    child: Mutex<Child>,
}

impl Nursery {
    /// Starts `program` as the nursery.
    pub(super) async fn start(program: &Path) -> Result<Arc<Self>, Error> {
        const START: &str = "start the nursery";
        let (socket, theirs) = wire::pair().map_err(step(START))?;
        let mut command = Command::new(program);
        // Nothing of the node's environment, which may hold credentials, goes near a cell.
        command.arg(agent::ARGUMENT).env_clear().current_dir("/").stdin(theirs).stdout(Stdio::null());
        let child = spawner::spawn(command).await.map_err(step(START))?;
        let pid = child.id();
        let nursery = Self { channel: Channel::new(socket).map_err(step(START))?, child: Mutex::new(child) };
        nursery.expect(|word| matches!(word, FromAgent::Unshared)).await?;
        ids::map_nursery(pid).map_err(step("map user ids"))?;
        nursery.channel.send(&ToNursery::Mapped, &[]).await.map_err(step(START))?;
        nursery.expect(|word| matches!(word, FromAgent::Awake)).await?;
        Ok(Arc::new(nursery))
    }

    /// Whether it still runs.
    pub(super) fn alive(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    async fn expect(&self, wanted: impl Fn(&FromAgent) -> bool) -> Result<(), Error> {
        match self.channel.receive().await.map_err(step("receive from the nursery"))? {
            Some((FromAgent::Failed { step, path, errno }, _)) => Err(barriers::explain(step, path, errno)),
            Some((word, _)) if wanted(&word) => Ok(()),
            _ => Err(Error::Ended),
        }
    }

    /// Asks for one more agent, to speak on `socket`, whose cell's user has these ids. An error means that the nursery is gone.
    pub(super) async fn bear(&self, socket: &OwnedFd, (uid, gid): (u32, u32), without: Without) -> io::Result<()> {
        self.channel.send(&ToNursery::Bear { uid, gid, without }, &[socket.as_fd()]).await
    }

    /// Asks for a template in a root as `root` says, to speak on `socket` and complain on `output`.
    pub(super) async fn template(
        &self,
        root: Build,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        socket: &OwnedFd,
        output: &OwnedFd,
    ) -> Result<(), Error> {
        let question = ToNursery::Template { root: Box::new(root), argv, env };
        let sent = self.channel.send(&question, &[socket.as_fd(), output.as_fd()]).await;
        sent.map_err(step("ask the nursery for a template"))
    }

    /// Takes directories of the host, with the node's identity, for a cell to mount.
    pub(super) async fn collect(&self, sources: Vec<PathBuf>, without: Without) -> Result<Vec<OwnedFd>, Error> {
        const COLLECT: &str = "ask the nursery for directories";
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let (ours, theirs) = wire::pair().map_err(step("socketpair"))?;
        let answer = Channel::new(ours).map_err(step(COLLECT))?;
        let question = ToNursery::Collect { sources, without };
        self.channel.send(&question, &[theirs.as_fd()]).await.map_err(step(COLLECT))?;
        drop(theirs);
        match answer.receive().await.map_err(step(COLLECT))? {
            Some((FromAgent::Collected, fds)) => Ok(fds),
            Some((FromAgent::Failed { step, path, errno }, _)) => Err(barriers::explain(step, path, errno)),
            _ => Err(Error::Ended),
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Its agents are gone or go with it. Killed, so that the wait is short whatever state it is in.
        let _ = child.kill();
        let _ = child.wait();
    }
}

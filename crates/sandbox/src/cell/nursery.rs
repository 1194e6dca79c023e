//! The node's side of the nursery: started when the first cell is made, started again should it ever die.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent;
use crate::lowered::Without;
use crate::spawner;
use crate::wire::{self, Birth};

/// The process that bears agents. Its end is theirs.
#[derive(Debug)]
pub(super) struct Nursery {
    socket: OwnedFd,
    child: Mutex<Child>,
}

impl Nursery {
    /// Starts `program` as the nursery.
    pub(super) async fn start(program: &Path) -> io::Result<Arc<Self>> {
        let (socket, theirs) = wire::pair()?;
        let mut command = Command::new(program);
        // Nothing of the node's environment, which may hold credentials, goes near a cell.
        command.arg(agent::ARGUMENT).env_clear().current_dir("/").stdin(theirs).stdout(Stdio::null());
        let child = spawner::spawn(command).await?;
        Ok(Arc::new(Self { socket, child: Mutex::new(child) }))
    }

    /// Asks for one more agent, to speak on `socket`. An error means that the nursery is gone.
    pub(super) fn bear(&self, socket: &OwnedFd, without: Without) -> io::Result<()> {
        wire::send(self.socket.as_fd(), &Birth { without }, &[socket.as_fd()])
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

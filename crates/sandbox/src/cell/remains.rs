//! What has to be cleared away when a cell ends, in which order.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::Group;
use super::ids::Lease;
use crate::egress;
use crate::pidfd::PidFd;

/// How long the kernel may take to end a killed cell before we say that something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// The parts of a cell that outlive its agent unless removed. Buried explicitly, or by a thread when dropped.
#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) agent: Option<PidFd>,
    pub(super) egress: Option<egress::Handle>,
    pub(super) group: Option<Group>,
    /// Last: ids go to another cell only when no process has them.
    pub(super) ids: Option<Lease>,
}

impl Remains {
    /// Kills the cell and removes everything; blocking.
    pub(super) fn bury(mut self) {
        self.bury_parts();
    }

    fn bury_parts(&mut self) {
        self.egress = None;
        if let Some(agent) = self.agent.take() {
            // The end of a pid namespace's first process is the end of all: the kernel kills the others, waits for them, and only
            // then reports the first.
            if agent.signal(libc::SIGKILL).is_ok() && !wait(&agent) {
                tracing::error!("a killed cell does not end");
            }
        }
        if let Some(group) = self.group.take()
            && let Err(error) = group.remove()
        {
            tracing::error!(%error, "cannot remove a cell's cgroup");
        }
        self.ids = None;
    }

    fn is_empty(&self) -> bool {
        self.agent.is_none() && self.egress.is_none() && self.group.is_none() && self.ids.is_none()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let remains = std::mem::take(self);
        // Not on the caller's thread, which may be the runtime's. A process that ends before the thread is done leaves an empty cgroup
        // at worst, which the next node's `recover` removes.
        if let Err(error) = std::thread::Builder::new().name("undertaker".to_owned()).spawn(move || remains.bury()) {
            tracing::error!(%error, "cannot clear away a cell now");
        }
    }
}

/// Waits for the end of a process; false when it takes too long.
fn wait(agent: &PidFd) -> bool {
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(agent.as_fd(), PollFlags::POLLIN)], patience) {
            Err(nix::Error::EINTR) => {}
            ended => return ended.is_ok_and(|ended| ended > 0),
        }
    }
}

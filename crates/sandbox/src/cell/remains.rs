//! What has to be cleared away when a cell or a template ends, in which order.

use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::Group;
use super::cgroup::freezer::Freezer;
use super::ids::Lease;
use super::recover::Cgroups;
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
    pub(super) freezer: Option<Arc<Freezer>>,
    /// The directories the group is in, removed with the last group.
    pub(super) cgroups: Option<Arc<Cgroups>>,
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
            // Who is frozen is to die, and not to run on for a moment first.
            let _ = agent.signal(libc::SIGKILL);
            if let Some(freezer) = &self.freezer {
                freezer.release();
            }
            // The end of a pid namespace's first process is the end of all: the kernel kills the others, waits for them, and only
            // then reports the first.
            if agent.signal(libc::SIGKILL).is_ok() && !wait(&agent) {
                tracing::error!("a killed cell does not end");
            }
            // A fork that was stopped before it did anything is in no cell and no pid namespace yet, and does not hear that its template
            // has gone; it is in the template's process group still. Who runs ends without this.
            let _ = agent.signal_group(libc::SIGKILL);
        }
        if let Some(group) = self.group.take()
            && let Err(error) = group.remove()
        {
            tracing::error!(%error, "cannot remove a cell's cgroup");
        }
        if let Some(freezer) = self.freezer.take()
            && let Err(error) = freezer.remove()
        {
            tracing::error!(%error, "cannot remove a cell's freezer");
        }
        self.cgroups = None;
        self.ids = None;
    }

    fn is_empty(&self) -> bool {
        self.agent.is_none()
            && self.egress.is_none()
            && self.group.is_none()
            && self.freezer.is_none()
            && self.cgroups.is_none()
            && self.ids.is_none()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        // Not on the caller's thread, which may be the runtime's; unless there is no other to be had.
        let remains = Arc::new(Mutex::new(Some(std::mem::take(self))));
        let work = {
            let remains = remains.clone();
            move || {
                bury_shared(&remains);
                *undertakers() -= 1;
                DONE.notify_all();
            }
        };
        *undertakers() += 1;
        if std::thread::Builder::new().name("undertaker".to_owned()).spawn(work).is_err() {
            bury_shared(&remains);
            *undertakers() -= 1;
        }
    }
}

fn bury_shared(remains: &Mutex<Option<Remains>>) {
    let remains = remains.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(remains) = remains {
        remains.bury();
    }
}

/// Threads that clear away dropped cells.
static UNDERTAKERS: Mutex<usize> = Mutex::new(0);
static DONE: Condvar = Condvar::new();

fn undertakers() -> MutexGuard<'static, usize> {
    UNDERTAKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no dropped cell is left to clear away, within reason.
pub(super) fn wait_for_undertakers() {
    let waited = DONE.wait_timeout_while(undertakers(), PATIENCE, |busy| *busy > 0);
    if waited.is_ok_and(|(_, outcome)| outcome.timed_out()) {
        tracing::warn!("dropped cells are still being cleared away");
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, killpg};

    use super::*;

    #[test]
    fn what_a_process_left_stopped_in_its_group_ends_with_its_remains() {
        let script = "sh -c 'kill -STOP $$' & while ! grep -q '^State:.T' /proc/$!/status; do :; done; echo";
        // Of a session, as a template is: the kernel itself wakes and ends what is left stopped in other groups.
        let leads = Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn();
        let mut leader = leads.unwrap();
        let group = nix::unistd::Pid::from_raw(i32::try_from(leader.id()).unwrap());
        let agent = PidFd::open(leader.id()).unwrap();
        assert!(leader.wait().unwrap().success());
        let mut output = leader.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        if agent.signal_group(0).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            killpg(group, Signal::SIGKILL).unwrap();
            eprintln!("SKIPPED: Linux before 6.9 cannot signal a group by descriptor");
            return;
        }
        let mut remains = Remains::default();
        remains.agent = Some(agent);
        remains.bury();
        // Its output ends with the last process that has it.
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        let ended = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], patience).unwrap() > 0;
        if !ended {
            killpg(group, Signal::SIGKILL).unwrap();
        }
        assert!(ended, "what was stopped is still there");
    }
}

//! The agent's life once the cell is made: start programs, reap them, pass signals on, end with the node.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, killpg, sigaction, sigprocmask,
};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::special::Blank;
use super::steps::Steps;
use super::{exec, network, seccomp, sys};
use crate::lowered::Without;
use crate::order::{SPECIALISE, START};
use crate::wire::{self, FromAgent, Special, ToAgent};

/// Serves the node until it lets go. Leaving means the end of everything in the cell: this is its pid 1.
pub(super) fn serve(socket: &OwnedFd, filters: &seccomp::Filters, blank: Option<Blank>, without: Without) -> i32 {
    Agent { socket, filters, blank, without, children: HashSet::new(), adopted: HashSet::new(), groups: HashSet::new() }
        .run()
        .map_or(1, |()| 0)
}

struct Agent<'a> {
    socket: &'a OwnedFd,
    filters: &'a seccomp::Filters,
    /// While the cell is nobody's.
    blank: Option<Blank>,
    without: Without,
    /// Programs that were started and not yet reaped. Orphans of theirs come here, too, but nobody waits for those.
    children: HashSet<i32>,
    /// Forks of templates, which are no children of this process.
    adopted: HashSet<i32>,
    /// Programs that have ended before others of their process group. A group's number is not given out again while it has members.
    groups: HashSet<i32>,
}

impl Agent<'_> {
    fn run(mut self) -> io::Result<()> {
        // The nursery ignores this signal so that the kernel reaps for it; here it is waited for.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let mut child_ended = SigSet::empty();
        child_ended.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&child_ended), None)?;
        let ended = SignalFd::with_flags(&child_ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            let mut waits =
                [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waits, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let [order, child] = waits.map(|wait| wait.any().unwrap_or(false));
            if child {
                while ended.read_signal()?.is_some() {}
                self.reap()?;
            }
            if order && !self.obey()? {
                return Ok(());
            }
        }
    }

    /// Takes one message. False at the end of file.
    fn obey(&mut self) -> io::Result<bool> {
        let Some((message, fds)) = wire::receive::<ToAgent>(self.socket.as_fd())? else { return Ok(false) };
        match message {
            ToAgent::Build(_) => {}
            ToAgent::Signal { pid, signal } => self.signal(pid, signal),
            ToAgent::Adopt { pid } => {
                self.adopted.insert(pid.cast_signed());
            }
            ToAgent::Release { pid } => self.release(pid.cast_signed()),
            ToAgent::Socket { seq } => match network::tcp_socket() {
                Ok(fd) => wire::send(self.socket.as_fd(), &FromAgent::Socket { seq, errno: 0 }, &[fd.as_fd()])?,
                Err(error) => {
                    self.tell(&FromAgent::Socket { seq, errno: error.raw_os_error().unwrap_or(libc::EIO) })?
                }
            },
            ToAgent::Specialise { seq, special } => return self.specialise(seq, &special, fds),
            // Nothing but runtimes of ours, which wait, runs beside an agent that has its privileges yet.
            ToAgent::Spawn(order) if self.blank.is_some() && !order.order_pipe => {
                let refused =
                    FromAgent::Refused { seq: order.seq, step: START.into(), exec: false, errno: libc::EPERM };
                self.tell(&refused)?;
            }
            ToAgent::Spawn(order) => match exec::spawn(&order, self.privileged(), self.without) {
                Ok(started) => {
                    self.children.insert(started.pid);
                    let message = FromAgent::Started { seq: order.seq, pid: started.pid.cast_unsigned() };
                    let fds: Vec<_> = started.pipes.iter().map(AsFd::as_fd).collect();
                    wire::send(self.socket.as_fd(), &message, &fds)?;
                }
                Err(exec::Refusal { step, exec, errno }) => {
                    self.tell(&FromAgent::Refused { seq: order.seq, step: step.into(), exec, errno })?;
                }
            },
        }
        Ok(true)
    }

    /// The filter that programs must put in force themselves, as the agent has not.
    fn privileged(&self) -> Option<&seccomp::Filters> {
        self.blank.is_some().then_some(self.filters)
    }

    /// Makes the cell somebody's. False: half of that is done, and the cell must end.
    fn specialise(&mut self, seq: u64, special: &Special, trees: Vec<OwnedFd>) -> io::Result<bool> {
        let Some(blank) = self.blank.take() else {
            self.tell(&FromAgent::Refused { seq, step: SPECIALISE.into(), exec: false, errno: libc::EEXIST })?;
            return Ok(true);
        };
        let waiting: Vec<i32> = self.children.union(&self.adopted).copied().collect();
        let mut steps = Steps::default();
        match blank.specialise(special, &trees, &waiting, &mut steps) {
            Ok(unfiltered) => {
                // What waits is under the filter already, and nothing else is started before this agent is, too: so the node need not wait
                // for the longest of these steps.
                self.tell(&FromAgent::Specialised { seq, took: steps.took })?;
                Ok(unfiltered.filter(self.filters, &mut Steps::default()).is_ok())
            }
            Err(fault) => {
                let (errno, _) = fault.cause();
                self.tell(&FromAgent::Refused { seq, step: fault.step, exec: false, errno }).map(|()| false)
            }
        }
    }

    /// To a program and its group; to what is left of the group where the program has ended.
    fn signal(&self, pid: u32, signal: i32) {
        let pid = pid.cast_signed();
        let Ok(signal) = Signal::try_from(signal) else { return };
        if self.children.contains(&pid) || self.adopted.contains(&pid) {
            let _ = killpg(Pid::from_raw(pid), signal);
            // Once more for one that left its group; a signal pending twice is delivered once.
            let _ = kill(Pid::from_raw(pid), signal);
        } else if self.groups.contains(&pid) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    /// Remembers the group of a program that has ended, while anything is left of it.
    fn keep_group(&mut self, pid: i32) {
        self.groups.insert(pid);
        self.groups.retain(|group| killpg(Pid::from_raw(*group), None).is_ok());
    }

    fn release(&mut self, pid: i32) {
        if self.adopted.remove(&pid) {
            self.keep_group(pid);
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, status)) = sys::reap_one()? {
            if !self.children.remove(&pid) {
                continue;
            }
            self.keep_group(pid);
            let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            self.tell(&FromAgent::Exited { pid: pid.cast_unsigned(), code, signal: libc::WTERMSIG(status) })?;
        }
        Ok(())
    }

    fn tell(&self, message: &FromAgent) -> io::Result<()> {
        wire::send(self.socket.as_fd(), message, &[])
    }
}

//! A runtime template, as the node holds it: started by the nursery, asked for forks, told of their ends.
//!
//! ```text
//! Starting ──Ready──► Serving ──socket's end, or no answer in time──► Ended
//! ```
//!
//! One task owns the receiving side of its socket, as with a cell. When it ends, every question still open is answered with an error;
//! forks that live go on, since their cells hold them, not it. Who waits for their end then learns that they ended, not how.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sched::CloneFlags;
use tokio::sync::oneshot;

use super::channel::Channel;
use super::ids::{GID_INSIDE, UID_INSIDE};
use super::nursery::Nursery;
use super::remains::Remains;
use super::{HOSTNAME, SHARED_MIB, barriers};
use crate::Error;
use crate::agent::{clone, exec, privileges, seccomp};
use crate::error::step;
use crate::lowered::{Lowered, Without};
use crate::pidfd::PidFd;
use crate::port::{Template, TemplateSpec};
use crate::wire::{self, Build, Device, FromTemplate, ToTemplate};

/// Forks of one template, all of which have the same seed of Python's string hashes.
const MOST_FORKS: u64 = 1000;
/// What of a template's complaints is kept for the error message.
const COMPLAINT_BYTES: usize = 2048;
/// Memory that a template takes the machine to have.
const MEMORY_MIB: u32 = 512;

/// A fork that waits for its order.
pub(super) struct Fork {
    /// Inside its cell.
    pub(super) pid: u32,
    /// On the host.
    pub(super) host: u32,
    pub(super) pidfd: PidFd,
    /// Exit code, or else a signal; an error when the template has gone.
    pub(super) exit: oneshot::Receiver<(Option<i32>, i32)>,
}

type Answer = Result<Fork, Error>;

#[derive(Default)]
struct State {
    ended: bool,
    questions: HashMap<u64, oneshot::Sender<Answer>>,
    exits: HashMap<u64, oneshot::Sender<(Option<i32>, i32)>>,
}

/// The handle. Forks that live hold it as well, so that it can tell of their ends.
pub(super) struct CellTemplate {
    shared: Arc<Shared>,
    /// Its process, ended with the handle.
    remains: Remains,
    /// The template ends with the nursery.
    _nursery: Arc<Nursery>,
}

struct Shared {
    channel: Channel,
    state: Mutex<State>,
    next: AtomicU64,
    patience: Duration,
    without: Without,
}

impl CellTemplate {
    /// Starts one and waits until it has loaded itself.
    pub(super) async fn start(
        nursery: Arc<Nursery>,
        spec: TemplateSpec,
        patience: Duration,
        without: Without,
    ) -> Result<Arc<Self>, Error> {
        let (socket, theirs) = wire::pair().map_err(step("socketpair"))?;
        let (complaints, output) = io::pipe().map_err(step("pipe"))?;
        nursery.template(root(&spec, without), spec.argv, spec.env, &theirs, &output.into()).await?;
        drop(theirs);
        let channel = Channel::new(socket).map_err(step("register the template's socket"))?;
        let process = match next(&channel).await? {
            (FromTemplate::Born { .. }, Some(pidfd)) => pidfd.into(),
            _ => return Err(Error::Ended),
        };
        let shared = Shared { channel, state: Mutex::default(), next: AtomicU64::new(0), patience, without };
        let remains =
            Remains { agent: Some(process), egress: None, group: None, freezer: None, cgroups: None, ids: None };
        let template = Self { shared: Arc::new(shared), remains, _nursery: nursery };
        let begin = begin(without).map_err(step("compile the filter"))?;
        let started = async {
            template.shared.channel.send(&begin, &[]).await.map_err(ended_or(START))?;
            match next(&template.shared.channel).await? {
                (FromTemplate::Ready, _) => Ok(()),
                _ => Err(Error::Ended),
            }
        };
        match started.await {
            Ok(()) => {}
            Err(Error::Ended) => return Err(step(START)(complaint(&complaints.into()))),
            Err(error) => return Err(error),
        }
        tokio::spawn(Arc::clone(&template.shared).receive());
        Ok(Arc::new(template))
    }

    /// Forks it into a cell. `fds` are the agent's pidfd, four pipes and the files to join the cell's cgroups by.
    pub(super) async fn fork(&self, processes: Option<u64>, fds: &[BorrowedFd<'_>]) -> Result<Fork, Error> {
        let shared = &self.shared;
        let seq = shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = shared.state();
            if state.ended {
                return Err(Error::Ended);
            }
            state.questions.insert(seq, sender);
        }
        let order = ToTemplate::Fork { seq, namespaces: namespaces(shared.without), processes };
        let asked = async {
            shared.channel.send(&order, fds).await.map_err(ended_or("ask the template for a fork"))?;
            answer.await.map_err(|_| Error::Ended)?
        };
        let Ok(forked) = tokio::time::timeout(shared.patience, asked).await else {
            tracing::warn!(patience = ?shared.patience, "a template does not answer; it is given up");
            if let Some(process) = &self.remains.agent {
                let _ = process.signal(libc::SIGKILL);
            }
            shared.end();
            return Err(step("fork the template")(io::ErrorKind::TimedOut.into()));
        };
        if forked.is_err() {
            shared.state().questions.remove(&seq);
        }
        forked
    }
}

const START: &str = "start the template";

impl Template for CellTemplate {
    fn usable(&self) -> bool {
        !self.shared.state().ended && self.shared.next.load(Ordering::Relaxed) < MOST_FORKS
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.questions.clear();
        state.exits.clear();
    }

    /// Receives until the template is gone.
    async fn receive(self: Arc<Self>) {
        while let Ok(Some((message, fds))) = self.channel.receive_as::<FromTemplate>().await {
            self.take(message, fds);
        }
        self.end();
    }

    fn take(&self, message: FromTemplate, fds: Vec<OwnedFd>) {
        match message {
            FromTemplate::Forked { seq, pid, host } => {
                let Some(pidfd) = fds.into_iter().next().map(PidFd::from) else { return };
                let (sender, exit) = oneshot::channel();
                let question = {
                    let mut state = self.state();
                    state.exits.insert(seq, sender);
                    state.questions.remove(&seq)
                };
                let fork = Fork { pid, host, pidfd, exit };
                let unwanted = match question {
                    Some(question) => question.send(Ok(fork)).err().and_then(Result::ok),
                    None => Some(fork),
                };
                // Whoever asked has gone meanwhile; a process that nobody knows of must not live.
                if let Some(fork) = unwanted {
                    let _ = fork.pidfd.signal(libc::SIGKILL);
                }
            }
            FromTemplate::Refused { seq, step, errno } => {
                if let Some(question) = self.state().questions.remove(&seq) {
                    let source = io::Error::from_raw_os_error(errno);
                    let _ = question.send(Err(Error::Step { step: step.into(), source }));
                }
            }
            FromTemplate::Exited { seq, code, signal } => {
                if let Some(exit) = self.state().exits.remove(&seq) {
                    let _ = exit.send((code, signal));
                }
            }
            FromTemplate::Born { .. } | FromTemplate::Failed { .. } | FromTemplate::Ready => {
                tracing::warn!(?message, "a template repeats itself");
            }
        }
    }
}

/// The next message of a template that is starting.
async fn next(channel: &Channel) -> Result<(FromTemplate, Option<OwnedFd>), Error> {
    match channel.receive_as().await.map_err(ended_or("receive from the template"))? {
        Some((FromTemplate::Failed { step, path, errno }, _)) => Err(barriers::explain(step, path, errno)),
        Some((message, fds)) => Ok((message, fds.into_iter().next())),
        None => Err(Error::Ended),
    }
}

/// The end of a template, however the socket shows it; or another failure of this step.
fn ended_or(name: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::Ended,
        _ => step(name)(error),
    }
}

/// The last words of a template that ended while it started.
fn complaint(output: &OwnedFd) -> io::Error {
    let mut text = vec![0; COMPLAINT_BYTES];
    // The other end is closed with the process, so this does not wait; where it is not, the pipe is none of a template that ended.
    let read = nix::fcntl::fcntl(output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .map_err(io::Error::from)
        .and_then(|_| output.try_clone())
        .and_then(|output| io::Read::read(&mut File::from(output), &mut text));
    text.truncate(read.unwrap_or(0));
    io::Error::other(format!("it ended: {}", String::from_utf8_lossy(&text).trim()))
}

/// The root that a template sees.
fn root(spec: &TemplateSpec, without: Without) -> Build {
    Build {
        join: Vec::new(),
        uid: UID_INSIDE,
        gid: GID_INSIDE,
        mounts: spec.mounts.iter().map(|mount| (mount.source.clone(), mount.target.clone())).collect(),
        hostname: HOSTNAME.to_owned(),
        shared_mib: SHARED_MIB,
        port: 0,
        device: Device::No,
        memory_mib: MEMORY_MIB,
        special: None,
        without,
    }
}

/// What all forks have in common.
fn begin(without: Without) -> io::Result<ToTemplate> {
    let filter = match without.keeps(Lowered::Filter) {
        true => hexadecimal(&seccomp::Filters::compile()?.bytes()),
        false => String::new(),
    };
    #[expect(clippy::as_conversions, reason = "the kernel's own small numbers")]
    let limits = privileges::LIMITS.iter().map(|(resource, most)| (*resource as u32, *most)).collect();
    let secure_bits = without.keeps(Lowered::Capabilities).then_some(privileges::SECURE_BITS);
    let (uid, gid, clone) = (UID_INSIDE, GID_INSIDE, hexadecimal(clone::code()));
    Ok(ToTemplate::Begin { uid, gid, limits, secure_bits, filter, clone, oom_score: exec::OOM_SCORE })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Those of a cell, all of which its agent is in.
fn namespaces(without: Without) -> i32 {
    let all = [
        (Lowered::Processes, CloneFlags::CLONE_NEWPID),
        (Lowered::Network, CloneFlags::CLONE_NEWNET),
        (Lowered::Ipc, CloneFlags::CLONE_NEWIPC),
        (Lowered::Hostname, CloneFlags::CLONE_NEWUTS),
        (Lowered::Cgroup, CloneFlags::CLONE_NEWCGROUP),
    ];
    let kept = all.into_iter().filter(|(barrier, _)| without.keeps(*barrier));
    let own = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    kept.fold(own, |flags, (_, flag)| flags | flag).bits()
}

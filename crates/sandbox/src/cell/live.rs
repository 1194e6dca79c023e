//! A live cell, as the node holds it.
//!
//! One task owns the receiving side of the agent's socket and hands answers to whoever asked: a question carries a number, an answer
//! repeats it. The socket's end is the cell's: every question still open is answered with [`Error::Ended`], every process still
//! waited for with the loss of its channel. An agent that takes too long for an answer (somebody stopped it, say) is given up the same
//! way.

use std::any::Any;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lambent_model::InstanceId;
use lambent_model::function::Network;
use tokio::sync::oneshot;

use super::cgroup::freezer::Freezer;
use super::channel::Channel;
use super::memory::Memory;
use super::nursery::Nursery;
use super::remains::Remains;
use super::template::{CellTemplate, Fork};
use super::{OVERHEAD_MIB, SHARED_MIB, barriers, cgroup};
use crate::error::step;
use crate::gate::Gate;
use crate::lowered::Without;
use crate::order::{self, FORK, ORDER, SPECIALISE};
use crate::port::{
    Cell, ExitStatus, Mapped, Order, Process, ProcessSpec, RUNTIME_API_PORT, Specialisation, Template, Usage,
};
use crate::wire::{FromAgent, Spawn, ToAgent};
use crate::{Error, agent, egress};

/// A question's answer.
enum Answer {
    Started { pid: u32, fds: Vec<OwnedFd>, exit: oneshot::Receiver<ExitStatus> },
    Socket(OwnedFd),
    Specialised,
    Refused(Error),
}

#[derive(Default)]
struct State {
    ended: bool,
    questions: HashMap<u64, oneshot::Sender<Answer>>,
    exits: HashMap<u32, oneshot::Sender<ExitStatus>>,
}

/// What the cell's handle shares with its task and with the watch.
pub(super) struct Shared {
    id: InstanceId,
    channel: Channel,
    state: Mutex<State>,
    next: AtomicU64,
    patience: Duration,
    pub(super) memory: Memory,
    /// Closed while the cell is frozen, its agent included.
    gate: Gate,
    /// None where the host has none to give.
    freezer: Option<Arc<Freezer>>,
}

impl Shared {
    pub(super) fn new(
        id: InstanceId,
        channel: Channel,
        memory: Memory,
        freezer: Option<Arc<Freezer>>,
        patience: Duration,
    ) -> Self {
        let (state, next, gate) = Default::default();
        Self { id, channel, state, next, patience, memory, gate, freezer }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent and waits for the answer.
    async fn ask(&self, question: impl FnOnce(u64) -> ToAgent, fds: &[OwnedFd]) -> Result<Answer, Error> {
        let _passed = self.gate.pass().await;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if state.ended {
                return Err(Error::Ended);
            }
            state.questions.insert(number, sender);
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.send(&question(number), &fds).await {
            self.state().questions.remove(&number);
            return Err(error);
        }
        self.in_time(answer).await?.map_err(|_| Error::Ended)
    }

    /// Tells the agent something.
    async fn send(&self, message: &ToAgent, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.in_time(self.channel.send(message, fds)).await?.map_err(ended_or)
    }

    /// Waits for the agent; the cell ends when that takes too long.
    async fn in_time<T>(&self, what: impl Future<Output = T>) -> Result<T, Error> {
        let waited = tokio::time::timeout(self.patience, what).await;
        waited.map_err(|_| {
            tracing::warn!(cell = %self.id, patience = ?self.patience, "a cell's agent does not answer; it is given up");
            self.end();
            Error::Ended
        })
    }

    fn answer(&self, number: u64, answer: Answer) -> Result<(), Answer> {
        match self.state().questions.remove(&number) {
            Some(sender) => sender.send(answer),
            None => Err(answer),
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.questions.clear();
        state.exits.clear();
        self.memory.release();
        // Whoever waited for it to be thawed learns that it has ended.
        self.gate.open();
    }

    /// Something of the freezer that blocks.
    async fn on_freezer<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        work: impl FnOnce(&Self, &Freezer) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        if self.state().ended {
            return Err(Error::Ended);
        }
        let freezer = self.freezer.clone().ok_or_else(barriers::no_freezer)?;
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&shared, &freezer)).await;
        done.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(step(name))
    }

    /// Receives until the agent is gone.
    pub(super) async fn receive(self: Arc<Self>) {
        loop {
            match self.channel.receive().await {
                Ok(Some((message, fds))) => self.take(message, fds).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(cell = %self.id, %error, "lost a cell's agent");
                    break;
                }
            }
        }
        self.end();
    }

    /// Waits for the end of a fork, and tells. It is killed when nobody waits for it any more before that was set up, and by its cell's
    /// end in any case.
    async fn tend_fork(self: Arc<Self>, fork: Fork, template: Arc<CellTemplate>, sender: oneshot::Sender<ExitStatus>) {
        let Fork { pid, host, pidfd, exit } = fork;
        self.memory.add(host);
        let ended = exit.await;
        drop(template);
        let status = match ended {
            Ok((Some(code), _)) => ExitStatus::Code(code),
            Ok((None, signal)) => self.killed(signal),
            Err(_) => {
                // The template has gone, and with it who knows how this ends.
                if let Err(error) = pidfd.ended().await {
                    tracing::error!(cell = %self.id, %error, "cannot wait for a process");
                }
                self.killed(libc::SIGKILL)
            }
        };
        self.memory.remove(host);
        let _ = self.channel.send(&ToAgent::Release { pid }, &[]).await;
        if !self.state().ended {
            let _ = sender.send(status);
        }
    }

    /// The end by a signal.
    fn killed(&self, signal: i32) -> ExitStatus {
        match signal {
            libc::SIGKILL if self.memory.claim_kill() => ExitStatus::OutOfMemory,
            _ => ExitStatus::Signal(signal),
        }
    }

    async fn take(&self, message: FromAgent, fds: Vec<OwnedFd>) {
        match message {
            FromAgent::Started { seq, pid } => {
                let (sender, exit) = oneshot::channel();
                self.state().exits.insert(pid, sender);
                if self.answer(seq, Answer::Started { pid, fds, exit }).is_err() {
                    // Whoever asked has gone meanwhile; a program that nobody knows of must not run.
                    let _ = self.send(&ToAgent::Signal { pid, signal: libc::SIGKILL }, &[]).await;
                }
            }
            FromAgent::Refused { seq, step, exec, errno } => {
                let source = std::io::Error::from_raw_os_error(errno);
                // The path is filled in by whoever asked.
                let error =
                    if exec { Error::Exec { path: String::new(), source } } else { Error::Step { step, source } };
                let _ = self.answer(seq, Answer::Refused(error));
            }
            FromAgent::Socket { seq, errno } => {
                let refused = || step("socket")(std::io::Error::from_raw_os_error(errno));
                let answer = fds.into_iter().next().map_or_else(|| Answer::Refused(refused()), Answer::Socket);
                let _ = self.answer(seq, answer);
            }
            FromAgent::Exited { pid, code, signal } => {
                let status = match code {
                    Some(code) => ExitStatus::Code(code),
                    None => self.killed(signal),
                };
                if let Some(exit) = self.state().exits.remove(&pid) {
                    let _ = exit.send(status);
                }
            }
            FromAgent::Specialised { seq, took } => {
                tracing::trace!(cell = %self.id, ?took, "specialised a cell; microseconds a step");
                let _ = self.answer(seq, Answer::Specialised);
            }
            FromAgent::Unshared
            | FromAgent::Awake
            | FromAgent::Collected
            | FromAgent::Born { .. }
            | FromAgent::Ready { .. }
            | FromAgent::Failed { .. } => {
                tracing::warn!(cell = %self.id, ?message, "an agent repeats itself");
            }
        }
    }
}

/// A failure to send to an agent that has gone is the cell's end.
fn ended_or(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Error::Ended,
        _ => step("send to the agent")(error),
    }
}

/// The handle.
pub(super) struct LiveCell {
    pub(super) id: InstanceId,
    pub(super) listener: Mutex<Option<TcpListener>>,
    pub(super) shared: Arc<Shared>,
    pub(super) phase: Mutex<Phase>,
    /// Emptied by `destroy`; held while it runs, so that every caller waits for the end.
    pub(super) remains: tokio::sync::Mutex<Option<Remains>>,
    /// Agents end with the nursery, so it lives as long as any of them.
    pub(super) nursery: Arc<Nursery>,
}

/// Whose a cell is.
pub(super) enum Phase {
    /// Nobody's.
    Blank(Blank),
    /// On its way to be somebody's; or it failed on that way.
    Changing,
    /// A function's.
    Somebodys {
        /// How many processes at once.
        processes: u64,
    },
}

/// What a blank cell has that it may need when it becomes somebody's.
pub(super) struct Blank {
    /// The device that leads out, not yet served; or why there is none, where one was tried.
    pub(super) device: Result<Option<OwnedFd>, i32>,
    pub(super) egress: Arc<egress::Config>,
    pub(super) without: Without,
}

impl Blank {
    /// Serves the device, if there is to be one.
    pub(super) fn serve_device(&mut self) -> Result<Option<egress::Handle>, Error> {
        let device = std::mem::replace(&mut self.device, Ok(None));
        let device = device.map_err(|errno| barriers::explain(agent::DEVICE.into(), None, errno))?;
        let served = device.map(|device| egress::spawn(device, Arc::clone(&self.egress))).transpose();
        served.map_err(step("serve the network device"))
    }

    /// Takes the device away; the kernel does so while its last descriptor is closed, which takes a while.
    async fn remove_device(&mut self) {
        if let Ok(Some(device)) = std::mem::replace(&mut self.device, Ok(None)) {
            let _ = tokio::task::spawn_blocking(move || drop(device)).await;
        }
    }
}

/// The kernel's limits for what a function is promised.
pub(super) fn limits(whose: &Specialisation) -> cgroup::Limits {
    let own = u64::from(SHARED_MIB + OVERHEAD_MIB);
    let mib = u64::from(whose.memory_mib) + u64::from(whose.ephemeral_mib) + own;
    // One process for the agent.
    let processes = u64::from(whose.processes) + 1;
    cgroup::Limits { memory_bytes: mib << 20, processes, milli_cpus: whose.milli_cpus }
}

impl LiveCell {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Cell for LiveCell {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn runtime_api_address(&self) -> String {
        format!("127.0.0.1:{RUNTIME_API_PORT}")
    }

    fn take_runtime_api(&self) -> Option<TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn inside_path(&self, path: &str) -> String {
        path.to_owned()
    }

    async fn specialise(&self, what: Specialisation) -> Result<(), Error> {
        let mut blank = {
            let mut phase = self.phase();
            match std::mem::replace(&mut *phase, Phase::Changing) {
                Phase::Blank(blank) => blank,
                other => {
                    *phase = other;
                    return Err(step(SPECIALISE)(std::io::ErrorKind::AlreadyExists.into()));
                }
            }
        };
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        let sources = what.mounts.iter().map(|mount| mount.source.clone()).collect();
        let trees = self.shared.in_time(self.nursery.collect(sources, blank.without)).await??;
        self.shared.memory.limit(limits(&what), what.memory_mib).map_err(step("set the cell's limits"))?;
        match what.network {
            Network::None => blank.remove_device().await,
            Network::Internet => {
                let served = blank.serve_device()?;
                match self.remains.lock().await.as_mut() {
                    Some(remains) => remains.egress = served,
                    None => return Err(Error::Ended),
                }
            }
        }
        let (special, processes) = (super::special(&what), u64::from(what.processes));
        match self.shared.ask(|seq| ToAgent::Specialise { seq, special }, &trees).await? {
            Answer::Specialised => {
                *self.phase() = Phase::Somebodys { processes };
                Ok(())
            }
            Answer::Refused(error) => Err(error),
            Answer::Started { .. } | Answer::Socket(_) => Err(Error::Ended),
        }
    }

    async fn fork_from(&self, template: &Arc<dyn Template>) -> Result<Process, Error> {
        let template: Arc<dyn Any + Send + Sync> = template.clone();
        let other = |_| step(FORK)(std::io::ErrorKind::InvalidInput.into());
        let template = template.downcast::<CellTemplate>().map_err(other)?;
        let _passed = self.shared.gate.pass().await;
        let processes = match *self.phase() {
            Phase::Blank(_) | Phase::Changing => None,
            Phase::Somebodys { processes } => Some(processes + 1),
        };
        let (agent, joins) = {
            let remains = self.remains.lock().await;
            let remains = remains.as_ref().ok_or(Error::Ended)?;
            let agent = remains.agent.as_ref().ok_or(Error::Ended)?.try_clone().map_err(step("dup"))?;
            let files = remains.group.as_ref().map(cgroup::Group::join_files).unwrap_or_default();
            let open = |file| OpenOptions::new().write(true).open(file).map(OwnedFd::from);
            (agent, files.iter().map(open).collect::<Result<Vec<_>, _>>().map_err(step("open the cell's cgroups"))?)
        };
        let pipe = || std::io::pipe().map_err(step("pipe"));
        let ((stdout, out), (stderr, err), (log, log_end), (order_end, order)) = (pipe()?, pipe()?, pipe()?, pipe()?);
        let mut fds = vec![agent.as_fd(), out.as_fd(), err.as_fd(), log_end.as_fd(), order_end.as_fd()];
        fds.extend(joins.iter().map(AsFd::as_fd));
        let fork = template.fork(processes, &fds).await?;
        let pid = fork.pid;
        let (sender, exit) = oneshot::channel();
        // Before anything else can fail: this task sees to its end.
        tokio::spawn(Arc::clone(&self.shared).tend_fork(fork, template, sender));
        self.shared.send(&ToAgent::Adopt { pid }, &[]).await?;
        let (stdout, stderr) = (stdout.into(), stderr.into());
        Ok(Process { pid, stdout, stderr, log_pipe: Some(log.into()), order_pipe: Some(order.into()), exit })
    }

    async fn order(&self, pipe: OwnedFd, order: Order) -> Result<(), Error> {
        if !matches!(*self.phase(), Phase::Somebodys { .. }) {
            return Err(step(ORDER)(std::io::ErrorKind::PermissionDenied.into()));
        }
        order::send(pipe, &order)
    }

    async fn spawn(&self, process: ProcessSpec) -> Result<Process, Error> {
        let ProcessSpec { argv, env, cwd, log_pipe, order_pipe } = process;
        let program = argv.first().cloned().unwrap_or_default();
        let order = |seq| ToAgent::Spawn(Spawn { seq, argv, env, cwd, log_pipe, order_pipe });
        match self.shared.ask(order, &[]).await? {
            Answer::Started { pid, fds, exit } => {
                let mut fds = fds.into_iter();
                let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else { return Err(Error::Ended) };
                let log_pipe = if log_pipe { fds.next() } else { None };
                Ok(Process { pid, stdout, stderr, log_pipe, order_pipe: fds.next(), exit })
            }
            Answer::Refused(Error::Exec { source, .. }) => Err(Error::Exec { path: program, source }),
            Answer::Refused(error) => Err(error),
            Answer::Socket(_) | Answer::Specialised => Err(Error::Ended),
        }
    }

    async fn signal(&self, pid: u32, signal: i32) -> Result<(), Error> {
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        self.shared.send(&ToAgent::Signal { pid, signal }, &[]).await
    }

    async fn connect(&self, port: u16) -> Result<std::net::TcpStream, Error> {
        // The agent only makes the socket, which keeps it to the cell's network for good; connecting may take long, and is our wait.
        let socket = match self.shared.ask(|seq| ToAgent::Socket { seq }, &[]).await? {
            Answer::Socket(socket) => socket,
            Answer::Refused(error) => return Err(error),
            Answer::Started { .. } | Answer::Specialised => return Err(Error::Ended),
        };
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await.map_err(step("connect"))?;
        stream.into_std().map_err(step("connect"))
    }

    async fn usage(&self) -> Result<Usage, Error> {
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        self.shared.memory.usage().map_err(step("read what the cell uses"))
    }

    async fn mapped(&self) -> Result<Mapped, Error> {
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.memory.mapped()).await;
        read.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(step("read what the cell maps"))
    }

    async fn set_milli_cpus(&self, milli_cpus: u32) -> Result<(), Error> {
        self.shared.memory.set_milli_cpus(milli_cpus).map_err(step("set the cpu quota"))
    }

    async fn prepare_to_freeze(&self) -> Result<(), Error> {
        self.shared.on_freezer("prepare to freeze", |shared, freezer| shared.memory.admit(freezer)).await
    }

    async fn freeze(&self) -> Result<(), Error> {
        let freezer = self.shared.freezer.clone().ok_or_else(barriers::no_freezer)?;
        if !self.shared.gate.close() {
            return Err(step("freeze")(std::io::Error::new(
                std::io::ErrorKind::ResourceBusy,
                "something is asked of it",
            )));
        }
        // From here on a thaw, or the end, of the cell comes after this, also where nobody waits for this any more.
        freezer.want(true);
        let work = |shared: &Shared, freezer: &Freezer| {
            shared.memory.admit(freezer)?;
            freezer.freeze()
        };
        let frozen = self.shared.on_freezer("freeze", work).await;
        if frozen.is_err() {
            self.shared.gate.open();
        }
        frozen
    }

    async fn thaw(&self) -> Result<(), Error> {
        let Some(freezer) = &self.shared.freezer else { return Ok(()) };
        freezer.want(false);
        self.shared.on_freezer("thaw", |_, freezer| freezer.thaw()).await?;
        self.shared.gate.open();
        Ok(())
    }

    async fn reclaim(&self) -> Result<u64, Error> {
        self.shared.on_freezer("reclaim memory", |shared, freezer| shared.memory.reclaim(|| freezer.wanted())).await
    }

    async fn destroy(&self) {
        let mut remains = self.remains.lock().await;
        self.shared.end();
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(remains) = remains.take()
            && tokio::task::spawn_blocking(move || remains.bury()).await.is_err()
        {
            tracing::error!(cell = %self.id, "the clean-up of a cell did not end");
        }
    }
}

//! A live cell, as the node holds it.
//!
//! One task owns the receiving side of the agent's socket and hands answers to whoever asked: a question carries a number, an answer
//! repeats it. The socket's end is the cell's: every question still open is answered with [`Error::Ended`], every process still
//! waited for with the loss of its channel.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lambent_model::InstanceId;
use tokio::sync::oneshot;

use super::channel::Channel;
use super::memory::Memory;
use super::nursery::Nursery;
use super::remains::Remains;
use crate::Error;
use crate::error::step;
use crate::port::{Cell, ExitStatus, Process, ProcessSpec, RUNTIME_API_PORT, Usage};
use crate::wire::{FromAgent, Spawn, ToAgent};

/// A question's answer.
enum Answer {
    Started { pid: u32, fds: Vec<OwnedFd>, exit: oneshot::Receiver<ExitStatus> },
    Socket(OwnedFd),
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
    pub(super) memory: Memory,
}

impl Shared {
    pub(super) fn new(id: InstanceId, channel: Channel, memory: Memory) -> Self {
        Self { id, channel, state: Mutex::default(), next: AtomicU64::new(0), memory }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent and waits for the answer.
    async fn ask(&self, question: impl FnOnce(u64) -> ToAgent) -> Result<Answer, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if state.ended {
                return Err(Error::Ended);
            }
            state.questions.insert(number, sender);
        }
        if let Err(error) = self.channel.send(&question(number)).await {
            self.state().questions.remove(&number);
            return Err(ended_or(error));
        }
        answer.await.map_err(|_| Error::Ended)
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

    async fn take(&self, message: FromAgent, fds: Vec<OwnedFd>) {
        match message {
            FromAgent::Started { seq, pid } => {
                let (sender, exit) = oneshot::channel();
                self.state().exits.insert(pid, sender);
                if self.answer(seq, Answer::Started { pid, fds, exit }).is_err() {
                    // Whoever asked has gone meanwhile; a program that nobody knows of must not run.
                    let _ = self.channel.send(&ToAgent::Signal { pid, signal: libc::SIGKILL }).await;
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
                    None if signal == libc::SIGKILL && self.memory.claim_kill() => ExitStatus::OutOfMemory,
                    None => ExitStatus::Signal(signal),
                };
                if let Some(exit) = self.state().exits.remove(&pid) {
                    let _ = exit.send(status);
                }
            }
            FromAgent::Born { .. } | FromAgent::Ready { .. } | FromAgent::Failed { .. } => {
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
    /// Emptied by `destroy`; held while it runs, so that every caller waits for the end.
    pub(super) remains: tokio::sync::Mutex<Option<Remains>>,
    /// Agents end with the nursery, so it lives as long as any of them.
    pub(super) _nursery: Arc<Nursery>,
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

    async fn spawn(&self, process: ProcessSpec) -> Result<Process, Error> {
        let ProcessSpec { argv, env, cwd, log_pipe } = process;
        let program = argv.first().cloned().unwrap_or_default();
        let order = |seq| ToAgent::Spawn(Spawn { seq, argv, env, cwd, log_pipe });
        match self.shared.ask(order).await? {
            Answer::Started { pid, fds, exit } => {
                let mut fds = fds.into_iter();
                let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else { return Err(Error::Ended) };
                Ok(Process { pid, stdout, stderr, log_pipe: fds.next(), exit })
            }
            Answer::Refused(Error::Exec { source, .. }) => Err(Error::Exec { path: program, source }),
            Answer::Refused(error) => Err(error),
            Answer::Socket(_) => Err(Error::Ended),
        }
    }

    async fn signal(&self, pid: u32, signal: i32) -> Result<(), Error> {
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        self.shared.channel.send(&ToAgent::Signal { pid, signal }).await.map_err(ended_or)
    }

    async fn connect(&self, port: u16) -> Result<std::net::TcpStream, Error> {
        // The agent only makes the socket, which keeps it to the cell's network for good; connecting may take long, and is our wait.
        let socket = match self.shared.ask(|seq| ToAgent::Socket { seq }).await? {
            Answer::Socket(socket) => socket,
            Answer::Refused(error) => return Err(error),
            Answer::Started { .. } => return Err(Error::Ended),
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

    async fn set_milli_cpus(&self, milli_cpus: u32) -> Result<(), Error> {
        self.shared.memory.set_milli_cpus(milli_cpus).map_err(step("set the cpu quota"))
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

//! A wasm host process, as the node holds it.
//!
//! One task receives and hands what comes to the calls that wait for it; whoever calls, sends. When the process ends, for whatever
//! reason, its socket does, and every call that still waits sees its channel close: it failed, by no fault of the node's, and the next
//! one goes to a new process. What a host process may make the node hold is bounded: a frame's length, and the frames of a call.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use lambent_model::InstanceId;
use lambent_model::function::Network;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use super::host::WINDOW;
use super::wire::{Done, Frame, Kind, Load, Loaded, Receiver, Request, Sender};
use super::{Flavour, HOST_ARGUMENT, PROGRAM};
use crate::port::{Cell, CellSpec, ExitStatus, Mapped, Mount, ProcessSpec, Sandbox, Usage};
use crate::{Error, error::step};

/// Where a host process finds its socket and code.
const SHARED: &str = "/var/wasm";
/// How long one may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long one may take to load a function.
const LOADED_WITHIN: Duration = Duration::from_secs(20);
/// Threads: workers, the blocking pool (name look-ups), the clock.
const PROCESSES: u32 = 256;
/// What the process itself needs, beside its guests.
const OVERHEAD_MIB: u32 = 256;
/// Longest line that a host process says to the node.
const LINE_BYTES: usize = 4_096;

/// A thousandth of a CPU for each of them.
pub(super) fn all_processors() -> u32 {
    std::thread::available_parallelism().map_or(1_000, |count| u32::try_from(count.get()).unwrap_or(1) * 1_000)
}

/// A function version as a host process needs to know it.
#[derive(Debug, Clone, Default)]
pub struct Function {
    /// Its machine code.
    pub code: PathBuf,
    /// The code's SHA-256.
    pub sha256: String,
    /// How it was compiled.
    pub flavour: Flavour,
    /// The function's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its memory.
    pub memory_mib: u32,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Calls that one instance may serve; none for one.
    pub reuse: Option<u32>,
    /// Instructions a call may take, about.
    pub fuel: Option<u64>,
    /// Hosts it may reach over HTTP.
    pub allow: Vec<String>,
}

/// What comes of a call.
#[derive(Debug)]
pub enum Event {
    /// Something was written to the log.
    Log(Bytes),
    /// A piece of the answer.
    Piece(Bytes),
    /// It is over.
    Done(Box<Done>),
}

/// The events of a call, in order. Ends without [`Event::Done`] when the host process is lost.
#[derive(Debug)]
pub struct Answer {
    id: u32,
    shared: Arc<Shared>,
    events: Arc<Events>,
}

impl Answer {
    /// The next one.
    pub async fn next(&mut self) -> Option<Event> {
        let event = std::future::poll_fn(|context| self.events.poll(context)).await;
        if let Some(Event::Log(_) | Event::Piece(_)) = event {
            let _ = self.shared.sender.send(Kind::Taken, self.id, b"", b"");
        }
        event
    }
}

/// What came of a call and was not taken yet. Not a channel of tokio's, which makes room for dozens of events at once: most calls have one.
#[derive(Debug, Default)]
struct Events(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    ended: bool,
    waker: Option<Waker>,
}

impl Events {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one in; whether there was room. None beyond what a window allows, and one more for the end.
    fn put(&self, event: Event, ends: bool) -> bool {
        let mut queue = self.queue();
        if queue.events.len() > WINDOW {
            return false;
        }
        queue.events.push_back(event);
        queue.ended |= ends;
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// No more will come.
    fn end(&self) {
        let mut queue = self.queue();
        queue.ended = true;
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Event>> {
        let mut queue = self.queue();
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    id: InstanceId,
    sender: Arc<Sender>,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    ended: bool,
    waiting: HashMap<u32, Arc<Events>>,
    /// Slots of which the process has not said yet that it has them.
    loading: HashMap<u32, oneshot::Sender<()>>,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frame to whom it is for. An error means that the process does not keep to the protocol.
    fn take(&self, frame: Frame) -> io::Result<()> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let event = match frame.kind {
            Kind::Log => Event::Log(frame.body),
            Kind::Piece => Event::Piece(frame.body),
            Kind::Done => {
                let done = Done::read(frame.body).ok_or_else(wrong)?;
                let events = self.calls().waiting.remove(&frame.id);
                let fits = events.is_none_or(|events| events.put(Event::Done(Box::new(done)), true));
                return if fits { Ok(()) } else { Err(wrong()) };
            }
            Kind::Loaded => {
                let loaded: Loaded = serde_json::from_slice(&frame.body)?;
                if let Some(reason) = loaded.error {
                    tracing::error!(host = %self.id, slot = frame.id, reason, "a wasm function cannot be loaded");
                }
                if let Some(waiter) = self.calls().loading.remove(&frame.id) {
                    let _ = waiter.send(());
                }
                return Ok(());
            }
            Kind::Ready | Kind::Load | Kind::Unload | Kind::Call | Kind::Taken => return Err(wrong()),
        };
        let events = self.calls().waiting.get(&frame.id).cloned();
        if events.is_none_or(|events| events.put(event, false)) { Ok(()) } else { Err(wrong()) }
    }

    /// What is sent to it arrives no more. Answers that it had given before may still be read.
    fn close(&self) {
        self.calls().ended = true;
    }

    fn end(&self) {
        let mut calls = self.calls();
        calls.ended = true;
        calls.loading.clear();
        calls.waiting.drain().for_each(|(_, events)| events.end());
    }
}

/// A host process.
pub struct Host {
    shared: Arc<Shared>,
    cell: Arc<dyn Cell>,
    pid: u32,
    directory: Directory,
    /// Calls and slots; they are told apart by what they are used for.
    next: AtomicU32,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Host {
    /// Starts one. `program` calls [`super::main_if_asked`] in its `main`; below `parent`, which nobody but the node may enter, it gets a
    /// directory of its own. `memory_mib` is for all its guests together.
    pub async fn start(
        sandbox: &dyn Sandbox,
        program: &Path,
        parent: &Path,
        memory_mib: u32,
    ) -> Result<Arc<Self>, Error> {
        let id = InstanceId::random();
        let directory = Directory::make(parent, id).map_err(step("make a directory for the wasm host"))?;
        let listener = directory.listen().map_err(step("listen for the wasm host"))?;
        let mounts = [(program.to_owned(), PathBuf::from(PROGRAM)), (directory.path.clone(), PathBuf::from(SHARED))];
        let spec = CellSpec {
            id,
            mounts: mounts.map(|(source, target)| Mount { source, target }).to_vec(),
            memory_mib: memory_mib.saturating_add(OVERHEAD_MIB),
            milli_cpus: all_processors(),
            ephemeral_mib: 1,
            processes: PROCESSES,
            // Guests reach only what their function's configuration names; this is what the whole process could.
            network: Network::Internet,
        };
        let cell = sandbox.create(spec).await?;
        match Self::join(cell.clone(), directory, listener, memory_mib).await {
            Ok(host) => Ok(host),
            Err(error) => {
                cell.destroy().await;
                Err(error)
            }
        }
    }

    async fn join(
        cell: Arc<dyn Cell>,
        directory: Directory,
        listener: UnixListener,
        memory_mib: u32,
    ) -> Result<Arc<Self>, Error> {
        let shared = cell.inside_path(SHARED);
        let argv = vec![
            cell.inside_path(PROGRAM),
            HOST_ARGUMENT.to_owned(),
            format!("{shared}/{SOCKET}"),
            shared,
            memory_mib.to_string(),
        ];
        let process = ProcessSpec { argv, env: Vec::new(), cwd: "/".into(), log_pipe: false, order_pipe: false };
        let mut process = cell.spawn(process).await?;
        let id = cell.id();
        for output in [process.stdout, process.stderr] {
            let output = tokio::net::unix::pipe::Receiver::from_owned_fd(output);
            tokio::spawn(repeat(id, output.map_err(step("read the wasm host's output"))?));
        }
        let begin = async {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map_err(step("accept the wasm host"))?.0,
                _ended = &mut process.exit => return Err(Error::Ended),
            };
            let stream = Arc::new(stream);
            let mut receiver = Receiver::new(Arc::clone(&stream));
            match receiver.receive().await.map_err(step("hear from the wasm host"))? {
                Some(Frame { kind: Kind::Ready, .. }) => Ok((stream, receiver)),
                _ => Err(Error::Ended),
            }
        };
        let late = |_| step("start the wasm host")(io::ErrorKind::TimedOut.into());
        let (stream, receiver) = tokio::time::timeout(READY_WITHIN, begin).await.map_err(late)??;
        directory.close();
        Ok(Self::live(cell, process.pid, process.exit, directory, stream, receiver))
    }

    fn live(
        cell: Arc<dyn Cell>,
        pid: u32,
        exit: oneshot::Receiver<ExitStatus>,
        directory: Directory,
        stream: Arc<UnixStream>,
        mut receiver: Receiver,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared { id: cell.id(), sender: Sender::new(stream), calls: Mutex::default() });
        let (status, ended) = watch::channel(None);
        let (sender, receiving, inside) = (Arc::clone(&shared.sender), Arc::clone(&shared), Arc::downgrade(&cell));
        tokio::spawn(async move {
            let received = async {
                while let Some(frame) = receiver.receive().await? {
                    receiving.take(frame)?;
                }
                Ok::<(), io::Error>(())
            };
            let broken = tokio::select! {
                ended = received => ended,
                ended = sender.run() => ended,
            };
            receiving.end();
            if let Err(error) = broken {
                tracing::error!(host = %receiving.id, %error, "a wasm host does not keep to the protocol; it is ended");
            }
            if let Some(cell) = inside.upgrade() {
                let _ = cell.signal(pid, libc::SIGKILL).await;
            }
            // An error means that the whole cell is gone.
            let _ = status.send(Some(exit.await.unwrap_or(ExitStatus::Signal(libc::SIGKILL))));
        });
        Arc::new(Self { shared, cell, pid, directory, next: AtomicU32::new(1), ended })
    }

    /// Its id.
    pub fn id(&self) -> InstanceId {
        self.cell.id()
    }

    /// Kills its process, and leaves the rest to whoever finds it ended.
    pub async fn kill(&self) {
        let _ = self.cell.signal(self.pid, libc::SIGKILL).await;
    }

    /// Whether it takes no more calls.
    pub fn is_ended(&self) -> bool {
        self.shared.calls().ended
    }

    /// Calls under way.
    pub fn running(&self) -> usize {
        self.shared.calls().waiting.len()
    }

    /// How it ended; waits until it has.
    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await;
        status.ok().and_then(|status| *status).unwrap_or(ExitStatus::Signal(libc::SIGKILL))
    }

    /// What it has used.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.cell.usage().await
    }

    /// What its process maps now, for people who look.
    pub async fn mapped(&self) -> Result<Mapped, Error> {
        self.cell.mapped().await
    }

    /// Has it load a function; the number returned is for [`Request::slot`]. Waits until the process says that it has: one that was killed
    /// while nobody looked is found out here, before a call is lost with it. What cannot be loaded is told to the calls.
    pub async fn load(&self, function: Function) -> Result<u32, Error> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        let file = format!("{slot}.code");
        self.directory.link(&function.code, &file).map_err(step("hand code to the wasm host"))?;
        let Function { sha256, flavour, name, version, memory_mib, env, reuse, fuel, allow, code: _ } = function;
        let load = Load { file, sha256, flavour, name, version, memory_mib, env, reuse, fuel, allow };
        let body = serde_json::to_vec(&load).map_err(|error| step("say what to load")(error.into()))?;
        let (waiter, loaded) = oneshot::channel();
        {
            let mut calls = self.shared.calls();
            if calls.ended {
                return Err(Error::Ended);
            }
            calls.loading.insert(slot, waiter);
        }
        // Known from here on: whoever tries again at once must not get the same process once more.
        self.shared.sender.send(Kind::Load, slot, &body, b"").map_err(|_| {
            self.shared.close();
            Error::Ended
        })?;
        let late = |_| step("have a function loaded by the wasm host")(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(LOADED_WITHIN, loaded).await.map_err(late)?.map_err(|_| Error::Ended)?;
        Ok(slot)
    }

    /// Has it forget a function; calls under way are not touched.
    pub fn unload(&self, slot: u32) {
        let _ = self.shared.sender.send(Kind::Unload, slot, b"", b"");
        self.directory.unlink(&format!("{slot}.code"));
    }

    /// Has it run a call; hands the call back where the process has ended.
    pub fn call(&self, request: Request) -> Result<Answer, Box<Request>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let events = Arc::new(Events::default());
        let others = {
            let mut calls = self.shared.calls();
            if calls.ended {
                return Err(Box::new(request));
            }
            calls.waiting.insert(id, Arc::clone(&events));
            calls.waiting.len() - 1
        };
        let (sender, head) = (&self.shared.sender, request.head());
        // One that comes alone is not kept waiting for others.
        let sent = match others {
            0 => sender.send(Kind::Call, id, &head, &request.event),
            _ => sender.gather(Kind::Call, id, &head, &request.event),
        };
        if let Err(error) = sent {
            self.shared.calls().waiting.remove(&id);
            if error.kind() != io::ErrorKind::FileTooLarge {
                self.shared.close();
            }
            tracing::debug!(host = %self.shared.id, %error, "a wasm host takes no call");
            return Err(Box::new(request));
        }
        Ok(Answer { id, shared: Arc::clone(&self.shared), events })
    }

    /// Ends it, with everything in it.
    pub async fn stop(&self) {
        self.shared.end();
        self.cell.destroy().await;
    }
}

/// Repeats what a host process says in the node's own log: what it says is about itself, guests write elsewhere.
async fn repeat(id: InstanceId, output: tokio::net::unix::pipe::Receiver) {
    let mut lines = tokio::io::BufReader::with_capacity(LINE_BYTES, output);
    loop {
        let count = match lines.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => {
                tracing::warn!(host = %id, text = %String::from_utf8_lossy(bytes).trim_end(), "a wasm host says");
                bytes.len()
            }
        };
        lines.consume(count);
    }
}

/// The socket's name.
const SOCKET: &str = "s";

/// What a host process shares with the node, to read: its socket, and links to the code of its account's functions.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make(parent: &Path, id: InstanceId) -> io::Result<Self> {
        // Others on this machine get no further than here.
        match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent) {
            Ok(()) => std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o700))?,
            Err(error) => return Err(error),
        }
        let path = parent.join(id.to_string());
        std::fs::create_dir(&path)?;
        let made = Self { path };
        std::fs::set_permissions(&made.path, std::fs::Permissions::from_mode(0o755))?;
        Ok(made)
    }

    /// The socket, by way of the directory's descriptor: paths of sockets are short, and directories of data are not.
    fn listen(&self) -> io::Result<UnixListener> {
        let directory = std::fs::File::open(&self.path)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
        std::fs::set_permissions(self.path.join(SOCKET), std::fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// Nobody else is let in.
    fn close(&self) {
        self.unlink(SOCKET);
    }

    fn link(&self, code: &Path, name: &str) -> io::Result<()> {
        let target = self.path.join(name);
        match std::fs::hard_link(code, &target) {
            // Another file system, or one without links.
            Err(_) => std::fs::copy(code, &target).map(drop),
            Ok(()) => Ok(()),
        }
    }

    fn unlink(&self, name: &str) {
        let _ = std::fs::remove_file(self.path.join(name));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a wasm host's directory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_within_a_bound_and_end() {
        let (events, context) = (Events::default(), Context::from_waker(Waker::noop()));
        assert!(events.poll(&context).is_pending());
        for length in 0..=WINDOW {
            assert!(events.put(Event::Log(Bytes::from(vec![b'x'; length])), false));
        }
        assert!(
            !events.put(Event::Log(Bytes::new()), false),
            "nobody takes them: a host process may not go on like this"
        );
        for expected in 0..=WINDOW {
            let next = events.poll(&context);
            assert!(matches!(next, Poll::Ready(Some(Event::Log(bytes))) if bytes.len() == expected));
        }
        assert!(events.put(Event::Done(Box::default()), true));
        events.end();
        assert!(
            matches!(events.poll(&context), Poll::Ready(Some(Event::Done(_)))),
            "what came before the end is not lost"
        );
        assert!(matches!(events.poll(&context), Poll::Ready(None)));
    }
}

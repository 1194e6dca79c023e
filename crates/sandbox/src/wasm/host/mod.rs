//! The host program: runs the functions of one account.
//!
//! One task reads frames; each call is a task; what is sent goes out from wherever it arises. An instance is made for a call from a
//! pool whose address space was reserved at start, from machine code mapped from a file, with memory copied on write; it ends with the
//! call unless the function's configuration says that it may be used again. Time is limited from outside the guest: a clock thread
//! raises the epoch while calls run, each guest gives way at every tick, and the timer that then fires drops it where it stands.

mod call;
mod function;
mod http;
pub(super) mod linker;
mod outbound;
mod state;
mod ticker;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;
use tokio::sync::{OnceCell, Semaphore};

use super::CALLS;
use super::wire::{Done, Frame, Kind, Load, Loaded, Outcome, Receiver, Request, Sender};
use function::Function;
use linker::Runtimes;
use state::Budget;
use ticker::Ticker;

/// Log frames and pieces of one call that may be under way to the node.
pub(super) const WINDOW: usize = 16;
/// Calls that are run one after the other where they were read; of more that came together, each is a task.
const INLINE: usize = 16;
/// Answers of such calls that go out at once.
const TOGETHER: usize = 4;

/// What all calls share.
pub(super) struct Shared {
    sender: Arc<Sender>,
    /// Where the machine code is.
    directory: std::path::PathBuf,
    runtimes: Runtimes,
    ticker: Ticker,
    budget: Arc<Budget>,
    client: OnceCell<reqwest::Client>,
    calls: Semaphore,
    /// Instances that wait to be used again, of all functions.
    idle: Arc<AtomicUsize>,
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
    /// How much each call may still send before the node has taken something.
    windows: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A function that was to be loaded.
struct Slot {
    load: Load,
    function: OnceCell<Result<Arc<Function>, String>>,
}

impl Slot {
    async fn function(&self, shared: &Arc<Shared>) -> &Result<Arc<Function>, String> {
        self.function.get_or_init(async || Function::load(shared, &self.load).map(Arc::new)).await
    }

    /// Whether its calls take next to nothing.
    fn is_quick(&self) -> bool {
        self.function.get().is_some_and(|function| function.as_ref().is_ok_and(|function| function.is_quick()))
    }
}

/// Serves until the node is gone. Arguments: the socket, the directory of the machine code, the memory of all guests in MiB.
pub(super) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (Some(socket), Some(directory), Some(memory)) =
        (arguments.next(), arguments.next(), arguments.next().and_then(|text| text.parse().ok()))
    else {
        eprintln!("this program is started by a Lambent node; it does nothing by itself");
        return ExitCode::FAILURE;
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    // On a worker, where calls run too: handing each to another thread would cost more than many a call takes.
    let served = runtime.block_on(runtime.spawn(async move { serve(&socket, directory.into(), memory).await }));
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(error.as_ref()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("wasm host: {error}");
    ExitCode::FAILURE
}

async fn serve(
    socket: &str,
    directory: std::path::PathBuf,
    memory_mib: usize,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Before the node hears of it: what the first call needs is there.
    let ticker = Ticker::start()?;
    let runtimes = Runtimes::default();
    ticker.drives(runtimes.of(super::Flavour::Plain)?.engine());
    let stream = Arc::new(UnixStream::connect(socket).await?);
    let sender = Sender::new(Arc::clone(&stream));
    let sending = Arc::clone(&sender);
    tokio::spawn(async move { sending.run().await });
    let shared = Arc::new(Shared {
        sender,
        directory,
        runtimes,
        ticker,
        budget: Budget::of_mib(memory_mib),
        client: OnceCell::new(),
        calls: Semaphore::new(CALLS),
        idle: Arc::default(),
        slots: Mutex::default(),
        windows: Mutex::default(),
    });
    shared.sender.send(Kind::Ready, 0, b"", b"")?;
    let mut receiver = Receiver::new(stream);
    while let Some(frame) = receiver.receive().await? {
        let mut inline = INLINE;
        take(&shared, frame, &mut inline).await?;
        // Of calls that came together a few are answered together: the node has something to do while the others run.
        while let Some(frame) = receiver.received()? {
            take(&shared, frame, &mut inline).await?;
            if inline.is_multiple_of(TOGETHER) {
                shared.sender.flush()?;
            }
        }
        shared.sender.flush()?;
    }
    Ok(())
}

/// What the node wants.
async fn take(shared: &Arc<Shared>, frame: Frame, inline: &mut usize) -> std::io::Result<()> {
    let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    match frame.kind {
        Kind::Load => {
            let load: Load = serde_json::from_slice(&frame.body)?;
            let slot = Arc::new(Slot { load, function: OnceCell::new() });
            lock(&shared.slots).insert(frame.id, Arc::clone(&slot));
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let error = slot.function(&shared).await.as_ref().err().cloned();
                let body = serde_json::to_vec(&Loaded { error }).unwrap_or_default();
                let _ = shared.sender.send(Kind::Loaded, frame.id, &body, b"");
            });
        }
        Kind::Unload => drop(lock(&shared.slots).remove(&frame.id)),
        Kind::Call => {
            let call = Request::read(frame.body).ok_or_else(wrong)?;
            let slot = lock(&shared.slots).get(&call.slot).cloned();
            begin(shared, (frame.id, slot, call), inline).await;
        }
        Kind::Taken => {
            if let Some(window) = lock(&shared.windows).get(&frame.id) {
                window.add_permits(1);
            }
        }
        Kind::Ready | Kind::Loaded | Kind::Log | Kind::Piece | Kind::Done => return Err(wrong()),
    }
    Ok(())
}

/// Starts a call. One that will be over in no time, as its function's last ones were, is run where it was read: handing it to another
/// thread would take longer, and others are not kept waiting for more than a tick, when it gives way and goes to a task of its own.
async fn begin(shared: &Arc<Shared>, (id, slot, call): (u32, Option<Arc<Slot>>, Request), inline: &mut usize) {
    let is_quick = *inline > 0 && slot.as_ref().is_some_and(|slot| slot.is_quick());
    let mut work = Box::pin(run(Arc::clone(shared), id, slot, call));
    *inline = inline.saturating_sub(usize::from(is_quick));
    if is_quick && let std::task::Poll::Ready(done) = futures_util::poll!(&mut work) {
        return reply(done, |head, answer| shared.sender.send_later(Kind::Done, id, head, answer));
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move { reply(work.await, |head, answer| shared.sender.send(Kind::Done, id, head, answer)) });
}

async fn run(shared: Arc<Shared>, id: u32, slot: Option<Arc<Slot>>, call: Request) -> Done {
    let not_run = |message: &str| Done { message: message.to_owned(), ..Done::default() };
    match slot {
        None => not_run("the function is not loaded"),
        Some(slot) => match (slot.function(&shared).await, shared.calls.try_acquire()) {
            (Err(reason), _) => not_run(reason),
            (Ok(_), Err(_)) => Done { outcome: Outcome::Busy, ..Done::default() },
            (Ok(function), Ok(_permit)) => call::run(&shared, id, function, call).await,
        },
    }
}

/// Says how a call ended.
fn reply(mut done: Done, send: impl Fn(&[u8], &[u8]) -> std::io::Result<()>) {
    if send(&done.head(), &done.answer).is_err() {
        // Too long together with its log, whose rest is lost then; or nobody is there any more.
        done.log.clear();
        let _ = send(&done.head(), &done.answer);
    }
}

impl Shared {
    /// Drops every instance that waits to be used again, for those that are needed now.
    fn drop_idle(&self) {
        let slots: Vec<Arc<Slot>> = lock(&self.slots).values().cloned().collect();
        for slot in slots {
            if let Some(Ok(function)) = slot.function.get() {
                function.drop_idle();
            }
        }
    }

    /// Opens a call's window; it closes when the guard is dropped.
    fn window(self: &Arc<Self>, id: u32) -> Window {
        let permits = Arc::new(Semaphore::new(WINDOW));
        lock(&self.windows).insert(id, Arc::clone(&permits));
        Window { shared: Arc::clone(self), id, permits }
    }
}

/// What a call may send before it is over. Waits where the node is behind.
pub(super) struct Window {
    shared: Arc<Shared>,
    id: u32,
    permits: Arc<Semaphore>,
}

impl Window {
    /// Sends a frame if one may be sent now.
    fn try_send(&self, kind: Kind, bytes: &[u8]) -> bool {
        let Ok(permit) = self.permits.try_acquire() else { return false };
        permit.forget();
        self.shared.sender.send(kind, self.id, bytes, b"").is_ok()
    }

    /// Waits until one may be sent.
    async fn room(&self) {
        let _ = self.permits.acquire().await;
    }

    /// Sends one as soon as it may be sent.
    async fn send(&self, kind: Kind, bytes: &[u8]) {
        while !self.try_send(kind, bytes) {
            self.room().await;
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        lock(&self.shared.windows).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

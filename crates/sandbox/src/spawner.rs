//! One thread that starts every child of this node, and never ends.
//!
//! Linux sends a child its parent-death signal when the *thread* that started it ends, not the process. Runtime worker threads come
//! and go, so children started from them would die at odd times; this thread lives exactly as long as the node.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

/// Starts waiting for a turn; more callers than this wait for each other in `send`, which a running thread drains at once.
const QUEUE: usize = 64;

type Job = (Command, oneshot::Sender<io::Result<Unclaimed>>);

/// A child that nobody knows of yet. It must not live on where nobody comes to: whoever asked may have gone, also in the moment between its
/// being handed over and being taken.
struct Unclaimed(Option<Child>);

impl Unclaimed {
    fn claim(mut self) -> Option<Child> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

static SPAWNER: OnceLock<SyncSender<Job>> = OnceLock::new();

fn spawner() -> io::Result<&'static SyncSender<Job>> {
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, jobs) = sync_channel::<Job>(QUEUE);
    std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for (mut command, answer) in jobs {
            drop(answer.send(command.spawn().map(|child| Unclaimed(Some(child)))));
        }
    })?;
    // Two threads may race here; the loser's channel closes and its thread ends without having started anything.
    Ok(SPAWNER.get_or_init(|| sender))
}

/// Starts `command` from the thread that outlives everything else.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    let (answer, child) = oneshot::channel();
    let gone = || io::Error::other("the spawner thread is gone");
    spawner()?.send((command, answer)).map_err(|_| gone())?;
    child.await.map_err(|_| gone())??.claim().ok_or_else(gone)
}

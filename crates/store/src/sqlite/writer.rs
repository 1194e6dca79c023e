//! The thread that owns a database's only writing connection.

use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::Error;

/// Most requests that one transaction takes.
const GROUP: usize = 256;
/// Requests that may wait; whoever comes then waits for room.
const QUEUE: usize = 1024;

/// A handle to the thread. Dropping it lets the thread finish what is queued and waits for its end.
pub(super) struct Writer<R: Send + 'static> {
    queue: Option<mpsc::Sender<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Send + 'static> Writer<R> {
    /// Starts the thread; `run` gets each group of requests and answers every one of them.
    pub(super) fn start(
        name: &str,
        db: Connection,
        mut run: impl FnMut(&mut Connection, Vec<R>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (queue, mut requests) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut db = db;
                while let Some(first) = requests.blocking_recv() {
                    let mut group = vec![first];
                    while group.len() < GROUP {
                        match requests.try_recv() {
                            Ok(next) => group.push(next),
                            Err(_) => break,
                        }
                    }
                    run(&mut db, group);
                }
            })
            .map_err(|e| Error::backend("starting the writer", e))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Hands a request over; waits for room in the queue.
    pub(super) async fn send(&self, request: R) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(request).await.map_err(|_| stopped())
    }
}

pub(super) fn stopped() -> Error {
    Error::backend("writing", "the writer has stopped")
}

impl<R: Send + 'static> Drop for Writer<R> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a store's writer thread panicked");
        }
    }
}

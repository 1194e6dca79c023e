//! One task that writes all logs in batches.
//!
//! Pushing never waits and never fails, so that the data path does not hang on the disk. What bounds the queue is that everyone who
//! pushes more than a few lines first waits for [`LogWriter::room`]: function output before it is read from its pipe, platform lines before
//! the container takes its next call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambent_store::Logs;
use lambent_store::port::NewLogEvent;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// Queued bytes above which nobody gets room.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// Lines of one batch.
const BATCH: usize = 4_096;
/// How long a batch is collected: what a reader of the log lags behind at most, against one transaction for every line. Under load it
/// is also how much work comes to the writing thread at once, for which calls may have to wait their turn at a processor.
const LINGER: Duration = Duration::from_millis(5);
/// Counted for each line beside its text.
const LINE_OVERHEAD: usize = 128;

/// Where lines are pushed.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    lines: mpsc::UnboundedSender<NewLogEvent>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: AtomicUsize,
    shrunk: Notify,
}

fn weight(event: &NewLogEvent) -> usize {
    event.message.len() + LINE_OVERHEAD
}

impl LogWriter {
    /// One whose lines are lost.
    pub(crate) fn nowhere() -> Self {
        Self { lines: mpsc::unbounded_channel().0, queue: Arc::default() }
    }

    /// Queues a line.
    pub(crate) fn push(&self, event: NewLogEvent) {
        let bytes = weight(&event);
        self.queue.bytes.fetch_add(bytes, Ordering::AcqRel);
        if self.lines.send(event).is_err() {
            // The writer ends only after everyone else; a line pushed later has nowhere to go.
            self.queue.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    /// Waits until the queue is below its bound.
    pub(crate) async fn room(&self) {
        loop {
            let shrunk = self.queue.shrunk.notified();
            if self.queue.bytes.load(Ordering::Acquire) < QUEUE_BYTES {
                return;
            }
            shrunk.await;
        }
    }
}

/// Starts the task; it ends, everything written, when the last [`LogWriter`] is gone.
pub(crate) fn start(logs: Arc<dyn Logs>) -> (LogWriter, JoinHandle<()>) {
    let (lines, queued) = mpsc::unbounded_channel();
    let queue = Arc::new(Queue::default());
    let task = tokio::spawn(write(logs, queued, Arc::clone(&queue)));
    (LogWriter { lines, queue }, task)
}

async fn write(logs: Arc<dyn Logs>, mut queued: mpsc::UnboundedReceiver<NewLogEvent>, queue: Arc<Queue>) {
    let mut batch = Vec::new();
    while queued.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            tokio::time::sleep(LINGER).await;
            while batch.len() < BATCH
                && let Ok(event) = queued.try_recv()
            {
                batch.push(event);
            }
        }
        let bytes: usize = batch.iter().map(weight).sum();
        let lines = batch.len() as u64;
        if let Err(error) = logs.append(std::mem::take(&mut batch)).await {
            metrics::counter!("lambent_log_lines_lost_total").increment(lines);
            tracing::error!(lines, error = &error as &dyn std::error::Error, "log lines could not be written");
        }
        queue.bytes.fetch_sub(bytes, Ordering::AcqRel);
        queue.shrunk.notify_waiters();
    }
}

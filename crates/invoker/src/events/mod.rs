//! Asynchronous invocation: events are kept first and run afterwards.
//!
//! ```text
//! accept (here)   an event is committed, and only then acknowledged
//! dispatch.rs     the one task that leases events and has each run, or delivered
//! step.rs         what an event is next, given what came of it: retries, back-off, destinations, dead letters; pure
//! record.rs       what destinations are sent
//! lineage.rs      loops
//! deliver.rs      SQS, HTTP
//! look.rs         what people see of all that, and do about it
//! ```

mod deliver;
mod dispatch;
mod event;
mod lineage;
mod look;
mod record;
mod step;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::{Clock, FunctionArn, Qualifier, RequestId, limits};
use lambent_registry::State;
use lambent_store::EventQueue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Directory, Error, Invoker};
pub use deliver::{Aws, LocalUrls};
use dispatch::Parts;
pub use event::DEAD_LETTERS;
use event::{Call, Meta, Task};
pub use look::{Filter, NotRetried, Shown};
pub use step::Delays;

/// How events are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long events wait.
    pub delays: Delays,
    /// Events that are out at once.
    pub places: usize,
    /// Where queues are.
    pub aws: Aws,
    /// Whether HTTP destinations may be on this machine.
    pub local_urls: LocalUrls,
}

impl Default for Options {
    fn default() -> Self {
        Self { delays: Delays::default(), places: 256, aws: Aws::default(), local_urls: LocalUrls::default() }
    }
}

/// An event as it is sent.
#[derive(Debug)]
pub struct Sent {
    /// Which function.
    pub function: FunctionArn,
    /// Which version of it.
    pub qualifier: Option<Qualifier>,
    /// The id the caller is told.
    pub request_id: RequestId,
    /// The event.
    pub payload: Bytes,
    /// `X-Amz-Client-Context`, decoded to JSON text.
    pub client_context: Option<String>,
    /// `X-Amzn-Trace-Id` as the caller sent it.
    pub trace: Option<String>,
}

/// Takes events and sees to it that they run.
pub struct Events {
    queue: Arc<dyn EventQueue>,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Takes up what is in `queue` and runs it, as everything that comes, through `invoker`.
    pub fn start(
        queue: Arc<dyn EventQueue>,
        directory: Arc<dyn Directory>,
        invoker: Arc<Invoker>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Arc<Self>, StartError> {
        let courier = deliver::Courier::new(options.aws, options.local_urls).map_err(StartError)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let parts = Parts {
            queue: queue.clone(),
            invoker,
            directory: directory.clone(),
            courier,
            clock: clock.clone(),
            delays: options.delays,
            places: options.places,
        };
        tasks.spawn(dispatch::run(Arc::new(parts), stop.clone()));
        Ok(Arc::new(Self { queue, directory, clock, stop, tasks }))
    }

    /// Accepts an event; when this returns it is on disk.
    pub async fn accept(&self, sent: Sent) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        if sent.payload.len() > limits::ASYNC_REQUEST_BYTES {
            return Err(Error::TooLarge { limit: limits::ASYNC_REQUEST_BYTES });
        }
        let resolved = self.directory.resolve(&sent.function, sent.qualifier.as_ref())?;
        match resolved.state {
            State::Active => {}
            state @ (State::Pending | State::Failed) => return Err(Error::NotReady { state }),
        }
        let task = Task::Invoke(Call {
            function: sent.function,
            qualifier: sent.qualifier.map(|qualifier| qualifier.to_string()),
            trace: sent.trace,
            client_context: sent.client_context,
        });
        let now = self.clock.now();
        let event = Meta::new(sent.request_id, now, task).pending(sent.payload);
        let kept = self.queue.enqueue(vec![event], now).await;
        let outcome = if kept.is_ok() { "accepted" } else { "refused" };
        metrics::counter!("lambent_events_total", "outcome" => outcome).increment(1);
        kept.map(drop).map_err(Error::from)
    }

    /// Leases nothing more, and waits, at most `grace`, for what is out. What does not end is run again at the next start.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The HTTP client for deliveries could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the client for deliveries could not be made")]
pub struct StartError(#[source] reqwest::Error);

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
use jiff::{SignedDuration, Timestamp};
use lambent_fleet::AffinityValue;
use lambent_model::{Clock, FunctionArn, Qualifier, RequestId, limits};
use lambent_registry::State;
use lambent_store::EventQueue;
use lambent_store::queue::NewEvent;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::Holding;
use crate::deadlines::Deadlines;
use crate::invoke::check_tenant;
use crate::schedules::Schedules;
use crate::{Directory, Error, Invoker};
pub use deliver::{Aws, LocalUrls};
use dispatch::Parts;
pub use event::DEAD_LETTERS;
pub(crate) use event::{Call, Meta, Scheduled, Task, Tick};
pub use look::{Filter, NotRetried, Shown};
pub use step::Delays;

/// How often, and how much of, what is buried is looked through.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
const EXPIRE_AT_ONCE: usize = 1_000;

/// How events are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long events wait.
    pub delays: Delays,
    /// Events that are out at once.
    pub places: usize,
    /// When events wait that can.
    pub holding: Holding,
    /// Where queues are.
    pub aws: Aws,
    /// Whether HTTP destinations may be on this machine.
    pub local_urls: LocalUrls,
    /// How long what is buried is kept.
    pub buried: Retention,
}

/// What is kept of what is buried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For so long.
    pub age: Duration,
    /// So many in each of an account's queues.
    pub most: u64,
}

impl Default for Retention {
    /// Two weeks, the longest that SQS keeps a message; a hundred thousand.
    fn default() -> Self {
        Self { age: Duration::from_secs(14 * 24 * 3_600), most: 100_000 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delays: Delays::default(),
            places: 256,
            holding: Holding::default(),
            aws: Aws::default(),
            local_urls: LocalUrls::default(),
            buried: Retention::default(),
        }
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
    /// `X-Amz-Tenant-Id`.
    pub tenant: Option<String>,
    /// What it shares with the calls that belong to the same container; none: what is in the payload, where that is configured.
    pub affinity: Option<AffinityValue>,
    /// `X-Amzn-Trace-Id` as the caller sent it.
    pub trace: Option<String>,
    /// When it must have run, where the caller says so.
    pub deadline: Option<Timestamp>,
}

/// Takes events and sees to it that they run.
pub struct Events {
    queue: Arc<dyn EventQueue>,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    deadlines: Arc<Deadlines>,
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
        schedules: Arc<Schedules>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Arc<Self>, StartError> {
        let courier = deliver::Courier::new(options.aws, options.local_urls).map_err(StartError)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let deadlines = Arc::clone(invoker.deadlines());
        let parts = Parts {
            queue: queue.clone(),
            invoker,
            schedules,
            directory: directory.clone(),
            courier,
            clock: clock.clone(),
            delays: options.delays,
            places: options.places,
            holding: options.holding,
        };
        tasks.spawn(dispatch::run(Arc::new(parts), stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(expire(queue.clone(), clock.clone(), options.buried)));
        Ok(Arc::new(Self { queue, directory, clock, deadlines, stop, tasks }))
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
        check_tenant(&resolved, sent.tenant.as_deref())?;
        let now = self.clock.now();
        let latest_start = sent.deadline.map_or(now, |deadline| {
            let (now, deadline) = (now.as_microsecond(), deadline.as_microsecond());
            let latest = self.deadlines.latest_start(&sent.function, resolved.version.version, now, deadline);
            Timestamp::from_microsecond(latest).unwrap_or(Timestamp::MAX)
        });
        let task = Task::Invoke(Call {
            function: sent.function,
            qualifier: sent.qualifier.map(|qualifier| qualifier.to_string()),
            trace: sent.trace,
            client_context: sent.client_context,
            tenant: sent.tenant,
            affinity: sent.affinity,
            schedule: None,
        });
        let event = NewEvent { latest_start, ..Meta::new(sent.request_id, now, task).pending(sent.payload) };
        let kept = self.queue.enqueue(vec![event], now).await;
        let outcome = if kept.is_ok() { "accepted" } else { "refused" };
        metrics::counter!("lambent_events_total", "outcome" => outcome).increment(1);
        kept.map(drop).map_err(Error::from)
    }

    /// The trace of a synchronous call: where it is part of an event's chain it adds to that, and is refused in a loop.
    pub fn pass(&self, function: &FunctionArn, qualifier: Option<&Qualifier>, trace: String) -> Result<String, Error> {
        if !lineage::is_in(&trace) {
            return Ok(trace);
        }
        let (trace, visits) = lineage::enter(Some(&trace), function);
        let may_loop =
            || self.directory.event_settings(function, qualifier).is_ok_and(|settings| settings.allows_loops);
        if visits > limits::RECURSION && !may_loop() {
            metrics::counter!("lambent_recursive_events_total", "function" => function.name.to_string()).increment(1);
            return Err(Error::Recursive);
        }
        Ok(trace)
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

/// Forgets, now and then, what has been buried for too long.
async fn expire(queue: Arc<dyn EventQueue>, clock: Arc<dyn Clock>, buried: Retention) {
    let mut tick = tokio::time::interval(EXPIRE_EVERY);
    let age = SignedDuration::try_from(buried.age).unwrap_or(SignedDuration::MAX);
    loop {
        tick.tick().await;
        let before = clock.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        loop {
            match queue.expire(before, buried.most, EXPIRE_AT_ONCE).await {
                Ok(0) => break,
                Ok(count) => {
                    metrics::counter!("lambent_events_total", "outcome" => "expired").increment(count);
                    tracing::info!(count, "forgot what was buried for too long");
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "buried events cannot be forgotten");
                    break;
                }
            }
        }
    }
}

/// The HTTP client for deliveries could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the client for deliveries could not be made")]
pub struct StartError(#[source] reqwest::Error);

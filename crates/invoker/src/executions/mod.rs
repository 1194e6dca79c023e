//! Executions that need not run again: what they returned is kept, and given to the next request that is the same.
//!
//! ```text
//! off            straight to the fleet; this module is not asked
//! key            keyed.rs      the start is on disk before the run, the answer before it is given: a key has one success on record
//! dependencies   depending.rs  the states of all dependencies are taken before and after the run and kept with the answer; the next
//!                              request has them looked at, side by side, and gets that answer where none changed
//! report.rs      its code says while it runs what else it depends on
//! ```
//! What is bounded: records by the store, those in memory by bytes ([`Options::memory_bytes`]), a look at one dependency by
//! [`Options::look_within`], looks at once by [`Options::looks`]. A dependency that cannot be looked at means: run. Requests that are the
//! same and come at the same time share one run; who waited for it in vain, because it was refused, tries by itself.
//!
//! Whoever asked may go: the run goes on, is recorded, and the next one gets its answer.

mod ask;
mod depending;
mod digest;
mod flight;
mod hot;
mod inspect;
mod keyed;
mod look;
mod looks;
mod record;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_fleet::{Body, ErrorKind, Stages};
use lambent_model::idempotency::{Idempotency, Mode};
use lambent_model::{Clock, limits};
use lambent_registry::Resolved;
use lambent_store::Records;
use lambent_store::records::RecordId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::invoke::{Answer, Invocation};
use crate::{Directory, Error, Mode as AnswerMode};
use flight::Flights;
use hot::Hot;
use looks::Looks;
use record::{Kept, Meta};
use report::Reports;

pub use ask::{Ask, HEADER, KEY, MODE, Refused};
pub use inspect::{Inspect, Inspector, State, Unknown};
pub use look::{Described, Difference, Filter, Origin, Reason};
pub use report::{Error as ReportError, Reported};

/// How often what has expired is deleted.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// What a node is told about executions.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of answers that are kept in memory as well.
    pub memory_bytes: usize,
    /// A look at one dependency.
    pub look_within: Duration,
    /// Looks at once.
    pub looks: usize,
    /// Directories whose files may be dependencies.
    pub files: Vec<PathBuf>,
    /// `HOST` or `HOST:PORT` on this machine that may be dependencies all the same.
    pub hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            look_within: Duration::from_secs(2),
            looks: 64,
            files: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// The function ran.
    Ran {
        /// What was kept of it; none: nothing, as it failed.
        record: Option<RecordId>,
    },
    /// It did not: an earlier, or a concurrent, execution's answer was taken.
    Reused {
        /// What was kept of that one.
        record: Option<RecordId>,
        /// How long ago it ended.
        age: Duration,
    },
}

impl std::fmt::Display for Execution {
    /// The value of `X-Lambent-Execution`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, record, age) = match self {
            Self::Ran { record } => ("ran", record, None),
            Self::Reused { record, age } => ("reused", record, Some(age)),
        };
        f.write_str(word)?;
        if let Some(record) = record {
            write!(f, "; record={record}")?;
        }
        age.map_or(Ok(()), |age| write!(f, "; age={}", age.as_secs()))
    }
}

/// What runs a function whose version was chosen. The invoker; in tests something simpler.
#[async_trait]
pub trait Run: Send + Sync + 'static {
    /// Admits and runs.
    async fn run(&self, resolved: Resolved, invocation: Invocation) -> Result<Answer, Error>;
}

/// Executions and their records.
pub struct Executions {
    records: Arc<dyn Records>,
    directory: Arc<dyn Directory>,
    looks: Arc<Looks>,
    clock: Arc<dyn Clock>,
    hot: Hot,
    flights: Flights,
    reports: Reports,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What came of a run, shared by all who waited for it.
#[derive(Debug)]
struct Done {
    meta: Meta,
    answer: Bytes,
    finished: Timestamp,
    /// None: it is not on record.
    id: Option<RecordId>,
    log_tail: Option<Bytes>,
}

impl Executions {
    /// Keeps what executions return in `records`.
    pub fn start(
        records: Arc<dyn Records>,
        directory: Arc<dyn Directory>,
        inspector: Arc<dyn Inspect>,
        clock: Arc<dyn Clock>,
        memory_bytes: usize,
    ) -> Arc<Self> {
        let executions = Arc::new(Self {
            records,
            directory,
            looks: Arc::new(Looks::new(inspector, clock.clone())),
            clock,
            hot: Hot::new(memory_bytes),
            flights: Flights::default(),
            reports: Reports::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let (expiring, stop) = (executions.clone(), executions.stop.clone());
        executions.tasks.spawn(async move { stop.run_until_cancelled(expiring.expire()).await });
        executions
    }

    /// Waits until what ran is on record.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("executions were still running; those with a key will run again");
        }
    }

    /// The way of a request that is not simply run: its function, or the request itself, wants more.
    pub(crate) async fn invoke(
        self: &Arc<Self>,
        runner: Arc<dyn Run>,
        resolved: Resolved,
        invocation: Invocation,
    ) -> Result<Answer, Error> {
        let setting = resolved.idempotency.clone().unwrap_or_default();
        let ask = invocation.idempotency.clone().unwrap_or_default();
        let mode = match (ask.mode, &ask.key) {
            (Some(mode), _) => mode,
            (None, Some(_)) => Mode::Key,
            (None, None) => setting.mode,
        };
        match mode {
            Mode::Off => runner.run(resolved, invocation).await,
            Mode::Key => match keyed::key(&ask, &setting, &invocation.payload) {
                Some(key) => self.keyed(runner, Request { resolved, invocation, setting }, key).await,
                None if ask.mode == Some(Mode::Key) => Err(Error::NoIdempotencyKey),
                // Not every event of a function has one.
                None => runner.run(resolved, invocation).await,
            },
            Mode::Dependencies => self.depending(runner, Request { resolved, invocation, setting }).await,
        }
    }

    async fn expire(&self) {
        let mut tick = tokio::time::interval(EXPIRE_EVERY);
        loop {
            tick.tick().await;
            match self.records.expire(self.clock.now()).await {
                Ok(0) => {}
                Ok(records) => {
                    tracing::debug!(records, "deleted expired execution records");
                    // As many as one request deletes; there may be more.
                    tick.reset_immediately();
                }
                Err(error) => tracing::warn!(%error, "cannot delete expired execution records"),
            }
            if let Ok(usage) = self.records.usage().await {
                metrics::gauge!("lambent_executions_records").set(usage.records as f64);
                metrics::gauge!("lambent_executions_record_bytes").set(usage.bytes as f64);
            }
        }
    }

    /// The answer to `invocation` of a run that was its own.
    fn ran(&self, done: &Done, invocation: &Asked) -> Answer {
        count(done.meta.mode, "ran");
        Answer {
            request_id: invocation.request_id,
            log_tail: done.log_tail.clone(),
            execution: Some(Execution::Ran { record: done.id }),
            ..answer(&done.meta, &done.answer, invocation)
        }
    }

    /// The answer to `invocation` of another's run.
    fn reused(&self, done: &Done, invocation: &Asked) -> Answer {
        count(done.meta.mode, "reused");
        let execution = Some(Execution::Reused { record: done.id, age: self.age(done.finished) });
        Answer { execution, ..answer(&done.meta, &done.answer, invocation) }
    }

    /// The same, of a record. Its dependencies are not copied for that.
    fn reused_from(&self, kept: &Kept, invocation: &Asked) -> Answer {
        count(kept.meta.mode, "reused");
        let execution = Some(Execution::Reused { record: Some(kept.id), age: self.age(kept.finished) });
        Answer { execution, ..answer(&kept.meta, &kept.answer, invocation) }
    }

    fn age(&self, finished: Timestamp) -> Duration {
        Duration::try_from(self.clock.now().duration_since(finished)).unwrap_or_default()
    }

    /// The end of a window that begins now.
    fn until(&self, now: Timestamp, setting: &Idempotency) -> Timestamp {
        now.checked_add(SignedDuration::from_secs(setting.window_secs.into())).unwrap_or(Timestamp::MAX)
    }
}

impl std::fmt::Debug for Executions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executions").field("hot", &self.hot).finish_non_exhaustive()
    }
}

/// A request whose version was chosen, with all that decides about it.
struct Request {
    resolved: Resolved,
    invocation: Invocation,
    setting: Arc<Idempotency>,
}

impl Request {
    /// What of it the answer depends on, where the setting names no parts of the payload.
    fn whole_input(&self) -> &Bytes {
        let own = self.invocation.idempotency.as_ref().and_then(|ask| ask.input.as_ref());
        own.unwrap_or(&self.invocation.payload)
    }

    fn asked(&self) -> Asked {
        Asked { request_id: self.invocation.request_id, received_at: self.invocation.received_at }
    }
}

/// As much of an invocation as its answer repeats.
#[derive(Clone, Copy)]
struct Asked {
    request_id: lambent_model::RequestId,
    received_at: std::time::Instant,
}

fn answer(meta: &Meta, answer: &Bytes, asked: &Asked) -> Answer {
    Answer {
        executed_version: meta.version,
        request_id: asked.request_id,
        error: meta.is_error.then_some(ErrorKind::Unhandled),
        content_type: meta.content_type.clone(),
        body: Body::Buffered(answer.clone()),
        stages: Stages::since(asked.received_at),
        log_tail: None,
        finished: None,
        execution: None,
        affinity: None,
    }
}

fn count(mode: Mode, outcome: &'static str) {
    metrics::counter!("lambent_executions_total", "mode" => mode.as_str(), "outcome" => outcome).increment(1);
}

/// An answer as it can be kept: whole.
async fn whole(answer: Answer) -> Result<(Answer, Bytes), Error> {
    let Answer { body, .. } = answer;
    let bytes = match body {
        Body::Buffered(bytes) => bytes,
        Body::Stream(mut pieces) => {
            let mut whole = Vec::new();
            while let Some(piece) = pieces.recv().await {
                match piece {
                    Ok(piece) if whole.len() + piece.len() <= limits::SYNC_RESPONSE_BYTES => {
                        whole.extend_from_slice(&piece);
                    }
                    Ok(_) => return Err(Error::AnswerTooLarge { limit: limits::SYNC_RESPONSE_BYTES }),
                    Err(_) => return Err(Error::Service(lambent_fleet::Error::Lost)),
                }
            }
            whole.into()
        }
    };
    Ok((Answer { body: Body::Buffered(Bytes::new()), ..answer }, bytes))
}

/// The same invocation, to be answered whole.
fn buffered(invocation: Invocation) -> Invocation {
    let mode = match invocation.mode {
        AnswerMode::Streaming { log_tail } => AnswerMode::Buffered { log_tail },
        whole @ AnswerMode::Buffered { .. } => whole,
    };
    Invocation { mode, idempotency: None, ..invocation }
}

impl From<Kept> for Done {
    fn from(kept: Kept) -> Self {
        Self { meta: kept.meta, answer: kept.answer, finished: kept.finished, id: Some(kept.id), log_tail: None }
    }
}

//! Calls that the code of a function starts and waits for later: the domain behind the local API.
//!
//! ```text
//! start ──► waits for its turn ──► runs ──► done ──► taken
//!                  │                          └────► dropped: let go of, or the caller's invocation ended
//!                  └──► refused: its deadline, or the end of the caller's invocation, came first
//! ```
//! `desk.rs` is the one place where calls are held back: there it is decided in which order they start, by when their results are needed
//! ([`crate::deadlines`]). When that was is learned from when they are asked for (`claim.rs`).
//!
//! They belong to the invocation that started them and live in its [`Seat`], in memory. While that invocation waits here it has given its
//! place in the concurrency of its function and account back; it takes it again without asking, so that a place which is full of callers
//! can never keep what they wait for from answering them.
//!
//! What bounds it: [`MOST_CALLS`] and [`MOST_BYTES`] of an invocation (payloads of what runs, and answers that were not fetched),
//! [`MOST_BYTES_HERE`] of the node, [`MOST_IN_LINE`] calls that wait or run. A call waits at most until the caller's own time-out.

mod claim;
mod desk;
mod seat;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_fleet::{AffinityValue, Body, ErrorKind, LogTail};
use lambent_model::{Clock, FunctionArn, FunctionVersion, Qualifier, RequestId, Version};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deadlines::learned::{Plan, Site, Wanted as Planned};
use crate::executions::Ask;
use crate::{Invocation, Invoker, Mode};
use claim::{Claim, State};
pub(crate) use desk::Share;
use desk::{Arrival, Desk, Spot};
pub use desk::{Holding, MOST_IN_LINE, Turn};
pub use seat::Seat;

/// Calls of one invocation whose answers were not fetched.
pub const MOST_CALLS: usize = 1_000;
/// Bytes of them.
pub const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of all of them on this node.
pub const MOST_BYTES_HERE: usize = 1024 * 1024 * 1024;

/// Why something was refused, or a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such call: never, or no more.
    #[error("There is no call {0}. An answer is given once, and to the invocation that started the call.")]
    NotFound(String),
    /// The invocation has started too many.
    #[error("{MOST_CALLS} calls of this invocation run or were not fetched, which is the most there may be")]
    TooMany,
    /// The same, in bytes.
    #[error("With {bytes} more bytes this invocation's calls would hold more than {limit}; fetch answers first")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// The bound, of the invocation or of the node.
        limit: usize,
    },
    /// The invocation that asks has ended.
    #[error("The invocation that started this call has ended")]
    Over,
    /// It found no place in time.
    #[error("The call found no place until its deadline and was not started")]
    Late,
    /// It was refused.
    #[error(transparent)]
    Invoke(#[from] crate::Error),
}

/// A call, as it is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Which function.
    pub function: FunctionArn,
    /// Which version of it.
    pub qualifier: Option<Qualifier>,
    /// The event.
    pub payload: Bytes,
    /// The caller's trace.
    pub trace: Option<String>,
    /// What it shares with calls that belong to the same container.
    pub affinity: Option<AffinityValue>,
    /// What it says of itself.
    pub idempotency: Option<Ask>,
    /// When its result is needed, where the caller says so. It is not started later.
    pub deadline: Option<Timestamp>,
    /// When the caller's invocation times out.
    pub until: Timestamp,
    /// The function that calls.
    pub caller: Arc<FunctionVersion>,
    /// Where in its code; empty where it does not say.
    pub site: String,
}

/// What a function answered.
#[derive(Debug)]
pub struct Outcome {
    /// Which version did.
    pub executed_version: Version,
    /// Whether it failed; the body then is the error document.
    pub error: Option<ErrorKind>,
    /// The answer.
    pub body: Bytes,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One of them.
    Any,
    /// All of them.
    All,
}

/// Bytes that calls hold on this node.
#[derive(Debug, Default)]
pub(crate) struct Books(AtomicUsize);

/// Some of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    books: Arc<Books>,
    bytes: usize,
}

impl Books {
    fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, Error> {
        let grow = |held: usize| held.checked_add(bytes).filter(|held| *held <= MOST_BYTES_HERE);
        let grown = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow);
        grown.map_err(|_| Error::TooLarge { bytes, limit: MOST_BYTES_HERE })?;
        Ok(Held { books: Arc::clone(self), bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.books.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Starts calls and waits for them.
#[derive(Clone)]
pub struct Calls {
    invoker: Arc<Invoker>,
    clock: Arc<dyn Clock>,
    desk: Arc<Desk>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A call on its way.
struct Running {
    id: RequestId,
    start: Start,
    plan: Plan,
    arrival: Arrival,
    spot: Spot,
}

impl Calls {
    /// In front of `invoker`. Calls that can wait do so when `holding` says.
    pub fn start_with(invoker: Arc<Invoker>, clock: Arc<dyn Clock>, holding: Holding) -> Self {
        let desk = Desk::new(Arc::clone(&invoker), Arc::clone(&clock), holding);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&desk).attend()));
        Self { invoker, clock, desk, stop, tasks }
    }

    /// Calls up nobody any more.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts a call of the invocation that sits here; its id is also the request id that the function sees.
    pub fn start(&self, seat: &Arc<Seat>, start: Start) -> Result<RequestId, Error> {
        let (version, is_kept) = self.invoker.callee(&start.function, start.qualifier.as_ref())?;
        let id = RequestId::random();
        seat.begin(id, start.payload.len())?;
        let site = Site { version: start.caller.version, site: start.site.clone(), callee: start.function.clone() };
        let plan = self.invoker.deadlines().plan(Planned {
            caller: &start.caller.arn,
            site: &site,
            callee_version: version,
            now: self.clock.now().as_microsecond(),
            deadline: start.deadline.map(Timestamp::as_microsecond),
        });
        let may_be_on_record = is_kept || start.idempotency.is_some();
        let arrival = Arrival { function: start.function.clone(), latest: plan.latest, may_be_on_record };
        let (spot, turn) = match self.desk.join(arrival.clone()) {
            Ok(joined) => joined,
            Err(full) => {
                // It was never one of this invocation's.
                let _ = seat.forget(id);
                return Err(full.into());
            }
        };
        seat.claim(
            id,
            Claim {
                desk: Arc::clone(&self.desk),
                deadlines: Arc::clone(self.invoker.deadlines()),
                spot: spot.id,
                caller: Arc::clone(&start.caller),
                site: Arc::new(site),
                since: Instant::now(),
                state: State::Open,
            },
        );
        let (calls, seat) = (self.clone(), Arc::downgrade(seat));
        let running = Running { id, start, plan, arrival, spot };
        tokio::spawn(async move {
            let outcome = calls.run(&seat, running, turn).await;
            if let Some(seat) = seat.upgrade() {
                seat.done(id, outcome);
            }
        });
        Ok(id)
    }

    /// Waits until one or all of these calls are done, or for so long; gives those that are. The invocation's place is given back
    /// meanwhile.
    pub async fn wait(
        &self,
        seat: &Arc<Seat>,
        ids: &[RequestId],
        wanted: Wanted,
        within: Option<Duration>,
    ) -> Result<Vec<RequestId>, Error> {
        let until = within.map(|within| tokio::time::Instant::now() + within);
        let mut away = None;
        loop {
            let changed = seat.changed();
            let done = seat.which_are_done(ids)?;
            let enough = match wanted {
                Wanted::Any => !done.is_empty() || ids.is_empty(),
                Wanted::All => done.len() == ids.len(),
            };
            // Whoever has what it wants does not wait for the others.
            let urgent = seat.ask(if enough { &done } else { ids });
            if enough {
                return Ok(done);
            }
            self.desk.hasten(&urgent);
            away.get_or_insert_with(|| Seat::leave(seat));
            match until {
                None => changed.await,
                Some(until) => {
                    if tokio::time::timeout_at(until, changed).await.is_err() {
                        return seat.which_are_done(ids);
                    }
                }
            }
        }
    }

    /// Waits for a call's answer and hands it out, once. None: it did not come within that time.
    pub async fn take(
        &self,
        seat: &Arc<Seat>,
        id: RequestId,
        within: Option<Duration>,
    ) -> Result<Option<Outcome>, Error> {
        match self.wait(seat, &[id], Wanted::All, within).await?.is_empty() {
            true => Ok(None),
            false => seat.take(id).map(Some),
        }
    }

    /// Lets go of a call: what runs, runs on, and its answer is dropped. What waits for a place is not started.
    pub fn forget(&self, seat: &Seat, id: RequestId) -> Result<(), Error> {
        seat.forget(id)
    }

    async fn run(&self, seat: &Weak<Seat>, running: Running, turn: oneshot::Receiver<Turn>) -> Result<Outcome, Error> {
        let deadline = running.plan.deadline;
        let outcome = self.run_in_turn(seat, running, turn).await;
        let word = match &outcome {
            Ok(Outcome { error: None, .. }) => "answered",
            Ok(Outcome { error: Some(_), .. }) => "failed",
            Err(_) => "refused",
        };
        metrics::counter!("lambent_calls_total", "outcome" => word).increment(1);
        if let (Some(deadline), Ok(_)) = (deadline, &outcome) {
            let word = if self.clock.now().as_microsecond() <= deadline { "met" } else { "missed" };
            metrics::counter!("lambent_call_deadlines_total", "outcome" => word).increment(1);
        }
        outcome
    }

    async fn run_in_turn(
        &self,
        seat: &Weak<Seat>,
        running: Running,
        mut turn: oneshot::Receiver<Turn>,
    ) -> Result<Outcome, Error> {
        let Running { id, start, arrival, spot, .. } = running;
        let received_at = Instant::now();
        let until = start.deadline.map_or(start.until, |deadline| deadline.min(start.until));
        loop {
            let left = Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default();
            let turned = tokio::time::timeout(left, turn).await.map_err(|_| Error::Late)?;
            // Nobody wants it any more.
            let turned = turned.map_err(|_| Error::Over)?;
            if !seat.upgrade().is_some_and(|seat| seat.wants(id)) {
                return Err(Error::Over);
            }
            match self.invoker.invoke(invocation(&start, id, received_at, turned)).await {
                // Somebody else was faster, or the node is full.
                Err(crate::Error::Throttled { .. }) if !self.invoker.is_off(&start.function) => {
                    turn = self.desk.join_again(&spot, arrival.clone());
                }
                answered => return outcome(answered?),
            }
        }
    }
}

fn invocation(start: &Start, id: RequestId, received_at: Instant, turn: Turn) -> Invocation {
    Invocation {
        function: start.function.clone(),
        qualifier: start.qualifier.clone(),
        request_id: id,
        payload: start.payload.clone(),
        client_context: None,
        cognito_identity: None,
        trace: start.trace.clone(),
        tenant: None,
        affinity: start.affinity,
        mode: Mode::Buffered { log_tail: LogTail::None },
        received_at,
        idempotency: start.idempotency.clone(),
        turn: Some(turn),
    }
}

fn outcome(answer: crate::Answer) -> Result<Outcome, Error> {
    match answer.body {
        Body::Buffered(body) => Ok(Outcome { executed_version: answer.executed_version, error: answer.error, body }),
        // Was not asked for.
        Body::Stream(_) => Err(crate::Error::Lost.into()),
    }
}

impl Error {
    /// Its name, and the HTTP status.
    pub fn code(&self) -> (&'static str, u16) {
        match self {
            Self::NotFound(_) => ("CallNotFoundException", 404),
            Self::TooMany | Self::TooLarge { .. } => ("TooManyCallsException", 429),
            Self::Over => ("CallerEndedException", 410),
            Self::Late => ("CallDeadlineExceededException", 408),
            Self::Invoke(error) => (error.code(), error.status()),
        }
    }
}

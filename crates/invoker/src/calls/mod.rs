//! Calls that the code of a function starts and waits for later: the domain behind the local API.
//!
//! ```text
//! start ──► waits for a place ──► runs ──► done ──► taken
//!                  │                          └────► dropped: let go of, or the caller's invocation ended
//!                  └──► refused: its deadline, or the end of the caller's invocation, came first
//! ```
//!
//! They belong to the invocation that started them and live in its [`Seat`], in memory. While that invocation waits here it has given its
//! place in the concurrency of its function and account back; it takes it again without asking, so that a place which is full of callers
//! can never keep what they wait for from answering them. Where its code is [`Blocked`] its container may be frozen meanwhile; it runs again before
//! it is answered.
//!
//! What bounds it: [`MOST_CALLS`] and [`MOST_BYTES`] of an invocation (payloads of what runs, and answers that were not fetched),
//! [`MOST_BYTES_HERE`] of the node. A call that finds no place waits, at most until the caller's own deadline.

mod seat;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_fleet::{AffinityValue, Body, ErrorKind, LogTail};
use lambent_model::{Clock, FunctionArn, Qualifier, RequestId, Version};

use crate::executions::Ask;
use crate::{Invocation, Invoker, Mode};
pub use seat::Seat;

/// Calls of one invocation whose answers were not fetched.
pub const MOST_CALLS: usize = 1_000;
/// Bytes of them.
pub const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of all of them on this node.
pub const MOST_BYTES_HERE: usize = 1024 * 1024 * 1024;
/// How often a call that waits for a place looks for it unasked: that a full node has room is told by nobody.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// A call that has no place by then is not started. The end of the caller's invocation at the latest.
    pub deadline: Timestamp,
    /// Where in the caller's code it was started.
    pub site: Option<String>,
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

/// Whether nothing else goes on in the container of whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// Nothing does: it may be frozen.
    Yes,
    /// Something may.
    No,
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
}

impl Calls {
    /// In front of `invoker`.
    pub fn new(invoker: Arc<Invoker>, clock: Arc<dyn Clock>) -> Self {
        Self { invoker, clock }
    }

    /// Starts a call of the invocation that sits here; its id is also the request id that the function sees.
    pub fn start(&self, seat: &Arc<Seat>, start: Start) -> Result<RequestId, Error> {
        let id = RequestId::random();
        seat.pause().go_on();
        seat.begin(id, start.payload.len())?;
        let (calls, seat) = (self.clone(), Arc::downgrade(seat));
        tokio::spawn(async move {
            let outcome = calls.run(&seat, id, start).await;
            let word = match &outcome {
                Ok(Outcome { error: None, .. }) => "answered",
                Ok(Outcome { error: Some(_), .. }) => "failed",
                Err(_) => "refused",
            };
            metrics::counter!("lambent_calls_total", "outcome" => word).increment(1);
            if let Some(seat) = seat.upgrade() {
                seat.done(id, outcome);
            }
        });
        Ok(id)
    }

    /// Waits until one or all of these calls are done, or for so long; gives those that are. The invocation's place is given back
    /// meanwhile. Where it is blocked its container may be frozen; when this returns it runs.
    pub async fn wait(
        &self,
        seat: &Arc<Seat>,
        ids: &[RequestId],
        wanted: Wanted,
        within: Option<Duration>,
        blocked: Blocked,
    ) -> Result<Vec<RequestId>, Error> {
        let mut away = None;
        let leave = || {
            away.get_or_insert_with(|| Seat::leave(seat, blocked));
        };
        let done = Self::until_done(seat, ids, wanted, within, leave).await;
        match away {
            Some(away) => away.back().await,
            // Who asks does something.
            None => seat.pause().go_on(),
        }
        done
    }

    /// `leave` is told when it has to be waited for.
    async fn until_done(
        seat: &Seat,
        ids: &[RequestId],
        wanted: Wanted,
        within: Option<Duration>,
        mut leave: impl FnMut(),
    ) -> Result<Vec<RequestId>, Error> {
        let until = within.map(|within| tokio::time::Instant::now() + within);
        loop {
            let changed = seat.changed();
            let done = seat.which_are_done(ids)?;
            let enough = match wanted {
                Wanted::Any => !done.is_empty() || ids.is_empty(),
                Wanted::All => done.len() == ids.len(),
            };
            if enough {
                return Ok(done);
            }
            leave();
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
        blocked: Blocked,
    ) -> Result<Option<Outcome>, Error> {
        match self.wait(seat, &[id], Wanted::All, within, blocked).await?.is_empty() {
            true => Ok(None),
            false => seat.take(id).map(Some),
        }
    }

    /// Lets go of a call: what runs, runs on, and its answer is dropped. What waits for a place is not started.
    pub fn forget(&self, seat: &Seat, id: RequestId) -> Result<(), Error> {
        seat.forget(id)
    }

    /// The one place where calls are held back: whoever decides in which order they start does it here.
    async fn run(&self, seat: &Weak<Seat>, id: RequestId, start: Start) -> Result<Outcome, Error> {
        let received_at = Instant::now();
        loop {
            let left = self.invoker.place_left();
            if !seat.upgrade().is_some_and(|seat| seat.wants(id)) {
                return Err(Error::Over);
            }
            let invocation = invocation(&start, id, received_at);
            if self.invoker.has_room(&invocation)? {
                match self.invoker.invoke(invocation).await {
                    // Somebody else was faster, or the node is full.
                    Err(crate::Error::Throttled { .. }) => {}
                    answered => return outcome(answered?),
                }
            }
            let wait = start.deadline.duration_since(self.clock.now());
            let Ok(wait) = Duration::try_from(wait) else { return Err(Error::Late) };
            if wait.is_zero() {
                return Err(Error::Late);
            }
            let _ = tokio::time::timeout(wait.min(LOOK_EVERY), left).await;
        }
    }
}

fn invocation(start: &Start, id: RequestId, received_at: Instant) -> Invocation {
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

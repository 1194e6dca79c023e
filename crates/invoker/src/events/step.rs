//! One event's next state: what it is and what came of it in, where it goes out. Pure.
//!
//! ```text
//! run ──▶ answer                    ──▶ done, and its record to OnSuccess
//!     ──▶ the function's error      ──▶ again after 1, then 2 minutes (base × how often it failed); after the last retry given up
//!     ──▶ throttled, or our failure ──▶ again after 1 s, doubling to 5 min; given up at the end of its age
//!     ──▶ turned off (reserved concurrency 0), a loop ──▶ given up at once
//!     ──▶ the function is gone      ──▶ buried
//!     ──▶ the node is stopping      ──▶ again, as if nothing had been
//! given up: its record to OnFailure, itself to the dead-letter target (both where both are set), buried in `dead-letters` where
//!           neither is
//! deliver ─▶ done, or again as above, or (refused for good, or too old) buried in `dead-letters`
//! ```

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_model::destination::Destination;
use lambent_model::{RequestId, limits};
use lambent_registry::EventSettings;
use lambent_store::queue::{NewEvent, Settlement};

use super::event::{Call, DEAD_LETTERS, Meta, Parcel, Task};
use super::record::{self, Condition, Response};

/// How long events wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Before the first retry of an event that the function failed; before the second twice as long. AWS's: one minute.
    pub retry: Duration,
    /// Before the first retry of what was throttled, or failed by our fault; doubles each time. AWS's: one second.
    pub backoff: Duration,
    /// The longest of those. AWS's: five minutes.
    pub backoff_most: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { retry: Duration::from_secs(60), backoff: Duration::from_secs(1), backoff_most: Duration::from_secs(300) }
    }
}

/// What came of an attempt to run a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It ran.
    Answered(Response),
    /// It did not, for a reason that may pass.
    Later { status: u16, reason: String },
    /// It did not, and will not.
    Never { status: u16, reason: String },
    /// There is no such function any more.
    Gone { reason: String },
    /// The node is stopping.
    Stopping,
    /// It was too old to be run.
    TooOld,
}

/// What became of an event, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Retried,
    PutOff,
    GivenUp,
    Buried,
    Delivered,
    Ticked,
}

impl End {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Retried => "retried",
            Self::PutOff => "put_off",
            Self::GivenUp => "given_up",
            Self::Buried => "buried",
            Self::Delivered => "delivered",
            Self::Ticked => "ticked",
        }
    }
}

/// What a step is decided on, beside the event.
pub(crate) struct Now<'a> {
    pub(crate) delays: Delays,
    pub(crate) at: Timestamp,
    /// Ids for events that follow.
    pub(crate) fresh: &'a mut dyn FnMut() -> RequestId,
}

/// When an event is too old to be run.
pub(crate) fn expiry(meta: &Meta, age: Duration) -> Timestamp {
    later(meta.since, age)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Exponential, from `backoff` to `backoff_most`.
fn backoff(delays: Delays, setbacks: u32) -> Duration {
    let doublings = 1_u32.checked_shl(setbacks).unwrap_or(u32::MAX);
    delays.backoff.saturating_mul(doublings).min(delays.backoff_most)
}

/// The next state of an event that was to run a function. `settings` are none where the function is gone.
pub(crate) fn invoked(
    mut meta: Meta,
    payload: &Bytes,
    outcome: Outcome,
    settings: Option<&EventSettings>,
    mut now: Now<'_>,
) -> (Settlement, End) {
    let Task::Invoke(call) = meta.task.clone() else { return bury(meta, "It is no call of a function.".to_owned()) };
    let Some(settings) = settings else {
        let reason = format!("The function {} does not exist any more.", call.function);
        return gone(meta, &call, payload, reason, now);
    };
    match outcome {
        Outcome::Answered(response) if response.error.is_none() => {
            let runs = meta.failures + 1;
            let record =
                |at| record::invocation(&meta, &call, payload, (Condition::Success, runs), Some(&response), at);
            let to = settings.on_success.as_deref();
            let then = to.map(|to| follow(&meta, &call, to, record(now.at), Vec::new(), "Success", &mut now));
            (Settlement::Done { then: then.into_iter().collect() }, End::Succeeded)
        }
        Outcome::Answered(response) => {
            meta.failures += 1;
            meta.setbacks = 0;
            let delay = now.delays.retry.saturating_mul(meta.failures);
            let due = later(now.at, delay);
            let status = 200;
            let message = record::error_message(&response);
            if meta.failures > settings.retries {
                give_up(
                    meta,
                    &call,
                    payload,
                    Condition::RetriesExhausted,
                    Some(&response),
                    (status, message),
                    settings,
                    now,
                )
            } else if due > expiry(&meta, settings.maximum_age) {
                give_up(
                    meta,
                    &call,
                    payload,
                    Condition::EventAgeExceeded,
                    Some(&response),
                    (status, message),
                    settings,
                    now,
                )
            } else {
                (Settlement::Retry { due, meta: meta.written() }, End::Retried)
            }
        }
        Outcome::Later { status, reason } => {
            let due = later(now.at, backoff(now.delays, meta.setbacks));
            meta.setbacks += 1;
            if due > expiry(&meta, settings.maximum_age) {
                return give_up(
                    meta,
                    &call,
                    payload,
                    Condition::EventAgeExceeded,
                    None,
                    (status, reason),
                    settings,
                    now,
                );
            }
            (Settlement::Retry { due, meta: meta.written() }, End::PutOff)
        }
        Outcome::Never { status, reason } => {
            give_up(meta, &call, payload, Condition::RetriesExhausted, None, (status, reason), settings, now)
        }
        Outcome::Gone { reason } => gone(meta, &call, payload, reason, now),
        Outcome::Stopping => (Settlement::Retry { due: now.at, meta: meta.written() }, End::PutOff),
        Outcome::TooOld => {
            let reason = "The event was not run within its maximum age.".to_owned();
            give_up(meta, &call, payload, Condition::EventAgeExceeded, None, (500, reason), settings, now)
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "all of them make the record, and only here")]
fn give_up(
    meta: Meta,
    call: &Call,
    payload: &Bytes,
    condition: Condition,
    response: Option<&Response>,
    (status, message): (u16, String),
    settings: &EventSettings,
    mut now: Now<'_>,
) -> (Settlement, End) {
    let mut then = Vec::new();
    let reason = format!("{condition:?}: {message}");
    if let Some(to) = &settings.on_failure {
        let record = record::invocation(&meta, call, payload, (condition, meta.failures), response, now.at);
        then.push(follow(&meta, call, to, record, Vec::new(), &reason, &mut now));
    }
    if let Some(to) = &settings.dead_letter {
        let attributes = record::dead_letter_attributes(&meta, status, &message);
        then.push(follow(&meta, call, to, payload.clone(), attributes, &reason, &mut now));
    }
    if then.is_empty() { bury(meta, reason) } else { (Settlement::Done { then }, End::GivenUp) }
}

/// There is no function, and so nothing that is configured for it; a schedule may have a dead-letter queue of its own.
fn gone(meta: Meta, call: &Call, payload: &Bytes, reason: String, mut now: Now<'_>) -> (Settlement, End) {
    let to = call.schedule.as_ref().and_then(|schedule| Some((schedule, schedule.dead_letter.as_ref()?)));
    let Some((schedule, to)) = to else { return bury(meta, reason) };
    let attributes = record::schedule_attributes(&meta, call, schedule, &reason);
    let then = vec![follow(&meta, call, to, payload.clone(), attributes, &reason, &mut now)];
    (Settlement::Done { then }, End::GivenUp)
}

fn bury(meta: Meta, reason: String) -> (Settlement, End) {
    (Settlement::Bury { queue: DEAD_LETTERS.to_owned(), reason, meta: meta.written() }, End::Buried)
}

/// What an event leaves at `to`.
fn follow(
    meta: &Meta,
    call: &Call,
    to: &str,
    content: Bytes,
    attributes: Vec<(String, String, String)>,
    reason: &str,
    now: &mut Now<'_>,
) -> NewEvent {
    let parcel = Parcel { function: call.function.clone(), to: to.to_owned(), attributes };
    let account = &call.function.account;
    let keep = |parcel, account, queue: &str, reason: String, content| {
        Meta::new(meta.request_id, now.at, Task::Keep(parcel)).kept(account, queue, reason, content)
    };
    match to.parse::<Destination>() {
        Ok(Destination::Function { .. }) if content.len() > limits::ASYNC_REQUEST_BYTES => {
            let reason = format!("{} bytes are more than an event of {to} can have. {reason}", content.len());
            keep(parcel, account, DEAD_LETTERS, reason, content)
        }
        Ok(Destination::Function { function, qualifier }) => {
            let qualifier = qualifier.map(|qualifier| qualifier.to_string());
            let task = Task::Invoke(Call {
                function,
                qualifier,
                trace: call.trace.clone(),
                client_context: None,
                tenant: None,
                affinity: None,
                schedule: None,
            });
            Meta::new((now.fresh)(), now.at, task).pending(content)
        }
        Ok(Destination::Queue { account, name, .. }) => keep(parcel, &account, &name, reason.to_owned(), content),
        Ok(Destination::Sqs { .. } | Destination::Url { .. }) => {
            Meta::new(meta.request_id, now.at, Task::Deliver(parcel)).pending(content)
        }
        Err(error) => keep(parcel, account, DEAD_LETTERS, format!("{error}. {reason}"), content),
    }
}

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Undelivered {
    /// Whether another attempt may succeed.
    pub(crate) may_pass: bool,
    pub(crate) text: String,
}

/// The next state of an event that was to be delivered.
pub(crate) fn delivered(mut meta: Meta, outcome: Result<(), Undelivered>, now: &Now<'_>) -> (Settlement, End) {
    match outcome {
        Ok(()) => (Settlement::Done { then: Vec::new() }, End::Delivered),
        Err(failure) => {
            let due = later(now.at, backoff(now.delays, meta.setbacks));
            meta.setbacks += 1;
            if failure.may_pass && due <= expiry(&meta, limits::EVENT_AGE) {
                return (Settlement::Retry { due, meta: meta.written() }, End::PutOff);
            }
            let to = if let Task::Deliver(parcel) = &meta.task { parcel.to.as_str() } else { "its destination" };
            let reason = format!("It could not be delivered to {to}: {}", failure.text);
            bury(meta, reason)
        }
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;

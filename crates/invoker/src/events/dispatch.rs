//! The dispatcher: one task that leases events and has them run, or delivered.
//!
//! It sleeps until the queue says that something changed, an event is due, a lease must be renewed, or a run has ended. At most
//! `places` events are out at once; each is a task that runs it, decides by [`step`](super::step) what it is next, and settles it. A function
//! that was throttled is left alone for a moment (`Holds`), so that a backlog of it does not turn in circles. While the node has much to do
//! (`Holding`), events with time to spare wait, until their latest start at most. When the node
//! stops, what is out may end within the grace period; what does not is leased again at the next start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_fleet::{Body, LogTail};
use lambent_model::{Clock, FunctionArn, RequestId, limits};
use lambent_registry::EventSettings;
use lambent_store::EventQueue;
use lambent_store::queue::{Lease, Leased, Settlement, Wish};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::deliver::Courier;
use super::event::{Call, Meta, Parcel, Task};
use super::lineage;
use super::record::Response;
use super::step::{self, Delays, End, Now, Outcome, expiry};
use crate::calls::Holding;
use crate::error::LOOP;
use crate::schedules::Schedules;
use crate::{Answer, Directory, Error, Invocation, Invoker, Mode};

/// How long a lease is good for.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How often leases are renewed, and the depth is measured.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// How often settling is tried, where the store fails.
const SETTLE_ATTEMPTS: u32 = 8;
/// How often it is looked whether events that can wait still have to.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After a failure of the store.
const PAUSE: Duration = Duration::from_millis(500);
/// Shortest and longest time for which a throttled function is left alone.
const HOLD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a run needs.
pub(super) struct Parts {
    pub(super) queue: Arc<dyn EventQueue>,
    pub(super) invoker: Arc<Invoker>,
    pub(super) schedules: Arc<Schedules>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) courier: Courier,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) delays: Delays,
    pub(super) places: usize,
    pub(super) holding: Holding,
}

/// What a task says when it has settled its event.
struct Ended {
    lane: String,
    end: Option<End>,
}

/// Functions that were throttled a moment ago. At most as many as events are out.
#[derive(Default)]
struct Holds(HashMap<String, (Instant, Duration)>);

impl Holds {
    fn note(&mut self, lane: &str, is_throttled: bool, now: Instant) {
        if !is_throttled {
            self.0.remove(lane);
            return;
        }
        let (until, hold) = self.0.get(lane).copied().unwrap_or((now, HOLD.0 / 2));
        if until <= now {
            let hold = (hold * 2).min(HOLD.1);
            self.0.insert(lane.to_owned(), (now + hold, hold));
        }
    }

    /// Lanes to leave alone now, and when the first of them may be asked again.
    fn now(&mut self, now: Instant) -> (Vec<String>, Option<Instant>) {
        // A hold that is over is remembered as long again, so that the next one is longer.
        self.0.retain(|_, (until, hold)| *until + *hold * 2 > now);
        let held = self.0.iter().filter(|(_, (until, _))| *until > now);
        let first = held.clone().map(|(_, (until, _))| *until).min();
        (held.map(|(lane, _)| lane.clone()).collect(), first)
    }
}

/// Runs until `stop`, then waits for what is out.
pub(super) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut changes = parts.queue.changes();
    let mut out: HashMap<Id, Lease> = HashMap::new();
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let mut renew = tokio::time::interval(RENEW_EVERY);
    let mut holds = Holds::default();
    while !stop.is_cancelled() {
        changes.mark_unchanged();
        let (without, held_until) = holds.now(Instant::now());
        let now = parts.clock.now();
        let is_short = parts.invoker.running() >= parts.holding.from;
        let wish = Wish {
            now,
            until: after(now, LEASE),
            places: parts.places,
            most: parts.places,
            without,
            latest_by: is_short.then_some(now),
        };
        let pause = match parts.queue.lease(wish).await {
            Ok(batch) => {
                for event in batch.events {
                    let (parts, lease) = (parts.clone(), event.lease);
                    let task = tasks.spawn(async move { parts.handle(event).await });
                    out.insert(task.id(), lease);
                }
                let due = batch.next.map(|next| until(parts.clock.now(), next));
                let held = held_until.map(|until| until.saturating_duration_since(Instant::now()));
                // That there is less to do is told by nobody.
                let spare = batch.held_until.map(|latest| until(parts.clock.now(), latest).min(LOOK_EVERY));
                due.into_iter().chain(held).chain(spare).min().unwrap_or(RENEW_EVERY)
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "events cannot be leased");
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause.max(Duration::from_millis(1))) => {}
            _ = renew.tick() => parts.renew(&out).await,
            Some(ended) = tasks.join_next_with_id() => note(ended, &mut out, &mut holds),
        }
        while let Some(ended) = tasks.try_join_next_with_id() {
            note(ended, &mut out, &mut holds);
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn note(ended: Result<(Id, Ended), JoinError>, out: &mut HashMap<Id, Lease>, holds: &mut Holds) {
    match ended {
        Ok((id, Ended { lane, end })) => {
            out.remove(&id);
            holds.note(&lane, end == Some(End::PutOff), Instant::now());
        }
        // Its lease is renewed no longer; when it has run out, the event runs again.
        Err(error) => {
            out.remove(&error.id());
            tracing::error!(%error, "an event's task broke off");
        }
    }
}

fn after(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long it is from `now` to `then`.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

impl Parts {
    async fn renew(&self, out: &HashMap<Id, Lease>) {
        if let Ok(depth) = self.queue.depth().await {
            for (state, count) in [("pending", depth.pending), ("leased", depth.leased), ("buried", depth.buried)] {
                metrics::gauge!("lambent_events", "state" => state).set(count as f64);
            }
            metrics::gauge!("lambent_events_bytes").set(depth.bytes as f64);
            metrics::gauge!("lambent_events_interrupted").set(depth.interrupted as f64);
        }
        if out.is_empty() {
            return;
        }
        let leases: Vec<Lease> = out.values().copied().collect();
        match self.queue.renew(leases, after(self.clock.now(), LEASE)).await {
            // A lease that is lost is told to its task when it settles.
            Ok(_) => {}
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "leases cannot be renewed"),
        }
    }

    async fn handle(&self, event: Leased) -> Ended {
        let Leased { lease, lane, meta, payload, .. } = event;
        let now = self.clock.now();
        let mut ticked = None;
        let (settlement, end) = match Meta::read(&meta) {
            Ok(Meta { task: Task::Tick(tick), .. }) => {
                let then = self.schedules.fire(&tick).await.then;
                ticked = Some(tick);
                (Settlement::Done { then }, End::Ticked)
            }
            Ok(meta) => self.attempt(meta, payload, now).await,
            Err(error) => {
                let reason = format!("What is kept of the event cannot be read: {error}");
                (Settlement::Bury { queue: super::DEAD_LETTERS.to_owned(), reason, meta }, End::Buried)
            }
        };
        let end = self.settle(lease, settlement, end).await;
        if let Some(tick) = ticked.filter(|_| end.is_some()) {
            self.schedules.fired(&tick).await;
        }
        Ended { lane, end }
    }

    async fn attempt(&self, meta: Meta, payload: Bytes, now: Timestamp) -> (Settlement, End) {
        match meta.task.clone() {
            Task::Invoke(call) => self.invoke(meta, &call, payload, now).await,
            Task::Deliver(parcel) => self.deliver(meta, &parcel, payload, now).await,
            Task::Keep(_) | Task::Tick(_) => {
                let reason = "It is to be read, not to be run.".to_owned();
                (Settlement::Bury { queue: super::DEAD_LETTERS.to_owned(), reason, meta: meta.written() }, End::Buried)
            }
        }
    }

    async fn deliver(&self, meta: Meta, parcel: &Parcel, content: Bytes, now: Timestamp) -> (Settlement, End) {
        let outcome = self.courier.deliver(&meta, parcel, content, now).await;
        if let Err(failure) = &outcome {
            tracing::warn!(to = parcel.to, %failure, may_pass = failure.may_pass, "an outcome could not be delivered");
        }
        let mut fresh = RequestId::random;
        step::delivered(meta, outcome, &Now { delays: self.delays, at: self.clock.now(), fresh: &mut fresh })
    }

    async fn invoke(&self, meta: Meta, call: &Call, payload: Bytes, now: Timestamp) -> (Settlement, End) {
        let qualifier = call.qualifier();
        let settings = self.directory.event_settings(&call.function, qualifier.as_ref()).ok();
        if meta.failures == 0 && meta.setbacks == 0 {
            let waited = until(meta.since, now);
            metrics::histogram!("lambent_event_wait_seconds").record(waited.as_secs_f64());
        }
        let (trace, visits) = lineage::enter(call.trace.as_deref(), &call.function);
        let outcome = match &settings {
            Some(settings) => match refusal(&meta, call, settings, visits, now) {
                Some(refusal) => refusal,
                None => self.call(&meta, call, payload.clone(), &trace).await,
            },
            None => Outcome::Gone { reason: String::new() },
        };
        // What follows from it is of the same chain.
        let mut meta = meta;
        if let Task::Invoke(call) = &mut meta.task
            && matches!(&outcome, Outcome::Answered(response) if response.error.is_none())
        {
            call.trace = Some(trace);
        }
        let mut fresh = RequestId::random;
        let now = Now { delays: self.delays, at: self.clock.now(), fresh: &mut fresh };
        step::invoked(meta, &payload, outcome, settings.as_ref(), now)
    }

    async fn call(&self, meta: &Meta, call: &Call, payload: Bytes, trace: &str) -> Outcome {
        let invocation = Invocation {
            function: call.function.clone(),
            qualifier: call.qualifier(),
            request_id: meta.request_id,
            payload,
            client_context: call.client_context.clone(),
            cognito_identity: None,
            tenant: call.tenant.clone(),
            affinity: call.affinity,
            trace: Some(trace.to_owned()),
            mode: Mode::Buffered { log_tail: LogTail::None },
            received_at: Instant::now(),
            idempotency: None,
            turn: None,
        };
        match self.invoker.invoke(invocation).await {
            Ok(answer) => match response(answer).await {
                Some(response) => Outcome::Answered(response),
                None => Outcome::Later { status: 500, reason: "The answer broke off.".to_owned() },
            },
            Err(error) => refused(&error),
        }
    }

    /// Settles; none where the event was somebody else's by then, or the store would not take it: then it runs again.
    async fn settle(&self, lease: Lease, settlement: Settlement, end: End) -> Option<End> {
        for attempt in 1..=SETTLE_ATTEMPTS {
            match self.queue.settle(lease, settlement.clone(), self.clock.now()).await {
                Ok(true) => {
                    metrics::counter!("lambent_events_total", "outcome" => end.label()).increment(1);
                    return Some(end);
                }
                Ok(false) => {
                    metrics::counter!("lambent_events_total", "outcome" => "lost").increment(1);
                    tracing::warn!(event = %lease.id, "an event was run that was somebody else's, or dropped, by then");
                    return None;
                }
                Err(error) => {
                    tracing::error!(event = %lease.id, attempt, %error, "an event cannot be settled");
                    tokio::time::sleep(PAUSE * attempt).await;
                }
            }
        }
        None
    }
}

/// Why an event is not even tried.
fn refusal(meta: &Meta, call: &Call, settings: &EventSettings, visits: u32, now: Timestamp) -> Option<Outcome> {
    if settings.reserved_concurrency == Some(0) {
        // AWS: "sends any new events to the dead-letter queue or on-failure destination, without any retries".
        let reason = "The function is turned off: its reserved concurrency is 0.".to_owned();
        return Some(Outcome::Never { status: 429, reason });
    }
    if now > expiry(meta, settings.maximum_age) {
        return Some(Outcome::TooOld);
    }
    if visits > limits::RECURSION && !settings.allows_loops {
        let FunctionArn { name, .. } = &call.function;
        metrics::counter!("lambent_recursive_events_total", "function" => name.to_string()).increment(1);
        return Some(Outcome::Never { status: 400, reason: LOOP.to_owned() });
    }
    None
}

fn refused(error: &Error) -> Outcome {
    let (status, reason) = (error.status(), format!("{}: {error}", error.code()));
    match error {
        Error::ShuttingDown => Outcome::Stopping,
        Error::Resolve(error) if error.status() == 404 => Outcome::Gone { reason },
        Error::TooLarge { .. }
        | Error::Recursive
        | Error::TenantMissing
        | Error::TenantUnwanted
        | Error::NoIdempotencyKey
        | Error::Idempotency(_)
        | Error::AffinityValue { .. }
        | Error::IdempotencyMismatch
        | Error::AnswerTooLarge { .. } => Outcome::Never { status, reason },
        // A function that is being prepared, or a runtime that an operator may still install.
        Error::NotReady { .. } | Error::NoRuntime { .. } | Error::Throttled { .. } | Error::QueueFull => {
            Outcome::Later { status, reason }
        }
        // The next container's hooks may do better.
        Error::SnapStart { .. } | Error::SnapStartTimeout => Outcome::Later { status, reason },
        Error::Resolve(_) | Error::Service(_) | Error::Store(_) | Error::RecordsFull | Error::Lost => {
            Outcome::Later { status, reason }
        }
    }
}

async fn response(answer: Answer) -> Option<Response> {
    let payload = match answer.body {
        Body::Buffered(payload) => payload,
        Body::Stream(mut pieces) => {
            let mut whole = Vec::new();
            while let Some(piece) = pieces.recv().await {
                let piece = piece.ok().filter(|piece| whole.len() + piece.len() <= limits::SYNC_RESPONSE_BYTES)?;
                whole.extend_from_slice(&piece);
            }
            whole.into()
        }
    };
    let error = answer.error.map(|kind| kind.to_string());
    Some(Response { executed_version: answer.executed_version.to_string(), error, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_grow_and_end_with_the_first_success() {
        let (mut holds, begun) = (Holds::default(), Instant::now());
        holds.note("f", true, begun);
        holds.note("f", true, begun);
        let (lanes, until) = holds.now(begun);
        assert_eq!((lanes, until), (vec!["f".to_owned()], Some(begun + HOLD.0)));
        let later = begun + HOLD.0;
        assert_eq!(holds.now(later), (Vec::new(), None));
        holds.note("f", true, later);
        assert_eq!(holds.now(later).1, Some(later + HOLD.0 * 2));
        holds.note("f", false, later);
        assert_eq!(holds.now(later), (Vec::new(), None));
    }
}

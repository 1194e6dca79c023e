//! `StartLiveTail`: events as they are stored, as an AWS event stream with an update every second.
//!
//! A session asks the store for what has come since the last update. It ends when its client goes, after three hours, and when the node
//! stops. Where more comes than an update holds, it shows the newest and says `sampled`, as AWS does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use jiff::{SignedDuration, Timestamp};
use lambent_model::RequestId;
use lambent_store::Logs;
use lambent_store::port::{LogEvent, LogQuery};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::filter::Filter;
use super::{Input, group_not_found, invalid, name_of, text};
use crate::failure::Failure;
use crate::service::Service;
use crate::stream::frame;

/// Sessions at the same time; AWS's quota.
pub(crate) const SESSIONS: usize = 15;
/// Most events of one update.
const MOST_EVENTS: usize = 500;
/// Events looked at for one update, of each group.
const SCAN: usize = 10_000;
/// Between two updates.
const EVERY: Duration = Duration::from_secs(1);
/// How long a session may last.
const LONGEST: Duration = Duration::from_secs(3 * 3_600);
/// Events that were written so long before they were stored are not seen.
const LATE: SignedDuration = SignedDuration::from_secs(60);

struct Session {
    logs: Arc<dyn Logs>,
    alive: Arc<dyn Fn() -> bool + Send + Sync>,
    account: String,
    filter: Filter,
    /// One for each group, whose `newer_than` moves on.
    queries: Vec<LogQuery>,
    tick: Interval,
    until: Instant,
    ready: VecDeque<Bytes>,
    over: bool,
    _turn: OwnedSemaphorePermit,
}

/// The response whose body is the session.
pub(super) async fn start(service: &Service, input: &Input, id: RequestId) -> Result<Response, Failure> {
    let pattern = text(input, "logEventFilterPattern").unwrap_or_default();
    let filter = Filter::parse(pattern).map_err(invalid)?;
    let queries = queries(service, input).await?;
    let turn = Arc::clone(&service.live_tails).try_acquire_owned().map_err(|_| {
        let text = "The account has reached its limit of live tail sessions at the same time";
        Failure::new(400, "LimitExceededException", text)
    })?;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = json!({
        "requestId": id.to_string(),
        "sessionId": RequestId::random().to_string(),
        "logGroupIdentifiers": input.get("logGroupIdentifiers"),
        "logStreamNames": input.get("logStreamNames").cloned().unwrap_or_else(|| json!([])),
        "logStreamNamePrefixes": input.get("logStreamNamePrefixes").cloned().unwrap_or_else(|| json!([])),
        "logEventFilterPattern": pattern,
    });
    // The first event stands for what the operation answers beside its stream: nothing.
    let ready = VecDeque::from([event("initial-response", &json!({})), event("sessionStart", &begin)]);
    let session = Session {
        logs: service.parts.logs.clone(),
        alive: service.parts.ready.clone(),
        account: service.parts.account.to_string(),
        filter,
        queries,
        tick,
        until: Instant::now() + LONGEST,
        ready,
        over: false,
        _turn: turn,
    };
    let frames = stream::unfold(session, |mut session| async {
        let frame = session.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), session))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let media = HeaderValue::from_static("application/vnd.amazon.eventstream");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}

/// What the session asks the store for, from now on.
async fn queries(service: &Service, input: &Input) -> Result<Vec<LogQuery>, Failure> {
    let list = |name: &str| -> Vec<String> {
        let given = input.get(name).and_then(Value::as_array).into_iter().flatten();
        given.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let (groups, streams, prefixes) =
        (list("logGroupIdentifiers"), list("logStreamNames"), list("logStreamNamePrefixes"));
    if !streams.is_empty() && !prefixes.is_empty() {
        return Err(invalid("logStreamNames and logStreamNamePrefixes are mutually exclusive parameters."));
    }
    if groups.len() > 1 && !(streams.is_empty() && prefixes.is_empty()) {
        return Err(invalid("Log streams can be given for one log group only."));
    }
    let since = service.parts.clock.now().saturating_sub(LATE).unwrap_or(Timestamp::MIN);
    let mut queries = Vec::new();
    for group in groups.iter().map(|group| name_of(group)) {
        service.parts.logs.streams(group).await?.ok_or_else(group_not_found)?;
        let newest = LogQuery {
            group: group.to_owned(),
            from: Some(since),
            descending: true,
            limit: SCAN,
            ..LogQuery::default()
        };
        let seen = service.parts.logs.query(newest).await?.iter().map(|event| event.id).max();
        let query = LogQuery {
            group: group.to_owned(),
            streams: streams.clone(),
            from: Some(since),
            newer_than: Some(seen.unwrap_or(0)),
            descending: true,
            limit: SCAN,
            ..LogQuery::default()
        };
        match prefixes.as_slice() {
            [] => queries.push(query),
            some => queries
                .extend(some.iter().map(|prefix| LogQuery { stream_prefix: Some(prefix.clone()), ..query.clone() })),
        }
    }
    Ok(queries)
}

impl Session {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.ready.pop_front() {
            return Some(frame);
        }
        self.tick.tick().await;
        if self.over || !(self.alive)() {
            return None;
        }
        if Instant::now() >= self.until {
            self.over = true;
            return Some(exception("SessionTimeoutException", "The live tail session has lasted three hours"));
        }
        match self.update().await {
            Ok(update) => Some(event("sessionUpdate", &update)),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a live tail session cannot go on");
                self.over = true;
                Some(exception("SessionStreamingException", "The log events cannot be read"))
            }
        }
    }

    async fn update(&mut self) -> Result<Value, lambent_store::Error> {
        let mut found: Vec<(String, LogEvent)> = Vec::new();
        for query in &mut self.queries {
            let events = self.logs.query(query.clone()).await?;
            query.newer_than = events.iter().map(|event| event.id).max().max(query.newer_than);
            let matching = events.into_iter().filter(|event| self.filter.matches(event.message.trim_end_matches('\n')));
            found.extend(matching.map(|event| (query.group.clone(), event)));
        }
        found.sort_by_key(|(_, event)| (event.at, event.id));
        // Of two prefixes one may be the other's.
        found.dedup_by_key(|(_, event)| event.id);
        let sampled = found.len() > MOST_EVENTS;
        let shown: Vec<Value> = found
            .iter()
            .skip(found.len().saturating_sub(MOST_EVENTS))
            .map(|(group, event)| {
                json!({
                    "logGroupIdentifier": format!("{}:{group}", self.account),
                    "logStreamName": event.stream,
                    "message": event.message,
                    "timestamp": event.at.as_millisecond(),
                    "ingestionTime": event.ingested_at.as_millisecond(),
                })
            })
            .collect();
        Ok(json!({"sessionMetadata": {"sampled": sampled}, "sessionResults": shown}))
    }
}

fn event(name: &'static str, payload: &Value) -> Bytes {
    frame("event", name, "application/json", payload.to_string().into())
}

fn exception(name: &'static str, message: &str) -> Bytes {
    frame("exception", name, "application/json", json!({"message": message}).to_string().into())
}

/// The turns of [`SESSIONS`].
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(SESSIONS))
}

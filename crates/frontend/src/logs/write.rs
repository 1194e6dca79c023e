//! Streams made and deleted by callers, and events that they write.

use std::sync::Arc;

use jiff::{SignedDuration, Span, Timestamp};
use lambent_store::port::NewLogEvent;
use serde_json::{Map, Value, json};

use super::{Input, group, group_not_found, invalid, stream_not_found, text};
use crate::failure::Failure;
use crate::service::Service;

/// Most bytes of one batch, counted with [`OVERHEAD`].
const MOST_BYTES: usize = 1_048_576;
/// What each event counts besides its text.
const OVERHEAD: usize = 26;
/// Longest time between the first and the last event of a batch.
const SPAN: SignedDuration = SignedDuration::from_hours(24);
/// Events further ahead of now are rejected.
const TOO_NEW: SignedDuration = SignedDuration::from_hours(2);
/// Events older than this are rejected.
const TOO_OLD: SignedDuration = SignedDuration::from_hours(14 * 24);

type Output = Result<Option<Value>, Failure>;

pub(super) async fn create_stream(service: &Service, input: &Input) -> Output {
    let (group, stream) = (group(input)?, text(input, "logStreamName").unwrap_or_default());
    match service.parts.logs.create_stream(group, stream, service.parts.clock.now()).await? {
        Some(true) => Ok(None),
        Some(false) => {
            Err(Failure::new(400, "ResourceAlreadyExistsException", "The specified log stream already exists"))
        }
        None => Err(group_not_found()),
    }
}

pub(super) async fn delete_stream(service: &Service, input: &Input) -> Output {
    let (group, stream) = (group(input)?, text(input, "logStreamName").unwrap_or_default());
    match service.parts.logs.delete_stream(group, stream).await? {
        Some(true) => Ok(None),
        Some(false) => Err(stream_not_found()),
        None => Err(group_not_found()),
    }
}

pub(super) async fn put(service: &Service, input: &Input) -> Output {
    let (group, stream) = (group(input)?, text(input, "logStreamName").unwrap_or_default());
    let events = batch(input)?;
    let groups = service.parts.logs.groups(group).await?;
    let kept = groups.iter().find(|known| known.name == group).ok_or_else(group_not_found)?;
    let streams = service.parts.logs.streams(group).await?.ok_or_else(group_not_found)?;
    if !streams.iter().any(|known| known.name == stream) {
        return Err(stream_not_found());
    }
    let times: Vec<Timestamp> = events.iter().map(|(at, _)| *at).collect();
    let window = Window::new(&times, service.parts.clock.now(), kept.retention_days);
    let wanted = events.into_iter().take(window.too_new).skip(window.begin());
    let (group, stream): (Arc<str>, Arc<str>) = (group.into(), stream.into());
    let wanted: Vec<NewLogEvent> = wanted
        .map(|(at, message)| NewLogEvent { group: Arc::clone(&group), stream: Arc::clone(&stream), at, message })
        .collect();
    if !wanted.is_empty() {
        service.parts.logs.append(wanted).await?;
    }
    // Tokens have no meaning any more; AWS still gives one.
    let mut output = json!({"nextSequenceToken": format!("{:056}", 0)});
    if let (Some(rejected), Some(output)) = (window.rejected(times.len()), output.as_object_mut()) {
        output.insert("rejectedLogEventsInfo".to_owned(), rejected);
    }
    Ok(Some(output))
}

/// The events of a request, in order and within a batch's bounds.
fn batch(input: &Input) -> Result<Vec<(Timestamp, String)>, Failure> {
    let given = input.get("logEvents").and_then(Value::as_array).into_iter().flatten();
    let events: Vec<(Timestamp, String)> = given
        .filter_map(|event| {
            let at = event.get("timestamp")?.as_i64()?;
            let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
            Some((at, event.get("message")?.as_str()?.to_owned()))
        })
        .collect();
    let bytes: usize = events.iter().map(|(_, message)| message.len() + OVERHEAD).sum();
    if bytes > MOST_BYTES {
        return Err(invalid(format!("Upload too large: {bytes} bytes exceeds limit of {MOST_BYTES}")));
    }
    if !events.is_sorted_by_key(|(at, _)| *at) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    if let (Some((first, _)), Some((last, _))) = (events.first(), events.last())
        && last.duration_since(*first) > SPAN
    {
        return Err(invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    Ok(events)
}

/// Which events of an ordered batch are kept.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    /// Those before are older than a stream takes.
    too_old: usize,
    /// Those before are older than the group keeps.
    expired: usize,
    /// This and those behind are too far ahead.
    too_new: usize,
}

impl Window {
    fn new(times: &[Timestamp], now: Timestamp, retention_days: Option<u32>) -> Self {
        let before = |limit: Timestamp| times.partition_point(|at| *at < limit);
        let oldest = now.saturating_sub(TOO_OLD).unwrap_or(Timestamp::MIN);
        let kept = retention_days.and_then(|days| now.checked_sub(Span::new().hours(24 * i64::from(days))).ok());
        let newest = now.saturating_add(TOO_NEW).unwrap_or(Timestamp::MAX);
        Self {
            too_old: before(oldest),
            expired: kept.map_or(0, before),
            too_new: times.partition_point(|at| *at <= newest),
        }
    }

    fn begin(&self) -> usize {
        self.too_old.max(self.expired)
    }

    /// AWS's account of what was not kept.
    fn rejected(&self, events: usize) -> Option<Value> {
        let ends = [("tooOldLogEventEndIndex", self.too_old), ("expiredLogEventEndIndex", self.expired)];
        let mut told: Map<String, Value> =
            ends.into_iter().filter(|(_, end)| *end > 0).map(|(name, end)| (name.to_owned(), end.into())).collect();
        if self.too_new < events {
            told.insert("tooNewLogEventStartIndex".to_owned(), self.too_new.into());
        }
        (!told.is_empty()).then_some(Value::Object(told))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3_600).unwrap()
    }

    #[test]
    fn what_is_too_old_or_too_new_is_left_out_and_told() {
        let times = [-15 * 24, -25, -1, 0, 2, 3].map(at);
        let window = Window::new(&times, at(0), Some(1));
        assert_eq!(window, Window { too_old: 1, expired: 2, too_new: 5 });
        assert_eq!(window.begin(), 2);
        let told = window.rejected(times.len()).unwrap();
        let expected =
            json!({"tooOldLogEventEndIndex": 1, "expiredLogEventEndIndex": 2, "tooNewLogEventStartIndex": 5});
        assert_eq!(told, expected);
        assert_eq!(Window::new(&times[2..5], at(0), None).rejected(3), None);
    }

    #[test]
    fn batches_have_bounds() {
        let batch_of = |events: &[(Timestamp, String)]| {
            let events: Vec<Value> = events
                .iter()
                .map(|(at, message)| json!({"timestamp": at.as_millisecond(), "message": message}))
                .collect();
            let Value::Object(input) = json!({"logEvents": events}) else { panic!("an object") };
            batch(&input).map_err(|failure| failure.message)
        };
        let one = |hours, bytes: usize| (at(hours), "x".repeat(bytes));
        assert_eq!(batch_of(&[one(0, 1), one(24, MOST_BYTES - 1 - 2 * OVERHEAD)]).unwrap().len(), 2);
        let too_large = batch_of(&[one(0, MOST_BYTES - OVERHEAD + 1)]).unwrap_err();
        assert!(too_large.contains("1048577 bytes exceeds limit of 1048576"), "{too_large}");
        assert!(batch_of(&[one(1, 1), one(0, 1)]).unwrap_err().contains("chronological"));
        assert!(batch_of(&[one(0, 1), one(25, 1)]).unwrap_err().contains("24 hours"));
    }
}

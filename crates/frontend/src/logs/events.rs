//! Events: of one stream forwards and backwards, or of a group by filter.
//!
//! A token is a place between two events: the time (nanoseconds) and number of the one it lies behind or in front of.
//! Reading the same token again gives the same place, so a follower asks with the last forward token for ever.

use jiff::{SignedDuration, Timestamp};
use lambent_store::port::{LogEvent, LogQuery};
use serde_json::{Value, json};

use super::filter::Filter;
use super::{Input, flag, group, group_not_found, invalid, limit, stream_not_found, text, time};
use crate::failure::Failure;
use crate::service::Service;

/// Most events of one answer.
const MOST_EVENTS: usize = 10_000;
/// Most bytes of messages of one answer.
const MOST_BYTES: usize = 1_048_576;
/// Events read from the store at a time while filtering.
const SCAN: usize = 2_000;
/// Reads of the store for one answer while filtering; what is behind them comes with the next token.
const MOST_SCANS: usize = 25;

type Place = (Timestamp, u64);

pub(super) async fn get(service: &Service, input: &Input) -> Result<Option<Value>, Failure> {
    let (group, stream) = (group(input)?, text(input, "logStreamName").unwrap_or_default());
    let streams = service.parts.logs.streams(group).await?.ok_or_else(group_not_found)?;
    if !streams.iter().any(|known| known.name == stream) {
        return Err(stream_not_found());
    }
    let token = text(input, "nextToken").map(read_token).transpose()?;
    let descending = token.map_or(!flag(input, "startFromHead"), |(direction, _)| direction == 'b');
    let from = time(input, "startTime");
    let mut events = service
        .parts
        .logs
        .query(LogQuery {
            group: group.to_owned(),
            streams: vec![stream.to_owned()],
            from,
            to: time(input, "endTime"),
            after: token.map(|(_, place)| place),
            descending,
            limit: limit(input, MOST_EVENTS),
            ..LogQuery::default()
        })
        .await?;
    truncate(&mut events);
    if descending {
        events.reverse();
    }
    let nowhere = token.map_or((from.unwrap_or(Timestamp::UNIX_EPOCH), 0), |(_, place)| place);
    let (first, last) = (events.first().map_or(nowhere, place), events.last().map_or(nowhere, place));
    let shown: Vec<Value> = events
        .iter()
        .map(|event| {
            json!({
                "timestamp": event.at.as_millisecond(),
                "message": event.message,
                "ingestionTime": event.ingested_at.as_millisecond(),
            })
        })
        .collect();
    Ok(Some(json!({
        "events": shown,
        "nextForwardToken": token_of('f', last),
        "nextBackwardToken": token_of('b', first),
    })))
}

pub(super) async fn filter(service: &Service, input: &Input) -> Result<Option<Value>, Failure> {
    let group = group(input)?;
    let filter = Filter::parse(text(input, "filterPattern").unwrap_or_default()).map_err(invalid)?;
    service.parts.logs.streams(group).await?.ok_or_else(group_not_found)?;
    let streams = input.get("logStreamNames").and_then(Value::as_array).into_iter().flatten();
    let streams: Vec<String> = streams.filter_map(|name| name.as_str().map(str::to_owned)).collect();
    let prefix = text(input, "logStreamNamePrefix").map(str::to_owned);
    if !streams.is_empty() && prefix.is_some() {
        return Err(invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters."));
    }
    let limit = limit(input, MOST_EVENTS);
    let mut query = LogQuery {
        group: group.to_owned(),
        streams,
        stream_prefix: prefix,
        from: time(input, "startTime"),
        // Unlike with GetLogEvents, the end is still part of it.
        to: time(input, "endTime").map(|end| end.saturating_add(SignedDuration::from_millis(1)).unwrap_or(end)),
        after: text(input, "nextToken").map(read_token).transpose()?.map(|(_, place)| place),
        newer_than: None,
        descending: false,
        limit: SCAN,
    };
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut more = true;
    for _ in 0..MOST_SCANS {
        let events = service.parts.logs.query(query.clone()).await?;
        more = events.len() == SCAN;
        for event in events {
            if found.len() == limit || bytes >= MOST_BYTES {
                more = true;
                break;
            }
            query.after = Some(place(&event));
            if filter.matches(event.message.trim_end_matches('\n')) {
                bytes += event.message.len();
                found.push(event);
            }
        }
        if !more || found.len() == limit || bytes >= MOST_BYTES {
            break;
        }
    }
    let shown: Vec<Value> = found
        .iter()
        .map(|event| {
            json!({
                "logStreamName": event.stream,
                "timestamp": event.at.as_millisecond(),
                "message": event.message,
                "ingestionTime": event.ingested_at.as_millisecond(),
                "eventId": format!("{:056}", event.id),
            })
        })
        .collect();
    let mut output = json!({"events": shown, "searchedLogStreams": []});
    if let (true, Some(after), Some(output)) = (more, query.after, output.as_object_mut()) {
        output.insert("nextToken".to_owned(), token_of('f', after).into());
    }
    Ok(Some(output))
}

fn place(event: &LogEvent) -> Place {
    (event.at, event.id)
}

fn truncate(events: &mut Vec<LogEvent>) {
    let mut bytes = 0;
    let fitting = events.iter().take_while(|event| {
        bytes += event.message.len();
        bytes <= MOST_BYTES
    });
    // One event is never too much.
    let fitting = fitting.count().max(1);
    events.truncate(fitting);
}

fn token_of(direction: char, (at, id): Place) -> String {
    format!("{direction}/{}-{id}/s", at.as_nanosecond())
}

fn read_token(token: &str) -> Result<(char, Place), Failure> {
    let parse = || {
        let (direction, rest) = token.split_once('/')?;
        let (at, id) = rest.strip_suffix("/s")?.split_once('-')?;
        let place = (Timestamp::from_nanosecond(at.parse().ok()?).ok()?, id.parse().ok()?);
        match direction {
            "f" => Some(('f', place)),
            "b" => Some(('b', place)),
            _ => None,
        }
    };
    parse().ok_or_else(|| invalid("The specified nextToken is invalid."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_as_written() {
        let place = (Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(), 42);
        assert_eq!(read_token(&token_of('b', place)).unwrap(), ('b', place));
        for bad in ["", "f/1", "f/x-1/s", "x/1-1/s", "f/1-/s"] {
            assert!(read_token(bad).is_err(), "{bad}");
        }
    }
}

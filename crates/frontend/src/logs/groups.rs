//! Groups and streams.

use lambent_store::port::{LogGroup, LogStream};
use serde_json::{Value, json};

use super::{Input, flag, group, group_not_found, invalid, limit, text};
use crate::failure::Failure;
use crate::service::Service;

/// Groups or streams of one answer.
const PAGE: usize = 50;
/// The retentions that AWS has, in days.
const RETENTIONS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

type Output = Result<Option<Value>, Failure>;

pub(super) async fn describe_groups(service: &Service, input: &Input) -> Output {
    let (prefix, pattern) = (text(input, "logGroupNamePrefix"), text(input, "logGroupNamePattern"));
    if prefix.is_some() && pattern.is_some() {
        return Err(invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."));
    }
    let mut groups = service.parts.logs.groups(prefix.unwrap_or_default()).await?;
    groups.retain(|group| pattern.is_none_or(|pattern| group.name.contains(pattern)));
    let (groups, token) = page(groups, input, |group| &group.name);
    let shown: Vec<Value> = groups.iter().map(|group| show_group(service, group)).collect();
    Ok(Some(with_token(json!({"logGroups": shown}), token)))
}

fn show_group(service: &Service, group: &LogGroup) -> Value {
    let arn = arn(service, &group.name);
    let mut shown = json!({
        "logGroupName": group.name,
        "creationTime": group.created_at.as_millisecond(),
        "metricFilterCount": 0,
        "arn": format!("{arn}:*"),
        "storedBytes": group.stored_bytes,
        "logGroupClass": "STANDARD",
        "logGroupArn": arn,
    });
    if let (Some(days), Some(shown)) = (group.retention_days, shown.as_object_mut()) {
        shown.insert("retentionInDays".to_owned(), days.into());
    }
    shown
}

pub(super) async fn describe_streams(service: &Service, input: &Input) -> Output {
    let by_time = text(input, "orderBy") == Some("LastEventTime");
    let prefix = text(input, "logStreamNamePrefix");
    if by_time && prefix.is_some() {
        return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let group = group(input)?;
    let mut streams = service.parts.logs.streams(group).await?.ok_or_else(group_not_found)?;
    streams.retain(|stream| prefix.is_none_or(|prefix| stream.name.starts_with(prefix)));
    if by_time {
        streams.sort_by(|a, b| (a.last_event_at, &a.name).cmp(&(b.last_event_at, &b.name)));
    }
    if flag(input, "descending") {
        streams.reverse();
    }
    let (streams, token) = page(streams, input, |stream| &stream.name);
    let shown: Vec<Value> = streams.iter().map(|stream| show_stream(service, group, stream)).collect();
    Ok(Some(with_token(json!({"logStreams": shown}), token)))
}

fn show_stream(service: &Service, group: &str, stream: &LogStream) -> Value {
    let mut shown = json!({
        "logStreamName": stream.name,
        "creationTime": stream.created_at.as_millisecond(),
        "arn": format!("{}:log-stream:{}", arn(service, group), stream.name),
        "storedBytes": 0,
    });
    if let Some(shown) = shown.as_object_mut() {
        if let Some(first) = stream.first_event_at {
            shown.insert("firstEventTimestamp".to_owned(), first.as_millisecond().into());
        }
        if let Some(last) = stream.last_event_at {
            shown.insert("lastEventTimestamp".to_owned(), last.as_millisecond().into());
            shown.insert("lastIngestionTime".to_owned(), last.as_millisecond().into());
        }
    }
    shown
}

pub(super) async fn create(service: &Service, input: &Input) -> Output {
    if service.parts.logs.create_group(group(input)?, service.parts.clock.now()).await? {
        return Ok(None);
    }
    Err(Failure::new(400, "ResourceAlreadyExistsException", "The specified log group already exists"))
}

pub(super) async fn delete(service: &Service, input: &Input) -> Output {
    done(service.parts.logs.delete_group(group(input)?).await?)
}

pub(super) async fn put_retention(service: &Service, input: &Input) -> Output {
    let days = input.get("retentionInDays").and_then(Value::as_i64).unwrap_or_default();
    if !RETENTIONS.contains(&days) {
        let all: Vec<String> = RETENTIONS.iter().map(i64::to_string).collect();
        return Err(invalid(format!(
            "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: Member must \
             satisfy enum value set: [{}]",
            all.join(", ")
        )));
    }
    done(service.parts.logs.set_retention(group(input)?, u32::try_from(days).ok()).await?)
}

pub(super) async fn delete_retention(service: &Service, input: &Input) -> Output {
    done(service.parts.logs.set_retention(group(input)?, None).await?)
}

fn done(was_there: bool) -> Output {
    if was_there { Ok(None) } else { Err(group_not_found()) }
}

/// The entries behind the token and within the limit, and the token for those behind them.
fn page<T>(mut entries: Vec<T>, input: &Input, name: impl Fn(&T) -> &String) -> (Vec<T>, Option<String>) {
    if let Some(token) = text(input, "nextToken") {
        // The token is the last name of the page before. Where that has gone since, nothing follows it.
        let after = entries.iter().position(|entry| name(entry) == token).map_or(entries.len(), |at| at + 1);
        entries.drain(..after);
    }
    let limit = limit(input, PAGE);
    let more = entries.len() > limit;
    entries.truncate(limit);
    let token = entries.last().filter(|_| more).map(|entry| name(entry).clone());
    (entries, token)
}

fn with_token(mut output: Value, token: Option<String>) -> Value {
    if let (Some(token), Some(output)) = (token, output.as_object_mut()) {
        output.insert("nextToken".to_owned(), token.into());
    }
    output
}

fn arn(service: &Service, group: &str) -> String {
    format!("arn:aws:logs:{}:{}:log-group:{group}", service.parts.region, service.parts.account)
}

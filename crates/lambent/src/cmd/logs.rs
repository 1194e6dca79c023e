//! `lambent logs`.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::{WrongUsage, output};
use crate::cli::LogsArgs;
use crate::client::{Client, Event};
use crate::config::Env;

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events may appear later than their time by so much (they are stored in batches).
const LATE_BY: SignedDuration = SignedDuration::from_secs(10);

/// Prints what a function logged.
pub async fn run(args: &LogsArgs, env: &dyn Env, json: bool) -> Result<()> {
    let mut since = since(&args.since, Timestamp::now())?;
    let client = Client::new(&args.client, env)?;
    let name: lambent_model::FunctionRef = args.function.parse().map_err(|error| WrongUsage(format!("{error}")))?;
    // Unknown functions are an error, silent ones are not.
    let configuration = client.function(&args.function).await?;
    let group = configuration.pointer("/Configuration/LoggingConfig/LogGroup").and_then(|group| group.as_str());
    let group = group.map_or_else(|| format!("/aws/lambda/{}", name.name), str::to_owned);
    let mut printed = HashSet::new();
    loop {
        let events = client.log_events(&group, since).await?;
        let newest = events.iter().map(|event| event.timestamp).max();
        for event in &events {
            if !printed.contains(&event.event_id) {
                print(event, json)?;
            }
        }
        if !args.follow {
            return Ok(());
        }
        if let Some(newest) = newest.and_then(|newest| Timestamp::from_millisecond(newest).ok()) {
            since = since.max(newest - LATE_BY);
        }
        // Only what the next look can return again has to be remembered.
        printed = events
            .into_iter()
            .filter(|event| event.timestamp >= since.as_millisecond())
            .map(|event| event.event_id)
            .collect();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(event: &Event, json: bool) -> Result<()> {
    if json {
        return output::json(&serde_json::to_value(event)?);
    }
    let at = Timestamp::from_millisecond(event.timestamp).unwrap_or_default();
    output::line(&format!("{} {}", lambent_model::clock::rfc3339_millis(at), event.message.trim_end()))
}

/// `10m` ago, or a point in time.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, WrongUsage> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = text.parse::<SignedDuration>().ok().and_then(|ago| now.checked_sub(ago.abs()).ok());
    ago.ok_or_else(|| WrongUsage(format!("--since takes 10m, 2h or 2026-01-31T12:00:00Z, not {text:?}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_an_age_or_a_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(since("10m", now).unwrap().to_string(), "2026-01-31T11:50:00Z");
        assert_eq!(since("2026-01-30T00:00:00Z", now).unwrap().to_string(), "2026-01-30T00:00:00Z");
        assert!(since("yesterday", now).is_err());
    }
}

//! `lambent events` and `lambent dead-letters`: `[list|show|retry|drop|purge]`.

use anyhow::Result;
use serde_json::{Value, json};

use super::output;
use crate::cli::{EventsAction, EventsArgs, EventsWhich};
use crate::client::{Client, EventFilter};
use crate::config::Env;

pub use lambent_invoker::events::DEAD_LETTERS;

/// Does what was asked, with the events of `queue` unless another is named.
pub async fn run(args: EventsArgs, queue: Option<&str>, env: &dyn Env, json: bool) -> Result<()> {
    let reach = |which: EventsWhich| -> Result<(Client, EventFilter)> {
        let queue = which.queue.or_else(|| queue.map(str::to_owned));
        Ok((Client::new(&which.client, env)?, EventFilter { queue, function: which.function }))
    };
    match args.action {
        None => list(reach(args.which)?, json).await,
        Some(EventsAction::List { which }) => list(reach(which)?, json).await,
        Some(EventsAction::Show { id, which }) => {
            let (client, filter) = reach(which)?;
            let event = client.event(client.event_number(&filter, &id).await?).await?;
            if json { output::json(&event) } else { output::line(&serde_json::to_string_pretty(&event)?) }
        }
        Some(EventsAction::Retry { ids, which }) => {
            let (client, filter) = reach(which)?;
            for id in &ids {
                client.retry_event(client.event_number(&filter, id).await?).await?;
            }
            said(json, "retried", ids.len() as u64)
        }
        Some(EventsAction::Drop { ids, which }) => {
            let (client, filter) = reach(which)?;
            for id in &ids {
                client.drop_event(client.event_number(&filter, id).await?).await?;
            }
            said(json, "dropped", ids.len() as u64)
        }
        Some(EventsAction::Purge { which }) => {
            let (client, filter) = reach(which)?;
            said(json, "dropped", client.purge_events(&filter).await?)
        }
    }
}

fn said(json: bool, what: &str, count: u64) -> Result<()> {
    if json { output::json(&json!({ what: count })) } else { output::line(&format!("{what} {count}")) }
}

async fn list((client, filter): (Client, EventFilter), json: bool) -> Result<()> {
    let events = client.events(&filter).await?;
    if json {
        return output::json(&Value::Array(events));
    }
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    output::table(&["ID", "REQUEST", "FUNCTION", "STATE", "ENQUEUED", "DUE", "ATTEMPTS", "BYTES", "REASON"], &rows)
}

fn row(event: &Value) -> Vec<String> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default().to_string();
    let function = text("function");
    let name = function.rsplit(':').next().unwrap_or("-").to_owned();
    // A second is exact enough for a table.
    let time = |name: &str| text(name).get(..19).map(|time| format!("{time}Z")).unwrap_or_else(|| text(name));
    vec![
        number("id"),
        text("request_id"),
        name,
        text("state"),
        time("enqueued_at"),
        time("due_at"),
        number("attempts"),
        number("payload_bytes"),
        text("reason"),
    ]
}

//! The queue of events, as the node's own API shows it.

use anyhow::{Result, bail};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Client;

const PATH: &str = "/_lambent/events";

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Those in this built-in queue; none: those that are pending or running.
    pub queue: Option<String>,
    /// Only those of this function.
    pub function: Option<String>,
}

impl EventFilter {
    fn query(&self, after: Option<u64>) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = [("queue", &self.queue), ("function", &self.function)];
        let mut query: Vec<String> = (pairs.into_iter())
            .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))))
            .collect();
        query.extend(after.map(|after| format!("after={after}")));
        if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) }
    }
}

fn number(event: &Value) -> Option<u64> {
    event.get("id").and_then(Value::as_u64)
}

impl Client {
    /// Every such event, page by page, handed to `each` until it says that it has seen enough.
    async fn each_event(&self, filter: &EventFilter, mut each: impl FnMut(Value) -> bool) -> Result<()> {
        let mut after = None;
        loop {
            let mut page = self.json(Method::GET, format!("{PATH}{}", filter.query(after)), None).await?;
            let Some(Value::Array(events)) = page.get_mut("events").map(Value::take) else { return Ok(()) };
            after = events.last().and_then(number);
            if events.is_empty() || !events.into_iter().all(&mut each) {
                return Ok(());
            }
        }
    }

    /// Every such event.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        self.each_event(filter, |event| {
            all.push(event);
            true
        })
        .await?;
        Ok(all)
    }

    /// The number of an event that is named by it, or by its request id.
    pub async fn event_number(&self, filter: &EventFilter, id: &str) -> Result<u64> {
        if let Ok(number) = id.parse() {
            return Ok(number);
        }
        let mut found = None;
        self.each_event(filter, |event| {
            if event.get("request_id").and_then(Value::as_str) == Some(id) {
                found = number(&event);
            }
            found.is_none()
        })
        .await?;
        match found {
            Some(number) => Ok(number),
            None => bail!("there is no event {id} here; what ran is not kept, what was given up is in `dead-letters`"),
        }
    }

    /// One event with its content.
    pub async fn event(&self, number: u64) -> Result<Value> {
        self.json(Method::GET, format!("{PATH}/{number}"), None).await
    }

    /// Makes an event due now.
    pub async fn retry_event(&self, number: u64) -> Result<()> {
        self.json(Method::POST, format!("{PATH}/{number}/retry"), None).await.map(drop)
    }

    /// Forgets an event.
    pub async fn drop_event(&self, number: u64) -> Result<()> {
        self.json(Method::DELETE, format!("{PATH}/{number}"), None).await.map(drop)
    }

    /// Forgets all such events; returns how many there were.
    pub async fn purge_events(&self, filter: &EventFilter) -> Result<u64> {
        let answer = self.json(Method::DELETE, format!("{PATH}{}", filter.query(None)), None).await?;
        Ok(answer.get("dropped").and_then(Value::as_u64).unwrap_or_default())
    }
}

//! The read side of the CloudWatch Logs API.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Call, Client};

/// One logged event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The container's stream.
    pub log_stream_name: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// What was written.
    pub message: String,
    /// Its id, unique in the group.
    pub event_id: String,
}

impl Client {
    /// Events of a group from `since` on, oldest first, all pages; none where the group does not exist (yet).
    pub async fn log_events(&self, group: &str, since: Timestamp) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut token = None::<String>;
        loop {
            let first = json!({"logGroupName": group, "startTime": since.as_millisecond()});
            let next =
                |token: String| json!({"logGroupName": group, "startTime": since.as_millisecond(), "nextToken": token});
            let body = token.map_or(first, next);
            let page = match self.logs("FilterLogEvents", &body).await {
                Ok(page) => page,
                Err(error) if not_found(&error) => return Ok(events),
                Err(error) => return Err(error),
            };
            let found = page.get("events").cloned().unwrap_or_else(|| json!([]));
            events.extend(serde_json::from_value::<Vec<Event>>(found).context("the answer is not as the API says")?);
            token = page.get("nextToken").and_then(Value::as_str).map(str::to_owned);
            if token.is_none() {
                return Ok(events);
            }
        }
    }

    async fn logs(&self, operation: &str, body: &Value) -> Result<Value> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        headers.insert("x-amz-target", HeaderValue::from_str(&format!("Logs_20140328.{operation}"))?);
        let body = Bytes::from(serde_json::to_vec(body)?);
        let call = Call { service: "logs", method: Method::POST, path: "/".to_owned(), headers, body };
        let (_, answer) = self.read(call).await?;
        serde_json::from_slice(&answer).context("the answer is no JSON")
    }
}

fn not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<super::ApiError>().is_some_and(|error| error.code == "ResourceNotFoundException")
}

//! Executions and their records, as the node's own API shows them.

use anyhow::Result;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Client;

const PATH: &str = "/_lambent/executions";

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Client {
    /// How requests of a function are told apart.
    pub async fn idempotency(&self, function: &str) -> Result<Value> {
        self.json(Method::GET, format!("/_lambent/functions/{}/idempotency", encode(function)), None).await
    }

    /// Sets that.
    pub async fn set_idempotency(&self, function: &str, setting: &Value) -> Result<Value> {
        self.json(Method::PUT, format!("/_lambent/functions/{}/idempotency", encode(function)), Some(setting)).await
    }

    /// Every record, page by page.
    pub async fn executions(&self, function: Option<&str>) -> Result<Vec<Value>> {
        let function = function.map(|name| format!("&function={}", encode(name))).unwrap_or_default();
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let mut page = self.json(Method::GET, format!("{PATH}?after={after}{function}"), None).await?;
            let Some(Value::Array(found)) = page.get_mut("executions").map(Value::take) else { return Ok(all) };
            all.extend(found);
            match page.get("next").and_then(Value::as_u64) {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// What was learned of calls.
    pub async fn calls(&self, function: Option<&str>) -> Result<Vec<Value>> {
        let function = function.map(|name| format!("?function={}", encode(name))).unwrap_or_default();
        let mut answer = self.json(Method::GET, format!("/_lambent/calls{function}"), None).await?;
        match answer.get_mut("calls").map(Value::take) {
            Some(Value::Array(known)) => Ok(known),
            _ => Ok(Vec::new()),
        }
    }

    /// One record with its answer.
    pub async fn execution(&self, id: u64) -> Result<Value> {
        self.json(Method::GET, format!("{PATH}/{id}"), None).await
    }

    /// Whether a record would be used now.
    pub async fn why_execution(&self, id: u64) -> Result<Value> {
        self.json(Method::GET, format!("{PATH}/{id}/why"), None).await
    }

    /// Forgets a record.
    pub async fn drop_execution(&self, id: u64) -> Result<()> {
        self.json(Method::DELETE, format!("{PATH}/{id}"), None).await.map(drop)
    }

    /// Forgets all records of a function; returns how many there were.
    pub async fn drop_executions(&self, function: &str) -> Result<u64> {
        let answer = self.json(Method::DELETE, format!("{PATH}?function={}", encode(function)), None).await?;
        Ok(answer.get("dropped").and_then(Value::as_u64).unwrap_or_default())
    }
}

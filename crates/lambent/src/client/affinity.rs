//! Which calls of a function belong together, as the node's own API has it.

use anyhow::Result;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Client;

fn path(function: &str) -> String {
    format!("/_lambent/functions/{}/affinity", utf8_percent_encode(function, NON_ALPHANUMERIC))
}

impl Client {
    /// The setting of a function.
    pub async fn affinity(&self, function: &str) -> Result<Value> {
        self.json(Method::GET, path(function), None).await
    }

    /// Sets it.
    pub async fn set_affinity(&self, function: &str, by: &str) -> Result<Value> {
        self.json(Method::PUT, path(function), Some(&json!({ "by": by }))).await
    }

    /// Removes it.
    pub async fn remove_affinity(&self, function: &str) -> Result<Value> {
        self.json(Method::DELETE, path(function), None).await
    }
}

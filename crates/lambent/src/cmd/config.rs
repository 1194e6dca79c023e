//! `lambent config`: what is in force, and where each value came from.

use anyhow::Result;
use serde_json::json;

use super::output;
use crate::cli::ServeArgs;
use crate::config::{self, Env, Use};

/// Prints every key.
pub fn run(args: &ServeArgs, env: &dyn Env, json: bool) -> Result<()> {
    let loaded = config::load(args, env, Use::Serve)?;
    if json {
        let entries = loaded.effective.iter().map(|effective| {
            (effective.key.to_string(), json!({"value": effective.value, "origin": effective.origin.to_string()}))
        });
        return output::json(&serde_json::Value::Object(entries.collect()));
    }
    let rows: Vec<Vec<String>> = loaded
        .effective
        .iter()
        .map(|effective| {
            let value = effective.value.as_ref().map_or_else(|| "(not set)".to_owned(), ToString::to_string);
            vec![effective.key.to_string(), value, effective.origin.to_string()]
        })
        .collect();
    output::table(&["KEY", "VALUE", "FROM"], &rows)
}

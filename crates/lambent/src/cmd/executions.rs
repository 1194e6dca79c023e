//! `lambent executions configure|list|show|why|drop`.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::output;
use crate::cli::{ExecutionsAction, ExecutionsArgs};
use crate::client::Client;
use crate::config::Env;

/// Does what was asked.
pub async fn run(args: ExecutionsArgs, env: &dyn Env, json: bool) -> Result<()> {
    match args.action {
        ExecutionsAction::Configure { function, mode, key, input, on, window, fresh, reuse_errors, client } => {
            let client = Client::new(&client, env)?;
            let setting = match mode {
                None => client.idempotency(&function).await?,
                Some(mode) => {
                    let mut setting = json!({
                        "mode": mode, "input": input, "on": on,
                        "window_secs": window, "fresh_ms": fresh, "reuse_errors": reuse_errors,
                    });
                    if let (Some(key), Some(members)) = (key, setting.as_object_mut()) {
                        members.insert("key".to_owned(), key.into());
                    }
                    client.set_idempotency(&function, &setting).await?
                }
            };
            document(&setting, json)
        }
        ExecutionsAction::List { function, client } => {
            list(Client::new(&client, env)?.executions(function.as_deref()).await?, json)
        }
        ExecutionsAction::Show { id, client } => document(&Client::new(&client, env)?.execution(id).await?, json),
        ExecutionsAction::Why { id, client } => why(&Client::new(&client, env)?.why_execution(id).await?, json),
        ExecutionsAction::Drop { ids, function, client } => {
            let client = Client::new(&client, env)?;
            let dropped = match function {
                Some(function) => client.drop_executions(&function).await?,
                None => {
                    for id in &ids {
                        client.drop_execution(*id).await?;
                    }
                    ids.len() as u64
                }
            };
            if json {
                output::json(&json!({ "dropped": dropped }))
            } else {
                output::line(&format!("dropped {dropped}"))
            }
        }
    }
}

fn document(value: &Value, json: bool) -> Result<()> {
    if json { output::json(value) } else { output::line(&serde_json::to_string_pretty(value)?) }
}

fn text(of: &Value, name: &str) -> String {
    match of.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn list(records: Vec<Value>, json: bool) -> Result<()> {
    if json {
        return output::json(&Value::Array(records));
    }
    // A second is exact enough for a table.
    let time = |of: &Value, name: &str| {
        let text = text(of, name);
        text.get(..19).map(|time| format!("{time}Z")).unwrap_or(text)
    };
    let row = |record: &Value| {
        let function = text(record, "function");
        vec![
            text(record, "id"),
            function.rsplit(':').next().unwrap_or("-").to_owned(),
            text(record, "version"),
            text(record, "mode"),
            text(record, "key"),
            text(record, "state"),
            time(record, "finished_at"),
            time(record, "expires_at"),
            record.get("dependencies").and_then(Value::as_object).map_or(0, Map::len).to_string(),
            text(record, "answer_bytes"),
        ]
    };
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    let names = ["ID", "FUNCTION", "VERSION", "MODE", "KEY", "STATE", "FINISHED", "EXPIRES", "DEPENDENCIES", "BYTES"];
    output::table(&names, &rows)
}

fn why(reason: &Value, json: bool) -> Result<()> {
    if json {
        return output::json(reason);
    }
    let verdict =
        if reason.get("is_reusable") == Some(&Value::Bool(true)) { "would be reused" } else { "would run again" };
    output::line(&format!("{verdict}: {}", text(reason, "because")))?;
    let state = |of: &Value, name: &str| match of.get(name) {
        Some(Value::Object(state)) => {
            let by = state.get("by").and_then(Value::as_str).unwrap_or_default();
            let value = state.get("value").and_then(Value::as_str).unwrap_or_default();
            format!("{by} {value}").trim_end().to_owned()
        }
        _ => "not to be told".to_owned(),
    };
    let each = reason.get("dependencies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let row = |each: &Value| {
        let is_unchanged = each.get("is_unchanged") == Some(&Value::Bool(true));
        let verdict = if is_unchanged { "unchanged" } else { "changed" };
        vec![
            text(each, "name"),
            text(each, "origin"),
            verdict.to_owned(),
            state(each, "recorded"),
            state(each, "current"),
            text(each, "problem"),
        ]
    };
    let rows: Vec<Vec<String>> = each.iter().map(row).collect();
    output::table(&["DEPENDENCY", "ORIGIN", "", "RECORDED", "CURRENT", "PROBLEM"], &rows)
}

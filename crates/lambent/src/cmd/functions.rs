//! `lambent functions [list|get|delete]`.

use anyhow::Result;
use serde_json::{Value, json};

use super::output;
use crate::cli::{FunctionsAction, FunctionsArgs};
use crate::client::Client;
use crate::config::Env;

/// Does what was asked.
pub async fn run(args: FunctionsArgs, env: &dyn Env, json: bool) -> Result<()> {
    match args.action {
        None => list(&Client::new(&args.client, env)?, json).await,
        Some(FunctionsAction::List { client }) => list(&Client::new(&client, env)?, json).await,
        Some(FunctionsAction::Get { function, client }) => {
            let function = Client::new(&client, env)?.function(&function).await?;
            if json { output::json(&function) } else { output::line(&serde_json::to_string_pretty(&function)?) }
        }
        Some(FunctionsAction::Delete { function, qualifier, client }) => {
            Client::new(&client, env)?.delete(&function, qualifier.as_deref()).await?;
            if json {
                output::json(&json!({"deleted": function}))
            } else {
                output::line(&format!("deleted {function}"))
            }
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let functions = client.functions().await?;
    if json {
        return output::json(&Value::Array(functions));
    }
    let rows: Vec<Vec<String>> = functions.iter().map(row).collect();
    output::table(&["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"], &rows)
}

fn row(function: &Value) -> Vec<String> {
    let text = |name: &str| function.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let number = |name: &str| function.get(name).and_then(Value::as_u64).unwrap_or_default();
    vec![
        text("FunctionName"),
        text("Runtime"),
        format!("{} MiB", number("MemorySize")),
        format!("{} s", number("Timeout")),
        format!("{} B", number("CodeSize")),
        text("LastModified"),
    ]
}

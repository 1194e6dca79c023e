//! `lambent invoke`.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{FunctionFailed, output, waterfall};
use crate::cli::InvokeArgs;
use crate::client::{Ask, Client};
use crate::config::Env;

/// Calls a function and prints its answer.
pub async fn run(args: &InvokeArgs, env: &dyn Env, json: bool) -> Result<()> {
    let client = Client::new(&args.client, env)?;
    let payload = payload(args)?;
    if args.stream { stream(args, &client, payload, json).await } else { buffered(args, &client, payload, json).await }
}

fn ask(args: &InvokeArgs) -> Ask<'_> {
    let (tenant, affinity) = (args.tenant_id.as_deref(), args.affinity.as_deref());
    Ask { log: args.log, stages: args.trace, tenant, affinity }
}

async fn buffered(args: &InvokeArgs, client: &Client, payload: Bytes, json: bool) -> Result<()> {
    let ask = ask(args);
    let begun = Instant::now();
    let answer = client.invoke(&args.function, args.qualifier.as_deref(), payload, ask).await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    if json {
        let mut document = json!({
            "payload": as_json(&answer.payload),
            "function_error": answer.function_error,
            "executed_version": answer.executed_version,
            "log": answer.log_tail,
        });
        if args.trace {
            let stages: Map<String, Value> =
                answer.stages.into_iter().map(|(name, took)| (name, took.into())).collect();
            if let Some(fields) = document.as_object_mut() {
                fields.insert(
                    "trace".to_owned(),
                    json!({ "stages_ms": stages, "whole_ms": took, "affinity": answer.affinity }),
                );
            }
        }
        output::json(&document)?;
    } else {
        if let Some(log) = &answer.log_tail {
            eprint!("{log}");
        }
        if args.trace {
            eprint!("{}", waterfall::draw(&answer.stages, took));
            if let Some(found) = &answer.affinity {
                eprintln!("{:15} {found:>14}", "affinity");
            }
        }
        output::bytes(&answer.payload)?;
        output::line("")?;
    }
    match answer.function_error {
        None => Ok(()),
        Some(kind) => Err(FunctionFailed(kind).into()),
    }
}

async fn stream(args: &InvokeArgs, client: &Client, payload: Bytes, json: bool) -> Result<()> {
    let mut whole = Vec::new();
    let each = |chunk: &[u8]| {
        if json {
            whole.extend_from_slice(chunk);
            return Ok(());
        }
        output::bytes(chunk)
    };
    let ended = client.invoke_streaming(&args.function, args.qualifier.as_deref(), ask(args), payload, each);
    let ended = ended.await?;
    if json {
        let error = ended.error.as_ref().map(|(code, details)| json!({"code": code, "details": details}));
        output::json(&json!({"payload": as_json(&whole), "function_error": error}))?;
    } else {
        output::line("")?;
    }
    match ended.error {
        None => Ok(()),
        Some((code, details)) => {
            eprintln!("{code}: {details}");
            Err(FunctionFailed(code).into())
        }
    }
}

/// The answer as the JSON it is, else as text.
fn as_json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).into_owned()))
}

fn payload(args: &InvokeArgs) -> Result<Bytes> {
    match (args.event.as_ref().or(args.payload.as_ref()), &args.payload_file) {
        (Some(text), _) => Ok(Bytes::from(text.clone())),
        (None, Some(path)) if path != Path::new("-") => {
            std::fs::read(path).map(Bytes::from).with_context(|| format!("cannot read {}", path.display()))
        }
        (None, None) if std::io::stdin().is_terminal() => Ok(Bytes::from_static(b"{}")),
        (None, _) => {
            let mut content = Vec::new();
            std::io::stdin().lock().read_to_end(&mut content).context("cannot read standard input")?;
            Ok(if content.is_empty() { Bytes::from_static(b"{}") } else { content.into() })
        }
    }
}

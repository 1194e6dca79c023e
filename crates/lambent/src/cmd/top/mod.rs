//! `lambent top`: what a node's pools, containers and callers are doing, as a table that is drawn anew.
//!
//! Everything comes over the node's API: `/_lambent/status`, which is signed, and `/metrics`. Rates and percentiles are those of the time
//! between two looks; of the first look, those since the node's start.

mod rates;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::output;
use crate::cli::TopArgs;
use crate::client::Client;
use crate::config::Env;
use rates::{FunctionRates, Sample};

/// Most containers that are shown; the others are counted.
const SHOWN: usize = 40;
/// Clears a terminal and goes to its first line.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Shows it, once or until Ctrl-C.
pub async fn run(args: &TopArgs, env: &dyn Env, json: bool) -> Result<()> {
    let client = Client::new(&args.client, env)?;
    let mut before = Sample::default();
    loop {
        let (status, metrics) = tokio::try_join!(client.status(), client.metrics())?;
        let now = Sample::read(&metrics, number(&status, "/node/uptime_ms") / 1000.0);
        let rates = now.since(&before);
        if json {
            output::json(&document(&status, &rates))?;
        } else {
            if !args.once && std::io::stdout().is_terminal() {
                output::bytes(CLEAR)?;
            }
            if args.affinity { draw_affinity(&status)? } else { draw(&status, &rates)? }
        }
        if args.once {
            return Ok(());
        }
        before = now;
        let pause = tokio::time::sleep(Duration::from_secs(args.every));
        tokio::select! {
            () = pause => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The status, with the rates in it.
fn document(status: &Value, rates: &[FunctionRates]) -> Value {
    let mut document = status.clone();
    let functions = rates.iter().map(FunctionRates::json).collect();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("functions".to_owned(), Value::Array(functions));
    }
    json!(document)
}

fn draw(status: &Value, rates: &[FunctionRates]) -> Result<()> {
    let containers = list(status, "/fleet/containers");
    output::line(&format!(
        "up {}   {} calls running   node {}   {} containers, {} of {} MiB promised",
        age(number(status, "/node/uptime_ms")),
        number(status, "/node/calls_running"),
        mib(number(status, "/node/pss_bytes")),
        containers.len(),
        number(status, "/fleet/memory_mib"),
        number(status, "/fleet/memory_limit_mib"),
    ))?;
    let warming: Vec<Vec<String>> = list(status, "/fleet/warming")
        .iter()
        .map(|kind| {
            let count = |name: &str| number(kind, name).to_string();
            vec![text(kind, "kind"), count("/waiting"), count("/building"), count("/target")]
        })
        .collect();
    if !warming.is_empty() {
        output::line("")?;
        output::table(&["WARMING POOL", "WAITING", "BUILDING", "TARGET"], &warming)?;
    }
    if !rates.is_empty() {
        output::line("")?;
        let rows: Vec<_> = rates.iter().map(FunctionRates::row).collect();
        output::table(&["FUNCTION", "CALLS/S", "ERRORS/S", "COLD/S", "P50", "P99"], &rows)?;
    }
    let hosts: Vec<Vec<String>> = list(status, "/fleet/wasm_hosts").iter().map(host).collect();
    if !hosts.is_empty() {
        output::line("")?;
        output::table(&["WASM HOST", "ACCOUNT", "LOADED", "RUNNING", "CPU", "PRIVATE", "SHARED"], &hosts)?;
    }
    if containers.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut sorted: Vec<&Value> = containers.iter().collect();
    sorted.sort_by(|a, b| number(b, "/usage/cpu_ms").total_cmp(&number(a, "/usage/cpu_ms")));
    let rows: Vec<Vec<String>> = sorted.iter().take(SHOWN).map(|container| row(container)).collect();
    output::table(&["CONTAINER", "FUNCTION", "STATE", "AGE", "CALLS", "CPU", "PRIVATE", "SHARED", "LIMIT"], &rows)?;
    let hidden = containers.len().saturating_sub(SHOWN);
    if hidden > 0 { output::line(&format!("... and {hidden} more")) } else { Ok(()) }
}

/// What affinity does, for each function version that had calls with values; whoever has the most of them first.
fn draw_affinity(status: &Value) -> Result<()> {
    let mut all: Vec<&Value> = list(status, "/fleet/affinity").iter().collect();
    if all.is_empty() {
        return output::line("no calls with an affinity value yet");
    }
    let calls = |of: &Value| ["/hits", "/misses", "/spills"].iter().map(|name| number(of, name)).sum::<f64>();
    all.sort_by(|a, b| calls(b).total_cmp(&calls(a)));
    let rows: Vec<Vec<String>> = all.into_iter().map(|of| affinity(of, calls(of))).collect();
    output::table(&["FUNCTION", "VALUES", "CONTAINERS", "CALLS", "HITS", "SPILLS", "GAIN", "STORED"], &rows)
}

fn affinity(of: &Value, calls: f64) -> Vec<String> {
    let function = text(of, "function");
    let name = function.splitn(7, ':').nth(6).unwrap_or(&function).to_owned();
    let share = |pointer: &str| format!("{:.1} %", 100.0 * number(of, pointer) / calls.max(1.0));
    let gain = of.pointer("/gain_ms").and_then(Value::as_f64);
    vec![
        name,
        number(of, "/values").to_string(),
        number(of, "/containers").to_string(),
        calls.to_string(),
        share("/hits"),
        share("/spills"),
        gain.map_or_else(|| "-".to_owned(), |gain| format!("{gain:.2} ms")),
        mib(number(of, "/bytes")),
    ]
}

fn row(container: &Value) -> Vec<String> {
    // An ARN's last parts: the function and its version.
    let function = text(container, "function");
    let name = function.splitn(7, ':').nth(6).unwrap_or(&function).to_owned();
    let [cpu, private, shared] = usage(container);
    vec![
        text(container, "id").chars().take(8).collect(),
        name,
        text(container, "state"),
        age(number(container, "/age_ms")),
        number(container, "/calls").to_string(),
        cpu,
        private,
        shared,
        format!("{} MiB", number(container, "/memory_mib")),
    ]
}

/// A host process of WebAssembly functions; one without account waits for the next.
fn host(host: &Value) -> Vec<String> {
    let [cpu, private, shared] = usage(host);
    let count = |pointer: &str| number(host, pointer).to_string();
    let id = text(host, "id").chars().take(8).collect();
    vec![id, text(host, "account"), count("/loaded"), count("/running"), cpu, private, shared]
}

/// CPU time, memory of its own and shared memory; dashes where they are not known.
fn usage(of: &Value) -> [String; 3] {
    let used = |pointer: &str, show: fn(f64) -> String| {
        of.pointer(pointer).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), show)
    };
    [
        used("/usage/cpu_ms", |millis| format!("{:.2} s", millis / 1000.0)),
        used("/usage/private_bytes", mib),
        used("/usage/shared_bytes", mib),
    ]
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("-").to_owned()
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1_048_576.0)
}

fn age(millis: f64) -> String {
    let seconds = (millis / 1000.0).floor();
    match seconds {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} min", (s / 60.0).floor()),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_is_a_row() {
        let of = json!({
            "function": "arn:aws:lambda:us-east-1:000000000000:function:model:$LATEST", "values": 100, "containers": 10,
            "hits": 900, "misses": 100, "spills": 0, "gain_ms": 51.25, "bytes": 104_857_600,
        });
        let expected = ["model:$LATEST", "100", "10", "1000", "90.0 %", "0.0 %", "51.25 ms", "100.0 MiB"];
        assert_eq!(affinity(&of, 1_000.0), expected);
        assert_eq!(affinity(&json!({ "gain_ms": null }), 0.0).get(6).map(String::as_str), Some("-"));
    }

    #[test]
    fn a_container_is_a_row() {
        let container = json!({
            "id": "0123456789", "function": "arn:aws:lambda:us-east-1:000000000000:function:hello:3", "state": "idle",
            "age_ms": 125_000, "calls": 7, "memory_mib": 128,
            "usage": { "cpu_ms": 1500, "private_bytes": 1_048_576, "shared_bytes": 524_288 },
        });
        let expected = ["01234567", "hello:3", "idle", "2 min", "7", "1.50 s", "1.0 MiB", "0.5 MiB", "128 MiB"];
        assert_eq!(row(&container), expected);
        let spare =
            json!({ "id": "0123456789", "account": null, "loaded": 0, "running": 0, "usage": container["usage"] });
        assert_eq!(host(&spare), ["01234567", "-", "0", "0", "1.50 s", "1.0 MiB", "0.5 MiB"]);
        let starting = json!({ "id": "x", "function": "f", "state": "starting", "usage": null });
        assert_eq!(row(&starting).get(5).map(String::as_str), Some("-"));
    }
}

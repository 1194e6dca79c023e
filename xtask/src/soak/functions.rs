//! What is called: functions on each kind of runtime that this machine has. Each answers with the number that its event holds.

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use crate::api::{Api, zip};
use crate::run;

const PYTHON: &str =
    "import time\ndef handler(event, context):\n    time.sleep(event['ms'] / 1000)\n    return event['n']\n";
const NODE: &str = "exports.handler = async (event) => {\n  await new Promise((done) => setTimeout(done, event.ms));\n  \
                    return event.n;\n};\n";
const SHELL: &str = r#"#!/bin/bash
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
    event=$(curl -sS -D /tmp/headers "$api/next") || exit 1
    id=$(tr -d '\r' < /tmp/headers | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p')
    n=${event##*\"n\":}
    curl -sS -o /dev/null -d "${n%%[,\}]*}" "$api/$id/response" || exit 1
done
"#;
const EXTENSION: &str = r#"#!/bin/bash
api="http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension"
id=$(curl -sS -o /dev/null -D - -H "Lambda-Extension-Name: ${0##*/}" -d '{"events":["INVOKE","SHUTDOWN"]}' "$api/register" |
    tr -d '\r' | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: *//p')
while event=$(curl -sS --fail -H "Lambda-Extension-Identifier: $id" "$api/event/next"); do
    case $event in *SHUTDOWN*) exit 0 ;; esac
done
"#;

/// Seconds a call may run: what is stopped costs its caller this long.
pub const TIMEOUT_SECONDS: u64 = 2;

/// Creates them all, with names that begin with `prefix`; the names, one for each share of the calls.
pub async fn create(api: &Api, prefix: &str) -> Result<Vec<String>> {
    let (python, node) = (python(), node());
    let curl = run::which("curl").is_some();
    let mut names = Vec::new();
    let mut wanted = Vec::new();
    match python {
        Some(runtime) => wanted.extend([
            ("python", "app.py", PYTHON, runtime.clone(), false),
            ("watched", "app.py", PYTHON, runtime, true),
        ]),
        None => eprintln!("skipped: functions on Python, which this machine lacks"),
    }
    match node {
        Some(runtime) => wanted.push(("node", "app.js", NODE, runtime, false)),
        None => eprintln!("skipped: the function on Node.js, which this machine lacks"),
    }
    if curl {
        wanted.push(("shell", "bootstrap", SHELL, "provided.al2023".to_owned(), false));
    } else {
        eprintln!("skipped: functions in shell and extensions, which need curl");
        wanted.retain(|(.., watched)| !watched);
    }
    if wanted.is_empty() {
        bail!("there is nothing here to run functions on");
    }
    let layer = publish_layer(api, prefix).await?;
    for (name, file, source, runtime, watched) in wanted {
        let name = format!("{prefix}{name}");
        let layers: Vec<&Value> = if watched { vec![&layer] } else { Vec::new() };
        create_one(api, &name, &runtime, &zip(file, source.as_bytes())?, &layers).await?;
        names.push(name);
    }
    Ok(names)
}

async fn create_one(api: &Api, name: &str, runtime: &str, code: &str, layers: &[&Value]) -> Result<()> {
    let wanted = json!({
        "FunctionName": name,
        "Runtime": runtime,
        "Timeout": TIMEOUT_SECONDS,
        // A fair share of a processor, so that what is not harmed ends in time also on a busy machine.
        "MemorySize": 512,
        "Layers": layers,
        "Code": { "ZipFile": code },
    });
    api.create(wanted).await
}

/// The ARN of a layer with one extension.
async fn publish_layer(api: &Api, prefix: &str) -> Result<Value> {
    let path = format!("/2018-10-31/layers/{prefix}watcher/versions");
    let content = json!({ "Content": { "ZipFile": zip("extensions/watcher", EXTENSION.as_bytes())? } });
    let published = api.control(Method::POST, &path, &content).await?;
    Ok(published.get("LayerVersionArn").cloned().unwrap_or_default())
}

/// The runtime that this machine's Python is.
pub fn python() -> Option<String> {
    version("python3", &["-c", "import sys; print('python%d.%d' % sys.version_info[:2])"])
}

/// The runtime that this machine's Node.js is.
pub fn node() -> Option<String> {
    version("node", &["-p", "`nodejs${process.versions.node.split('.')[0]}.x`"])
}

/// What a program says of its version, where there is such a program.
fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let output = run::command(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

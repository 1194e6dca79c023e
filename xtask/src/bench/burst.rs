//! `cargo xtask bench burst`: two hundred requests at once to a Python function without a container.
//!
//! All of them must be answered well; a failed one fails the bench. Meanwhile another function, warm, is called by one client without a
//! pause: what its callers see before the burst is the peer of what they see during it. The emulator cannot take part: it dies of a
//! second request at once.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::install;
use super::load::{self, Asked, Target};
use super::report::{self, Metric};
use super::servers::Lambent;
use crate::api::{self, Api};
use crate::soak::functions::python;

/// How to run it.
#[derive(clap::Args)]
pub struct BurstArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns, each on a fresh node.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Requests at once.
    #[arg(long, default_value_t = 200)]
    requests: usize,
    /// How long the handler takes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    handler_ms: u32,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// How long the other function is called before the burst.
const BEFORE: Duration = Duration::from_secs(2);
const MEMORY_MIB: u32 = 128;

/// What one turn saw, in milliseconds.
struct Turn {
    burst: Vec<f64>,
    containers: f64,
    before: Vec<f64>,
    during: Vec<f64>,
}

/// Runs it.
pub fn run(args: &BurstArgs) -> Result<()> {
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let mut turns = Vec::new();
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        turns.push(measure(&lambent, args.requests, args.handler_ms)?);
    }
    let of = |each: &dyn Fn(&Turn) -> f64| turns.iter().map(each).collect::<Vec<_>>();
    let at = |percent: usize, which: fn(&Turn) -> &Vec<f64>| of(&move |turn| report::percentile(which(turn), percent));
    let metric = |case: &str, name: &str, unit, lambent, peer| Metric {
        case: case.to_owned(),
        name: name.to_owned(),
        unit,
        lambent,
        peer,
    };
    let metrics = [
        metric("python", "p50", "ms", at(50, |turn| &turn.burst), Vec::new()),
        metric("python", "p99", "ms", at(99, |turn| &turn.burst), Vec::new()),
        metric("python", "containers", "", of(&|turn| turn.containers), Vec::new()),
        metric("other-function", "p50", "ms", at(50, |turn| &turn.during), at(50, |turn| &turn.before)),
        metric("other-function", "p99", "ms", at(99, |turn| &turn.during), at(99, |turn| &turn.before)),
    ];
    report::print("burst", "before the burst", &metrics, args.json);
    Ok(())
}

fn measure(binary: &Path, requests: usize, handler_ms: u32) -> Result<Turn> {
    let node = Lambent::start_with(binary, &[], Stdio::inherit())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let runtime = python().context("this machine has no Python")?;
    for (name, ms) in [("burst", handler_ms), ("other", 0)] {
        let source =
            format!("import time\n\n\ndef handler(event, context):\n    time.sleep({ms} / 1000)\n    return event\n");
        let code = json!({ "ZipFile": api::zip("app.py", source.as_bytes())? });
        let wanted = json!({
            "FunctionName": name,
            "Runtime": runtime,
            "MemorySize": MEMORY_MIB,
            "Timeout": 30,
            "Code": code,
        });
        api::block_on(api.create(wanted))?;
    }
    let target = |name: &str| Target {
        address: node.address,
        path: format!("/2015-03-31/functions/{name}/invocations"),
        key: Some(node.key.clone()),
        asked: Asked::Answer,
    };
    let (burst, other) = (target("burst"), target("other"));
    load::latencies(&other, 200, 1)?;
    let stop = AtomicBool::new(false);
    let (answers, began, others) = std::thread::scope(|scope| {
        let calls = scope.spawn(|| load::stream(&other, &stop));
        #[expect(clippy::disallowed_methods, reason = "the other function is watched for that long, whatever happens")]
        std::thread::sleep(BEFORE);
        let began = Instant::now();
        let answers = load::burst(&burst, requests);
        stop.store(true, Ordering::Relaxed);
        (answers, began, calls.join())
    });
    let others = others.map_err(|_| anyhow::anyhow!("a client panicked"))??;
    let answers = answers?;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
        bail!("{failed} of {requests} requests failed, one of them so: {error:#}");
    }
    let millis = |took: &Duration| took.as_secs_f64() * 1000.0;
    let (before, during): (Vec<_>, Vec<_>) = others.iter().partition(|(at, took)| *at + *took < began);
    let containers = api::sum(&api.metrics()?, "lambent_cold_starts_total{function=\"burst\"}");
    Ok(Turn {
        burst: answers.iter().flatten().map(millis).collect(),
        containers,
        before: before.iter().map(|(_, took)| millis(took)).collect(),
        during: during.iter().map(|(_, took)| millis(took)).collect(),
    })
}

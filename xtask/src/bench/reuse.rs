//! `cargo xtask bench reuse`: an answer on record beside the cheapest warm Python call, on one node, turn by turn.
//!
//! The same function under two names, called by one client over signed HTTP: `runs` runs each time, `reuses` has its input as its only
//! dependency beside its code, so it ran once.

use anyhow::{Context as _, Result};

use super::install::{self, Function};
use super::load::{self, Asked, Target};
use super::report::{self, Metric};
use super::servers::Lambent;

/// How to run it.
#[derive(clap::Args)]
pub struct ReuseArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Calls by one client in a turn.
    #[arg(long, default_value_t = 2000)]
    calls: usize,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<std::path::PathBuf>,
}

/// Calls before it counts.
const WARM_UP_CALLS: usize = 300;
/// One whole CPU, so that Lambda's CPU share is not what is measured.
const MEMORY_OF_ONE_CPU: u32 = 1769;
/// The cheapest there is.
const CODE: &str = "def handler(event, context):\n    return event\n";

/// Runs it.
pub fn run(args: &ReuseArgs) -> Result<()> {
    let binary = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("app.py"), CODE)?;
    let function = Function { case: "python", dir: dir.path().to_owned(), handler: "app.handler" };
    let node = Lambent::start(&binary)?;
    for name in ["runs", "reuses"] {
        node.deploy_runtime(name, &function, &runtime()?, MEMORY_OF_ONE_CPU)?;
    }
    node.client(&["executions", "configure", "reuses", "--mode", "dependencies"])?;
    let mut millis: [[Vec<f64>; 2]; 2] = Default::default();
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        for (name, [p50, p99]) in ["reuses", "runs"].into_iter().zip(&mut millis) {
            let path = format!("/2015-03-31/functions/{name}/invocations");
            let target = Target { address: node.address, path, key: Some(node.key.clone()), asked: Asked::Answer };
            let sorted: Vec<f64> = load::latencies(&target, WARM_UP_CALLS, args.calls)?
                .iter()
                .map(|latency| latency.as_secs_f64() * 1000.0)
                .collect();
            p50.push(report::percentile(&sorted, 50));
            p99.push(report::percentile(&sorted, 99));
        }
    }
    let kept = node.client(&["executions", "list", "--function", "reuses"])?;
    anyhow::ensure!(kept.as_array().is_some_and(|records| records.len() == 1), "it ran more than once: {kept}");
    let [[reused_p50, reused_p99], [ran_p50, ran_p99]] = millis;
    let metric = |name: &str, lambent, peer| Metric {
        case: function.case.to_owned(),
        name: name.to_owned(),
        unit: "ms",
        lambent,
        peer,
    };
    let metrics = [metric("p50", reused_p50, ran_p50), metric("p99", reused_p99, ran_p99)];
    report::print("reuse", "warm-python-call", &metrics, args.json);
    Ok(())
}

/// The newest Python that a node of this machine would find by its ordinary name.
pub(super) fn runtime() -> Result<String> {
    let found = std::process::Command::new("python3").arg("--version").output().context("there is no python3")?;
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let version = text.trim().strip_prefix("Python ").and_then(|version| version.rsplit_once('.'));
    version.map(|(minor, _)| format!("python{minor}")).with_context(|| format!("python3 says {text:?}"))
}

//! `cargo xtask bench affinity`: a Python function that keeps a model of 50 MB for each key, as many as fit, in at most ten containers; with
//! its key as routing parameter, and without.
//!
//! A round with every key, then random keys, ten clients at once. What counts is what the function sees: whether it had the model.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::install::{self, Function};
use super::load;
use super::report::{self, Metric};
use super::reuse::runtime;
use super::servers::Lambent;
use crate::soak::Chance;
use anyhow::{Context as _, Result, bail};

/// How to run it.
#[derive(clap::Args)]
pub struct AffinityArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Calls after the first round.
    #[arg(long, default_value_t = 1000)]
    calls: usize,
    /// Size of a model.
    #[arg(long, default_value_t = 50, value_name = "MIB")]
    model: u32,
    /// Models that fit into a container: 13 are a quarter more than its even share, 10 are none to spare.
    #[arg(long, default_value_t = 13)]
    fits: u32,
    /// Decides about the keys.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<std::path::PathBuf>,
}

const KEYS: u64 = 100;
const CLIENTS: usize = 10;
const CONTAINERS: &str = "fleet.containers=10";
/// What Python needs beside them.
const BESIDE_MIB: u32 = 128;
/// Loading writes every page, as reading a file would.
const CODE: &str = "\
import collections
models = collections.OrderedDict()
def handler(event, context):
    key = event['key']
    hit = key in models
    if hit:
        models.move_to_end(key)
    else:
        while len(models) >= event['most']:
            models.popitem(last=False)
        model = bytearray(event['mib'] << 20)
        for at in range(0, len(model), 4096):
            model[at] = 1
        models[key] = model
    return {'hit': hit, 'value': models[key][0]}
";

/// Runs it.
pub fn run(args: &AffinityArgs) -> Result<()> {
    let binary = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("app.py"), CODE)?;
    let function = Function { case: "models", dir: dir.path().to_owned(), handler: "app.handler" };
    let (mut shares, mut p50s): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        for (has_affinity, (share, p50)) in [true, false].into_iter().zip(shares.iter_mut().zip(&mut p50s)) {
            // A node of its own: what one leaves is not in the other's way.
            let node = Lambent::start_with(&binary, &[CONTAINERS], std::process::Stdio::inherit())?;
            node.deploy_runtime("models", &function, &runtime()?, args.fits * args.model + BESIDE_MIB)?;
            if has_affinity {
                node.client(&["affinity", "set", "models", "$.key"])?;
            }
            calls(&node, args, &(0..KEYS).collect::<Vec<_>>())?;
            let mut chance = Chance(args.seed);
            let keys: Vec<u64> = (0..args.calls).map(|_| chance.below(KEYS)).collect();
            let seen = calls(&node, args, &keys)?;
            let hits = u32::try_from(seen.iter().filter(|(hit, _)| *hit).count())?;
            share.push(100.0 * f64::from(hits) / f64::from(u32::try_from(seen.len())?));
            p50.push(report::percentile(&seen.iter().map(|(_, millis)| *millis).collect::<Vec<_>>(), 50));
        }
    }
    let ([with, without], [with_p50, without_p50]) = (shares, p50s);
    let metric = |name: &str, unit, lambent, peer| Metric {
        case: function.case.to_owned(),
        name: name.to_owned(),
        unit,
        lambent,
        peer,
    };
    let metrics = [metric("hits", "%", with, without), metric("p50", "ms", with_p50, without_p50)];
    report::print("affinity", "any-container", &metrics, args.json);
    Ok(())
}

/// Calls with these keys, by ten clients: whether each found its model, and the milliseconds it took.
fn calls(node: &Lambent, args: &AffinityArgs, keys: &[u64]) -> Result<Vec<(bool, f64)>> {
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let client = || -> Result<()> {
        while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
            let event = serde_json::json!({"key": key, "mib": args.model, "most": args.fits}).to_string();
            let path = "/2015-03-31/functions/models/invocations";
            let (answer, took) = load::one(node.address, path, &node.key, event.as_bytes())?;
            let hit = answer.get("hit").and_then(serde_json::Value::as_bool).context("it does not say")?;
            let Ok(mut seen) = seen.lock() else { bail!("a client panicked") };
            seen.push((hit, took.as_secs_f64() * 1000.0));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
    })?;
    seen.into_inner().map_err(|_| anyhow::anyhow!("a client panicked"))
}

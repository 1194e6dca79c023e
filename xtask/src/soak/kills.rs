//! `cargo xtask soak kills`: calls through the signed API into real cells, while runtimes, extensions, agents and the nursery are killed
//! from outside at random.
//!
//! Every call must end in an answer, an error of the function that harm explains, or a refusal that AWS documents. Before the harm, at
//! each quarter and at the end the node is left alone until its idle containers have been ended; what it holds of its host must then be
//! what it was before, and its memory flat. After its own end nothing may be left at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::calls::{self, CLIENTS, Pace, Plan, Tally};
use super::census::{PATIENCE, Subject};
use super::functions;
use super::harm::{Chance, Harm};
use super::procs;
use super::verdict::Findings;
use crate::api::{self, Api};
use crate::bench::install;
use crate::bench::servers::Lambent;
use crate::run;
use crate::test::Outcome;

/// How to run it.
#[derive(clap::Args)]
pub struct KillsArgs {
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Calls under harm.
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// What decides which calls are made and whom blows hit.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Calls of the soak that every change must pass.
const SMALL: u64 = 600;
/// An idle container's life here: short, so that ends by idleness happen among the calls as well.
const IDLE: &str = "fleet.idle=1s";
/// As many instances of a kind wait whatever was called: what the node holds of its host can then be compared before and after.
const POOL: [&str; 2] = ["pool.floor=2", "pool.ceiling=2"];
/// Calls before any harm, for each client: enough that every function has had as many containers as it will ever have.
const WARM_UP_CALLS: u64 = 40;

/// Runs it; an error when anything is wrong.
pub fn run(args: &KillsArgs) -> Result<()> {
    let binary = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let findings = soak(&binary, args.calls, args.seed)?;
    findings.print(args.json);
    if findings.faults().is_empty() { Ok(()) } else { Err(run::Failed.into()) }
}

/// A small one with the binary that was just built for tests, where the host can isolate at all.
pub fn small() -> Result<Outcome> {
    let binary = run::lambent_for_tests()?;
    if !run::is_root() && !can_run(&binary)? {
        return Ok(Outcome::Skipped(
            "an ordinary user cannot run functions with a network here: see `lambent doctor`".to_owned(),
        ));
    }
    run(&KillsArgs { json: false, calls: SMALL, seed: 1, binary: Some(binary) })?;
    Ok(Outcome::Passed)
}

/// Whether a node of an ordinary user can make cells, and give them the network that functions have unless told otherwise.
fn can_run(binary: &Path) -> Result<bool> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    Ok(device.is_ok() && run::command(binary).arg("doctor").output()?.status.success())
}

fn soak(binary: &Path, total: u64, seed: u64) -> Result<Findings> {
    let scratch = tempfile::tempdir()?;
    let log = scratch.path().join("log");
    let settings = [&[IDLE], POOL.as_slice()].concat();
    let node = Lambent::start_with(binary, &settings, std::fs::File::create(&log)?.into())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let subject = Subject { node: node.pid(), address: node.address, patience: PATIENCE };
    let names = api::block_on(functions::create(&api, "soak-"))?;

    let mut chance = Chance(seed);
    let mut round = |calls, first, orders, tally| {
        let chance = Chance(chance.below(u64::MAX));
        calls::run(&api, Plan { functions: &names, calls, first, pace: Pace::Steady, chance, orders }, tally)
    };
    let warm_up = WARM_UP_CALLS * CLIENTS as u64;
    let mut tally = round(warm_up, 0, None, Tally::default())?;
    if tally.answered() as u64 != warm_up {
        anyhow::bail!("calls fail without any harm: {:?} {:?}", tally.outcomes, tally.faults);
    }
    tally = Tally::default();
    let mut counts = vec![subject.begin()];
    let harm = Harm::to(node.pid(), seed);
    for quarter in 1..=4 {
        let until = total * quarter / 4;
        let first = tally.calls() as u64;
        tally = round(until.saturating_sub(first), first, Some(harm.orders()), tally)?;
        let settled = counts.first().map(|before| subject.settle(tally.calls(), before));
        counts.extend(settled);
        eprintln!("{} of {total} calls", tally.calls());
    }
    let struck = harm.end();
    let after = end(node, &subject, &log)?;
    Ok(Findings { soak: "kills", seed, calls: total, tally, struck, counts, after })
}

/// Ends the node; what is left of it, and what its log says went wrong inside.
pub fn end(node: Lambent, subject: &Subject, log: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let before = subject.descendants();
    let status = node.stop()?;
    if !status.success() {
        faults.push(format!("the node ended with {status}"));
    }
    let outlived = before.iter().filter(|process| procs::runs(process));
    faults.extend(outlived.map(|process| format!("{} ({}) outlives the node", process.name, process.pid)));
    let cgroups = subject.cgroups();
    if cgroups > 0 {
        faults.push(format!("{cgroups} cgroups outlive the node"));
    }
    let text = std::fs::read_to_string(log).context("the node's log")?;
    faults.extend(
        text.lines().filter(|line| line.contains("panicked")).take(5).map(|line| format!("the node's log: {line}")),
    );
    Ok(faults)
}

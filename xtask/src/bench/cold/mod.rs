//! `cargo xtask bench cold`: from a request until the first line of user code runs, where no container of the function is there.
//!
//! Every function's first line takes the time of the clock that the client took before it sent the request; the function answers with
//! it. Under Lambent the request is signed and goes over the API. A change of the configuration before each call makes sure that its
//! container is made anew; the cases `…-empty-pool` run on a node without a warming pool, so that all of it is made in the request's way.
//!
//! The case `wasm` has an instance made in place of a container, in the host process of its account, and no peer: what `wasmtime serve`
//! takes for that is in `bench wasm`.
//!
//! Peers, in the same run and turn by turn: the AWS Runtime Interface Emulator, started anew (it listens before the request is sent, as
//! the node does) with the official client of the language; and `crun`, which starts the same interpreter with the same file in a
//! container of six namespaces and a memory limit, measured from the start of `crun` (no request, no client). Neither signs anything.

mod case;
mod clone;
mod crun;
mod node;

use anyhow::Result;

use super::report::{self, Metric};
use super::servers::Emulator;
use super::{install, load};
use case::Case;

/// How to run it.
#[derive(clap::Args)]
pub struct ColdArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Cold calls of Lambent in a turn.
    #[arg(long, default_value_t = 40)]
    calls: usize,
    /// Starts of each peer in a turn.
    #[arg(long, default_value_t = 10)]
    peer_calls: usize,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<std::path::PathBuf>,
    /// Only this case and its `-empty-pool`; or `clone-boto3`.
    #[arg(long)]
    case: Option<String>,
}

/// What was measured of one thing that starts functions, turn by turn, in milliseconds.
#[derive(Default)]
pub struct Turns {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Turns {
    fn add(&mut self, samples: &[f64]) {
        if !samples.is_empty() {
            self.p50.push(report::percentile(samples, 50));
            self.p99.push(report::percentile(samples, 99));
        }
    }
}

/// Everything measured of one case.
#[derive(Default)]
struct Measured {
    pool: Turns,
    pool_answer: Turns,
    empty: Turns,
    empty_answer: Turns,
    emulator: Turns,
    crun: Turns,
}

/// Runs it.
pub fn run(args: &ColdArgs) -> Result<()> {
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    if args.case.as_deref() == Some(clone::NAME) {
        return clone::run(args, &lambent);
    }
    // A component has no peer; all others are installed before the functions, which use the same environment.
    let has_peers = args.case.as_deref() != Some("wasm");
    let emulator = if has_peers { Some(install::emulator()?) } else { None };
    let crun = if has_peers { crun::Crun::find()? } else { None };
    let can_be_empty = node::can_be_empty(&lambent)?;
    if !can_be_empty {
        eprintln!("skipped: the cases with an empty pool; this binary cannot be told to keep none");
    }
    let cases = case::all(args.case.as_deref())?;
    let mut measured: Vec<Measured> = cases.iter().map(|_| Measured::default()).collect();
    for turn in 1..=args.runs {
        for (case, measured) in cases.iter().zip(&mut measured) {
            eprintln!("turn {turn} of {}: {}", args.runs, case.name);
            if let (Some(emulator), Some(function)) = (&emulator, &case.emulator) {
                let one = |_| Ok(load::until_user_code(&Emulator::start(emulator, function)?.target())?.0);
                measured.emulator.add(&(0..args.peer_calls).map(one).collect::<Result<Vec<_>>>()?);
            }
            if let Some(crun) = crun.as_ref().filter(|_| case.is_program()) {
                let one = |_| crun.until_user_code(&case.argv, &case.dir);
                measured.crun.add(&(0..args.peer_calls).map(one).collect::<Result<Vec<_>>>()?);
            }
            let turns = [
                (node::Pool::Full, &mut measured.pool, &mut measured.pool_answer),
                (node::Pool::Empty, &mut measured.empty, &mut measured.empty_answer),
            ];
            for (pool, user_code, answer) in
                turns.into_iter().take(if can_be_empty && case.is_program() { 2 } else { 1 })
            {
                let (began, answered): (Vec<f64>, Vec<f64>) =
                    node::measure(&lambent, case, pool, args.calls)?.into_iter().unzip();
                user_code.add(&began);
                answer.add(&answered);
            }
        }
    }
    for (peer, of) in [("aws-lambda-rie", emulator_of as fn(&Measured) -> &Turns), ("crun", crun_of)] {
        let metrics: Vec<Metric> =
            cases.iter().zip(&measured).flat_map(|(case, all)| metrics(case, all, of(all))).collect();
        report::print("cold", peer, &metrics, args.json);
    }
    if args.case.is_none() {
        clone::run(args, &lambent)?;
    }
    Ok(())
}

fn emulator_of(measured: &Measured) -> &Turns {
    &measured.emulator
}

fn crun_of(measured: &Measured) -> &Turns {
    &measured.crun
}

/// A case's lines beside one peer. How long the answer took is the node's alone.
fn metrics(case: &Case, measured: &Measured, peer: &Turns) -> Vec<Metric> {
    let metric = |case: &str, name: &str, lambent: &[f64], peer: &[f64]| {
        let (case, name) = (case.to_owned(), name.to_owned());
        Metric { case, name, unit: "ms", lambent: lambent.to_vec(), peer: peer.to_vec() }
    };
    let kinds = [
        (case.name.to_owned(), &measured.pool, &measured.pool_answer),
        (format!("{}-empty-pool", case.name), &measured.empty, &measured.empty_answer),
    ];
    let lines = |(name, ours, answer): (String, &Turns, &Turns)| {
        [
            metric(&name, "p50", &ours.p50, &peer.p50),
            metric(&name, "p99", &ours.p99, &peer.p99),
            metric(&name, "answer_p50", &answer.p50, &[]),
        ]
    };
    kinds.into_iter().filter(|(_, ours, _)| !ours.p50.is_empty()).flat_map(lines).collect()
}

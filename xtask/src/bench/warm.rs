//! `cargo xtask bench warm`: warm invocations of the same function under Lambent and under the AWS Runtime Interface Emulator.
//!
//! Both run the same `bootstrap` of the same directory. What differs is what each is: Lambent checks a signature on every call and
//! keeps the function in a cell; the emulator does neither, serves one call at a time and dies on a second at once, so it is measured
//! with one client only. Runs alternate, so that a machine that slows down slows both.
//!
//! A second comparison says how much of a call is anybody's doing at all: a [`Relay`] between client and function that does nothing else.

use std::time::Duration;

use anyhow::Result;

use super::install::{self, Function};
use super::load::{self, Asked, Target};
use super::relay::Relay;
use super::report::{self, Metric};
use super::servers::{Emulator, Lambent};

/// How to run it.
#[derive(clap::Args)]
pub struct WarmArgs {
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
    /// Only this case.
    #[arg(long)]
    case: Option<String>,
}

/// Calls before it counts.
const WARM_UP_CALLS: usize = 300;
/// Time before it counts; with many clients their containers are made in it.
const WARM_UP: Duration = Duration::from_secs(6);
/// Time that counts.
const COUNTED: Duration = Duration::from_secs(4);
/// Clients at once, beside one.
const CROWDS: [usize; 2] = [16, 64];
/// One whole CPU, so that Lambda's CPU share is not what is measured.
const MEMORY_OF_ONE_CPU: u32 = 1769;
/// As much as 64 containers can have on a machine of 24 GiB.
const MEMORY_IN_A_CROWD: u32 = 320;

/// Everything that one case measured.
struct Case {
    function: Function,
    lambent: Alone,
    emulator: Alone,
    relay: Alone,
    /// Lambent's calls per second for each of [`CROWDS`].
    crowds: Vec<Vec<f64>>,
    /// The relay's, with as many functions.
    relay_crowds: Vec<Vec<f64>>,
}

/// What one client saw of one server, turn by turn.
#[derive(Default)]
struct Alone {
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
    memory: Vec<f64>,
}

/// Runs it.
pub fn run(args: &WarmArgs) -> Result<()> {
    let emulator = install::emulator()?;
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let mut cases: Vec<Case> = [install::python()?, install::rust()?].into_iter().map(Case::new).collect();
    cases.retain(|case| args.case.as_ref().is_none_or(|wanted| case.function.case == wanted));
    for turn in 1..=args.runs {
        for case in &mut cases {
            eprintln!("turn {turn} of {}: {}", args.runs, case.function.case);
            case.emulator(&Emulator::start(&emulator, &case.function)?, args.calls)?;
            case.lambent(&Lambent::start(&lambent)?, args.calls)?;
            case.relay(args.calls)?;
        }
    }
    let bare: Vec<Metric> = cases.iter().flat_map(Case::beside_relay).collect();
    let metrics: Vec<Metric> = cases.into_iter().flat_map(Case::metrics).collect();
    report::print("warm", "aws-lambda-rie", &metrics, args.json);
    report::print("warm", "bare-relay", &bare, args.json);
    Ok(())
}

impl Case {
    fn new(function: Function) -> Self {
        let (lambent, emulator, relay) = Default::default();
        let crowds = vec![Vec::new(); CROWDS.len()];
        Self { function, lambent, emulator, relay, relay_crowds: crowds.clone(), crowds }
    }

    fn emulator(&mut self, emulator: &Emulator, calls: usize) -> Result<()> {
        self.emulator.measure(&emulator.target(), calls)?;
        self.emulator.memory.push(emulator.resident_mib()?);
        Ok(())
    }

    fn relay(&mut self, calls: usize) -> Result<()> {
        let target =
            |relay: &Relay| Target { address: relay.address, path: "/".to_owned(), key: None, asked: Asked::Answer };
        self.relay.measure(&target(&Relay::start(&self.function, 1)?), calls)?;
        for (clients, rates) in CROWDS.into_iter().zip(&mut self.relay_crowds) {
            let relay = Relay::start(&self.function, clients)?;
            rates.push(load::throughput(&target(&relay), clients, WARM_UP, COUNTED)?);
        }
        Ok(())
    }

    fn lambent(&mut self, node: &Lambent, calls: usize) -> Result<()> {
        node.deploy("alone", &self.function, MEMORY_OF_ONE_CPU)?;
        let target = |name: &str| Target {
            address: node.address,
            path: format!("/2015-03-31/functions/{name}/invocations"),
            key: Some(node.key.clone()),
            asked: Asked::Answer,
        };
        self.lambent.measure(&target("alone"), calls)?;
        self.lambent.memory.push(node.resident_mib()?);
        node.deploy("crowd", &self.function, MEMORY_IN_A_CROWD)?;
        for (clients, rates) in CROWDS.into_iter().zip(&mut self.crowds) {
            rates.push(load::throughput(&target("crowd"), clients, WARM_UP, COUNTED)?);
        }
        Ok(())
    }

    fn beside_relay(&self) -> Vec<Metric> {
        let metric = |name: &str, unit, lambent: &[f64], peer: &[f64]| {
            let (case, name) = (self.function.case.to_owned(), name.to_owned());
            Metric { case, name, unit, lambent: lambent.to_vec(), peer: peer.to_vec() }
        };
        let mut metrics = vec![
            metric("p50", "ms", &self.lambent.p50, &self.relay.p50),
            metric("p99", "ms", &self.lambent.p99, &self.relay.p99),
            metric("calls_per_second", "1/s", &self.lambent.rate, &self.relay.rate),
        ];
        for (clients, (lambent, relay)) in CROWDS.into_iter().zip(self.crowds.iter().zip(&self.relay_crowds)) {
            metrics.push(metric(&format!("calls_per_second_{clients}"), "1/s", lambent, relay));
        }
        metrics
    }

    fn metrics(self) -> Vec<Metric> {
        let case = self.function.case;
        let metric = |name: &str, unit, lambent, peer| Metric {
            case: case.to_owned(),
            name: name.to_owned(),
            unit,
            lambent,
            peer,
        };
        let (ours, theirs) = (self.lambent, self.emulator);
        vec![
            metric("p50", "ms", ours.p50, theirs.p50),
            metric("p99", "ms", ours.p99, theirs.p99),
            metric("calls_per_second", "1/s", ours.rate, theirs.rate),
            metric("resident_memory", "MiB", ours.memory, theirs.memory),
        ]
    }
}

impl Alone {
    fn measure(&mut self, target: &Target, calls: usize) -> Result<()> {
        let sorted = load::latencies(target, WARM_UP_CALLS, calls)?;
        let total: Duration = sorted.iter().sum();
        let millis: Vec<f64> = sorted.iter().map(|latency| latency.as_secs_f64() * 1000.0).collect();
        self.p50.push(report::percentile(&millis, 50));
        self.p99.push(report::percentile(&millis, 99));
        #[expect(clippy::cast_precision_loss, reason = "far fewer calls than a float can count")]
        self.rate.push(sorted.len() as f64 / total.as_secs_f64());
        Ok(())
    }
}

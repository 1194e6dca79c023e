//! `cargo xtask soak pools`: random arrivals over three hundred functions, while processes of all kinds are killed and, where that is
//! asked for, the host's memory runs short now and then.
//!
//! What `soak kills` checks is checked here too: every call accounted for, nothing leaked, memory flat, nothing left after the end. Beside
//! that no warming pool may grow beyond its bound. Memory pressure is real: a process holds all memory but a few percent for a round (nothing can be
//! mounted over `/proc/meminfo` instead: the kernel then lets no cell have a `/proc`). A plot shows arrivals, containers and pools, the
//! share of cold starts and the 99th percentile of the whole run.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::calls::{self, CLIENTS, Pace, Plan, Tally};
use super::census::Subject;
use super::harm::{Chance, Harm};
use super::verdict::Findings;
use super::{functions, kills};
use crate::api::{self, Api};
use crate::bench::servers::{Lambent, Process};
use crate::bench::{install, report};
use crate::plot::{self, Panel, Series};
use crate::run;

/// How to run it.
#[derive(clap::Args)]
pub struct PoolsArgs {
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// How long calls are made.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Functions, at least.
    #[arg(long, default_value_t = 300)]
    functions: usize,
    /// What chance begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the plot goes.
    #[arg(long, default_value = "docs/soak-pools.svg", value_name = "FILE")]
    plot: PathBuf,
    /// Use up the machine's memory now and then, for some seconds; for machines that do nothing else.
    #[arg(long)]
    pressure: bool,
    /// Soak this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Idle containers go soon, so that functions become cold again.
const IDLE: &str = "fleet.idle=10s";
/// Containers are gone after that, pools are as small as they were when their forecast has forgotten the load.
const PATIENCE: Duration = Duration::from_secs(300);
/// Instances of one kind at most, by default.
const POOL_CEILING: f64 = 16.0;
/// Calls of a round, at most; after each a point is added to the plot.
const MOST_CALLS: u64 = 400;
/// The longest mean pause of a client.
const MOST_PAUSE_MS: u64 = 120;
/// Of the memory this share is left under pressure: less than what a node takes for calm.
const LEFT_PERCENT: u64 = 4;
/// One round in so many runs under memory pressure.
const PRESSURE_EVERY: usize = 12;

/// One round, as the plot shows it.
#[derive(Debug, Clone, Default)]
struct Point {
    minutes: f64,
    arrivals: f64,
    containers: f64,
    waiting: f64,
    wanted: f64,
    cold_percent: f64,
    p50: f64,
    p99: f64,
}

/// Runs it.
pub fn run(args: &PoolsArgs) -> Result<()> {
    let binary = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let (findings, points) = soak(&binary, args)?;
    findings.print(args.json);
    let title = format!(
        "{} calls in {} minutes over {} functions, {} blows",
        findings.tally.calls(),
        args.minutes,
        args.functions,
        findings.struck.values().sum::<usize>()
    );
    std::fs::write(run::root().join(&args.plot), draw(&title, &points)).context("cannot write the plot")?;
    if findings.faults().is_empty() { Ok(()) } else { Err(run::Failed.into()) }
}

fn soak(binary: &Path, args: &PoolsArgs) -> Result<(Findings, Vec<Point>)> {
    let scratch = tempfile::tempdir()?;
    let log = scratch.path().join("log");
    let node = Lambent::start_with(binary, &[IDLE], std::fs::File::create(&log)?.into())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let subject = Subject { node: node.pid(), address: node.address, patience: PATIENCE };
    let mut names = Vec::new();
    while names.len() < args.functions {
        names.extend(api::block_on(functions::create(&api, &format!("soak-{:03}-", names.len())))?);
    }
    let mut chance = Chance(args.seed);
    let warm_up = names.len() as u64;
    let plan = Plan {
        functions: &names,
        calls: warm_up,
        first: 0,
        pace: Pace::Steady,
        chance: Chance(chance.below(u64::MAX)),
        orders: None,
    };
    let warm = calls::run(&api, plan, Tally::default())?;
    if warm.answered() as u64 != warm_up {
        bail!("calls fail without any harm: {:?} {:?}", warm.outcomes, warm.faults);
    }
    let mut soak =
        Soak { api: &api, names: &names, chance, tally: Tally::default(), points: Vec::new(), pressure: args.pressure };
    let mut counts = vec![subject.begin()];
    let harm = Harm::to(node.pid(), args.seed);
    let (begun, whole) = (Instant::now(), Duration::from_secs(60 * args.minutes));
    let mut resting = Duration::ZERO;
    for quarter in 1..=4 {
        while begun.elapsed().saturating_sub(resting) < whole * quarter / 4 {
            soak.round(&harm, begun)?;
        }
        let rest = Instant::now();
        counts.extend(counts.first().map(|before| subject.settle(soak.tally.calls(), before)));
        resting += rest.elapsed();
        eprintln!("{quarter} of 4 quarters, {} calls", soak.tally.calls());
    }
    let struck = harm.end();
    let Soak { tally, points, .. } = soak;
    let mut after = kills::end(node, &subject, &log)?;
    after.extend(beyond(&points));
    let calls = tally.calls() as u64;
    Ok((Findings { soak: "pools", seed: args.seed, calls, tally, struck, counts, after }, points))
}

/// What changes while it runs.
struct Soak<'a> {
    api: &'a Api,
    names: &'a [String],
    chance: Chance,
    tally: Tally,
    points: Vec<Point>,
    pressure: bool,
}

impl Soak<'_> {
    /// Some calls at some pace, and a point of the plot.
    fn round(&mut self, harm: &Harm, begun: Instant) -> Result<()> {
        let is_short = self.pressure && self.points.len() % PRESSURE_EVERY == PRESSURE_EVERY - 1;
        let _hog = if is_short { Some(Hog::start()?) } else { None };
        let before = (self.tally.took.len(), self.cold_starts()?, Instant::now());
        let plan = Plan {
            functions: self.names,
            calls: 1 + self.chance.below(MOST_CALLS),
            first: self.tally.calls() as u64,
            pace: Pace::Random(Duration::from_millis(self.chance.below(MOST_PAUSE_MS))),
            chance: Chance(self.chance.below(u64::MAX)),
            orders: Some(harm.orders()),
        };
        self.tally = calls::run(self.api, plan, std::mem::take(&mut self.tally))?;
        let metrics = self.api.metrics()?;
        let took: Vec<f64> = self.tally.took.iter().skip(before.0).map(|took| took.as_secs_f64() * 1000.0).collect();
        #[expect(clippy::cast_precision_loss, reason = "far fewer calls than a float can count")]
        let calls = took.len() as f64;
        self.points.push(Point {
            minutes: begun.elapsed().as_secs_f64() / 60.0,
            arrivals: calls / before.2.elapsed().as_secs_f64(),
            containers: api::sum(&metrics, "lambent_containers"),
            waiting: waiting(&metrics).map(|(_, count)| count).sum(),
            wanted: api::sum(&metrics, "lambent_pool_target"),
            cold_percent: 100.0 * (self.cold_starts()? - before.1) / calls,
            p50: report::percentile(&took, 50),
            p99: report::percentile(&took, 99),
        });
        if let Some((series, count)) = waiting(&metrics).find(|(_, count)| *count > POOL_CEILING) {
            bail!("{count} instances wait, more than {POOL_CEILING}: {series}");
        }
        Ok(())
    }

    fn cold_starts(&self) -> Result<f64> {
        Ok(api::sum(&self.api.metrics()?, "lambent_cold_starts_total"))
    }
}

/// Waiting instances, kind by kind.
fn waiting(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    metrics
        .lines()
        .filter(|line| line.starts_with("lambent_pool_instances{") && line.contains("state=\"waiting\""))
        .filter_map(|line| line.rsplit_once(' ').and_then(|(series, count)| Some((series, count.parse().ok()?))))
}

/// What the points say is wrong: the whole pool has a bound as well.
fn beyond(points: &[Point]) -> Option<String> {
    let most = points.iter().map(|point| point.waiting).fold(0.0, f64::max);
    // Memory bounds it long before every kind could have its ceiling.
    let bound = POOL_CEILING * 8.0;
    (most > bound).then(|| format!("{most} instances waited at once"))
}

/// A process that holds memory until nearly none is left, and is the first that the kernel would kill.
struct Hog {
    _process: Process,
}

const HOG: &str = "import sys\nopen('/proc/self/oom_score_adj', 'w').write('1000')\nheld = b'x' * int(sys.argv[1])\nprint(flush=True)\n\
                   sys.stdin.read()\n";

impl Hog {
    /// Returns when it holds what it should.
    fn start() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let bytes = to_hold(&text).context("no MemAvailable")?;
        let mut command = run::command("python3");
        command.args(["-c", HOG, &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().context("cannot start python3")?);
        let output = process.0.stdout.take().context("no pipe")?;
        BufReader::new(output).read_line(&mut String::new())?;
        Ok(Self { _process: process })
    }
}

/// What has to be held so that only [`LEFT_PERCENT`] of the memory can be had.
fn to_hold(memory: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(kib("MemAvailable")?.saturating_sub(kib("MemTotal")? * LEFT_PERCENT / 100) * 1024)
}

fn draw(title: &str, points: &[Point]) -> String {
    let series = |name: &'static str, of: fn(&Point) -> f64| Series {
        name,
        points: points.iter().map(|point| (point.minutes, of(point))).collect(),
    };
    let panels = [
        Panel { title: "arrivals, calls per second", series: vec![series("arrivals", |point| point.arrivals)] },
        Panel {
            title: "containers, and instances of the warming pool",
            series: vec![
                series("containers", |point| point.containers),
                series("waiting", |point| point.waiting),
                series("wanted", |point| point.wanted),
            ],
        },
        Panel { title: "cold starts, percent of calls", series: vec![series("cold", |point| point.cold_percent)] },
        Panel {
            title: "time until the answer, ms (functions take 0 to 25 ms; blows included)",
            series: vec![series("p50", |point| point.p50), series("p99", |point| point.p99)],
        },
    ];
    plot::svg(&format!("{title}; {CLIENTS} clients"), plot::MINUTES, &panels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_instances_are_the_pool() {
        let metrics = "lambent_pool_instances{kind=\"provided\",state=\"waiting\"} 2\n\
                       lambent_pool_instances{kind=\"provided\",state=\"building\"} 1\n\
                       lambent_pool_instances{kind=\"python3.11\",state=\"waiting\"} 3\n";
        assert!((waiting(metrics).map(|(_, count)| count).sum::<f64>() - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_left_is_a_share_of_all() {
        let memory = "MemTotal:       1000000 kB\nMemFree: 1 kB\nMemAvailable:    500000 kB\n";
        assert_eq!(to_hold(memory), Some(460_000 * 1024));
        assert_eq!(to_hold(&memory.replace("500000", "  1000")), Some(0));
    }
}

//! `cargo xtask bench enqueue`: keeping events, each on disk before it is acknowledged, by 64 clients at once.
//!
//! `queue-c64` is the event queue itself, beside Redis (`XADD`, `appendfsync always`, driven by its own `redis-benchmark`) and beside SQLite with
//! one transaction an event; `api-c64` is signed `Event` invocations over HTTP, beside nothing. There the function is turned down to one
//! call at a time: what is measured is taking events, not running them. All write to the same disk, turn by turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::json;

use super::install;
use super::load::{self, Asked, Target};
use super::report::{self, Metric};
use super::servers::{Lambent, Process, free_address};
use crate::api::Api;
use crate::run;

/// How to run it.
#[derive(clap::Args)]
pub struct EnqueueArgs {
    /// One JSON object a line instead of tables.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const CLIENTS: usize = 64;
/// Time that counts.
const COUNTED: Duration = Duration::from_secs(4);
/// Before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// What `redis-benchmark` sends in a turn.
const REDIS_EVENTS: u32 = 200_000;
const REDIS_WITHIN: Duration = Duration::from_secs(10);

/// Runs it.
pub fn run(args: &EnqueueArgs) -> Result<()> {
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    run::cargo(&["build", "--release", "--quiet", "--package", "lambent-store", "--example", "enqueue"])?;
    let example = run::target().join("release/examples/enqueue");
    let redis = run::which("redis-server").zip(run::which("redis-benchmark"));
    if redis.is_none() {
        eprintln!("skipped: Redis, which this machine lacks (apt-get install redis-server)");
    }
    let (mut queue, mut insert, mut xadd, mut api) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        let seconds = COUNTED.as_secs().to_string();
        queue.push(measured(&example, "queue", &[&CLIENTS.to_string(), &seconds])?);
        if let Some((server, benchmark)) = &redis {
            xadd.push(in_redis(server, benchmark)?);
        }
        insert.push(measured(&example, "insert", &[&seconds])?);
        api.push(over_api(&lambent)?);
    }
    let metric = |case: &str, lambent: &[f64], peer: &[f64]| {
        let (case, name) = (case.to_owned(), "per_second".to_owned());
        [Metric { case, name, unit: "1/s", lambent: lambent.to_vec(), peer: peer.to_vec() }]
    };
    report::print("enqueue", "redis", &metric("queue-c64", &queue, &xadd), args.json);
    report::print("enqueue", "sqlite-insert", &metric("queue-c64", &queue, &insert), args.json);
    report::print("enqueue", "nobody", &metric("api-c64", &api, &[]), args.json);
    Ok(())
}

/// What the store's own example says, on a fresh directory.
fn measured(example: &Path, what: &str, arguments: &[&str]) -> Result<f64> {
    let dir = tempfile::tempdir_in(run::target())?;
    let output = Command::new(example).arg(what).arg(dir.path()).args(arguments).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{what} failed");
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn in_redis(server: &Path, benchmark: &Path) -> Result<f64> {
    let (dir, address) = (tempfile::tempdir_in(run::target())?, free_address()?);
    let port = address.port().to_string();
    let mut command = Command::new(server);
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    command.arg("--dir").arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let _server = Process(command.spawn().context("cannot start Redis")?);
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if begun.elapsed() > REDIS_WITHIN {
            bail!("Redis does not answer at {address}");
        }
        std::thread::yield_now();
    }
    let mut command = Command::new(benchmark);
    command.args(["-p", &port, "-c", &CLIENTS.to_string(), "-n", &REDIS_EVENTS.to_string(), "--csv"]);
    let output = command.args(["XADD", "events", "*", "event", &"x".repeat(256)]).output()?;
    let text = String::from_utf8(output.stdout)?;
    // A line of names, then one of values: "XADD ...","46000.12",...
    let value = text.lines().rev().find_map(|line| line.rsplit_once("\",\"").and_then(|_| line.split("\",\"").nth(1)));
    value.and_then(|value| value.trim_matches('"').parse().ok()).with_context(|| format!("redis-benchmark said {text}"))
}

fn over_api(binary: &Path) -> Result<f64> {
    let node = Lambent::start(binary)?;
    node.deploy("events", &install::static_binary()?, 128)?;
    let api = Api { address: node.address, key: node.key.clone() };
    let one = json!({ "ReservedConcurrentExecutions": 1 });
    api.command(Method::PUT, "/2017-10-31/functions/events/concurrency", &one)?;
    let path = "/2015-03-31/functions/events/invocations".to_owned();
    let target = Target { address: node.address, path, key: Some(node.key.clone()), asked: Asked::Event };
    load::throughput(&target, CLIENTS, WARM_UP, COUNTED)
}

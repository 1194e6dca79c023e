//! `cargo xtask bench enqueue`: keeping events, each on disk before it is acknowledged, by 64 clients at once.
//!
//! `queue-c64` is the event queue itself, beside Redis (`XADD`, `appendfsync always`, driven by its own `redis-benchmark`), NATS JetStream
//! (`sync_interval: always`) and SQLite with one transaction an event. `api-c64` is signed `Event` invocations over HTTP, beside nothing. There
//! the function is turned down to one call at a time: what is measured is taking events, not running them. `start-idle` is the time from
//! just before such a request is sent to the first line of the handler, in a warm Python container of a node that does nothing else.
//! `backlog-enqueue` and `backlog-lease` are the queue with a million events in it, beside itself with few. All write to the same disk, turn by
//! turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::json;

use super::load::{self, Asked, Target};
use super::report::{self, Metric, percentile};
use super::servers::{Lambent, Process, free_address};
use super::{install, jetstream};
use crate::api::{Api, block_on, zip};
use crate::run;
use crate::soak::{functions, receiver::Receiver};

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
/// Events that wait in a queue that is full of them, and in one that is not; enough to be leased.
const BACKLOG: &str = "1000000";
const FEW: &str = "50000";
/// Events that are sent one by one, each when the last has been run.
const ALONE: usize = 300;
const ALONE_WITHIN: Duration = Duration::from_secs(10);
const CLOCK: &str = "import time\ndef handler(event, context):\n    return time.time_ns() // 1000\n";
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
    let nats = install::nats_server()?;
    let (mut queue, mut insert, mut xadd, mut js, mut api) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut deep, mut shallow_lease, mut deep_lease, mut start) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        let (clients, seconds) = (CLIENTS.to_string(), COUNTED.as_secs().to_string());
        queue.push(measured(&example, "queue", &[&clients, &seconds, "0"])?);
        deep.push(measured(&example, "queue", &[&clients, &seconds, BACKLOG])?);
        if let Some((server, benchmark)) = &redis {
            xadd.push(in_redis(server, benchmark)?);
        }
        js.push(jetstream::rate(&nats, CLIENTS, WARM_UP, COUNTED)?);
        insert.push(measured(&example, "insert", &[&seconds])?);
        shallow_lease.push(measured(&example, "lease", &[&clients, FEW])?);
        deep_lease.push(measured(&example, "lease", &[&clients, BACKLOG])?);
        api.push(over_api(&lambent)?);
        start.push(idle_start(&lambent)?);
    }
    let metric = |case: &str, name: &str, unit: &'static str, lambent: &[f64], peer: &[f64]| {
        let (case, name) = (case.to_owned(), name.to_owned());
        [Metric { case, name, unit, lambent: lambent.to_vec(), peer: peer.to_vec() }]
    };
    let rate = |case: &str, peer_name: &str, lambent: &[f64], peer: &[f64]| {
        report::print("enqueue", peer_name, &metric(case, "per_second", "1/s", lambent, peer), args.json);
    };
    rate("queue-c64", "redis", &queue, &xadd);
    rate("queue-c64", "jetstream", &queue, &js);
    rate("queue-c64", "sqlite-insert", &queue, &insert);
    rate("backlog-enqueue", "no-backlog", &deep, &queue);
    rate("backlog-lease", "no-backlog", &deep_lease, &shallow_lease);
    rate("api-c64", "nobody", &api, &[]);
    report::print("enqueue", "nobody", &metric("start-idle", "p50", "ms", &start, &[]), args.json);
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

/// Milliseconds from before an event is sent to the first line of its handler, the median of many; the outcome says when that was.
fn idle_start(binary: &Path) -> Result<f64> {
    let receiver = Receiver::start()?;
    let node = Lambent::start_with(binary, &["events.local_urls=true"], Stdio::inherit())?;
    let api = Api { address: node.address, key: node.key.clone() };
    block_on(async {
        let runtime = functions::python().context("this machine lacks Python")?;
        let code = json!({ "ZipFile": zip("app.py", CLOCK.as_bytes())? });
        api.create(json!({ "FunctionName": "clock", "Runtime": runtime, "MemorySize": 512, "Code": code })).await?;
        let destination = format!("arn:aws:lambent:{}:000000000000:url/http://{}/", node.key.region, receiver.address);
        let config = json!({ "DestinationConfig": { "OnSuccess": { "Destination": destination } } });
        api.control(Method::PUT, "/2019-09-25/functions/clock/event-invoke-config", &config).await?;
        let (mut connection, mut waits) = (None, Vec::new());
        for run in 1..=ALONE {
            let sent = u64::try_from(jiff::Timestamp::now().as_microsecond())?;
            let (path, headers) = ("/2015-03-31/functions/clock/invocations", [("x-amz-invocation-type", "Event")]);
            let answer = api.send_as(&mut connection, Method::POST, path, &headers, "{}".into()).await?;
            if answer.status != 202 {
                bail!("an event was answered with {}", answer.status);
            }
            let begun = Instant::now();
            let started = loop {
                if let Some(at) = receiver.delivered().keys().copied().filter(|at| *at >= sent).max() {
                    break at;
                }
                if begun.elapsed() > ALONE_WITHIN {
                    bail!("event {run} has not run");
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            waits.push((started - sent) as f64 / 1000.0);
        }
        // The first few find no container, or one that has just begun.
        Ok(percentile(waits.get(ALONE / 10..).unwrap_or_default(), 50))
    })
}

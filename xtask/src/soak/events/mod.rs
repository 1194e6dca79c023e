//! `cargo xtask soak events`: events are sent at a steady rate while the node is killed (`SIGKILL`) at random moments and started again.
//!
//! `--harm full` and `--harm fsync` let its disk fail as well (`harm.rs`): then events are refused, with an error that says why, and taken again when
//! the disk is good.
//!
//! The function's outcomes are delivered to a server of this soak. In the end every event that was acknowledged must have been delivered, or
//! lie among the dead letters with a reason; nothing may wait any more. What was delivered more than once is counted: the node died between
//! a run, or a delivery, and the commit of that.

mod harm;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::functions;
use super::harm::Chance;
use super::receiver::Receiver;
use crate::api::{self, Api, zip};
use crate::bench::install;
use crate::bench::servers::Lambent;
use crate::run;
use harm::{Disk, Kind};

/// How to run it.
#[derive(clap::Args)]
pub struct EventsArgs {
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// How often the node is killed.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// What else is done to it.
    #[arg(long, value_enum, default_value_t = Kind::Kills)]
    harm: Kind,
    /// Events a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// What chance begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Clients that send.
const CLIENTS: u64 = 8;
/// A node lives this long, at least and at most.
const LIFE_MS: (u64, u64) = (100, 1_500);
/// Everything has run this long after the last kill, or never will.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Events that are out at once: what one kill may cause to run again.
const PLACES: u64 = 64;
/// The receiver is on this machine; what failed is tried again soon.
const SETTINGS: [&str; 3] = ["events.local_urls=true", "events.retry_delay=100ms", "events.places=64"];
/// A node takes events again so soon after its disk is good.
const WORKS_WITHIN: Duration = Duration::from_secs(30);
/// The small soak.
const SMALL_KILLS: u64 = 12;
const SMALL_RATE: u32 = 100;
const FUNCTION: &str = "soak-events";
const PYTHON: &str = "def handler(event, context):\n    return event['n']\n";

/// What became of what was sent.
#[derive(Default)]
struct Sent {
    next: u64,
    acknowledged: HashSet<u64>,
    /// Cut off by a kill: they may run or not.
    cut_off: u64,
    /// Refused because of the disk, with an error that says so.
    refused: u64,
    throttled: u64,
    faults: Vec<String>,
}

/// The small soak that every change must pass, with the binary that was just built.
pub fn small() -> Result<()> {
    let (kills, rate, seed) = (SMALL_KILLS, SMALL_RATE, u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let binary = Some(run::target().join("debug/lambent"));
    run(&EventsArgs { json: false, kills, harm: Kind::Kills, rate, seed, binary })
}

/// Runs it; an error when anything was lost.
pub fn run(args: &EventsArgs) -> Result<()> {
    let binary = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let scratch = tempfile::tempdir()?;
    let log = File::create(scratch.path().join("log"))?;
    // Ends after the node.
    let disk = Disk::make(args.harm, scratch.path())?;
    let receiver = Receiver::start()?;
    let mut node = Lambent::start_on(disk.ground(), &binary, &SETTINGS, log.try_clone()?.into())?;
    let api = |node: &Lambent| Api { address: node.address, key: node.key.clone() };
    api::block_on(create(&api(&node), receiver.address))?;
    let (mut chance, sent) = (Chance(args.seed), Rc::new(RefCell::new(Sent::default())));
    for kill in 1..=args.kills {
        let current = api(&node);
        api::block_on(round(args, &disk, &current, &mut node, &mut chance, &sent))?;
        node.again(&SETTINGS, log.try_clone()?.into())?;
        if kill % 20 == 0 {
            let sent = sent.borrow();
            eprintln!("{kill} kills, {} events acknowledged, {} refused", sent.acknowledged.len(), sent.refused);
        }
    }
    let buried = end(&api(&node), &receiver, &sent.borrow())?;
    let status = node.stop()?;
    let mut findings = Findings::of(args, &sent.borrow(), &receiver.delivered(), &buried);
    if !status.success() {
        findings.faults.push(format!("the node ended with {status}"));
    }
    findings.print(args.json);
    if findings.faults.is_empty() {
        return Ok(());
    }
    let log = std::fs::read_to_string(scratch.path().join("log"))?;
    log.lines().rev().take(20).for_each(|line| eprintln!("{line}"));
    Err(run::Failed.into())
}

/// One life of the node: it works, its disk fails, and, by chance, it is killed before or after the disk is good again.
async fn round(
    args: &EventsArgs,
    disk: &Disk,
    api: &Api,
    node: &mut Lambent,
    chance: &mut Chance,
    sent: &Rc<RefCell<Sent>>,
) -> Result<()> {
    let mut life = || Duration::from_millis(LIFE_MS.0 + chance.below(LIFE_MS.1 - LIFE_MS.0));
    let (good, bad) = (life(), life());
    let dies_in_harm = chance.below(2) == 0;
    let mut clients = tokio::task::JoinSet::new();
    let order = Order { pace: Duration::from_secs(CLIENTS) / args.rate, harm: args.harm };
    for _ in 0..CLIENTS {
        clients.spawn_local(client(api.clone(), sent.clone(), order));
    }
    tokio::time::sleep(good).await;
    if args.harm != Kind::Kills {
        disk.fail()?;
        tokio::time::sleep(bad).await;
        if dies_in_harm {
            node.kill()?;
        }
        disk.heal()?;
        let before = sent.borrow().acknowledged.len();
        let begun = Instant::now();
        while !dies_in_harm && sent.borrow().acknowledged.len() == before {
            if begun.elapsed() > WORKS_WITHIN {
                sent.borrow_mut().faults.push("the disk is good again, and no event is taken".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    node.kill()?;
    clients.join_all().await;
    Ok(())
}

async fn create(api: &Api, receiver: SocketAddr) -> Result<()> {
    let runtime = functions::python().context("this machine lacks Python")?;
    let code = json!({ "ZipFile": zip("app.py", PYTHON.as_bytes())? });
    api.create(json!({ "FunctionName": FUNCTION, "Runtime": runtime, "MemorySize": 512, "Code": code })).await?;
    let destination = format!("arn:aws:lambent:{}:000000000000:url/http://{receiver}/", api.key.region);
    let path = format!("/2019-09-25/functions/{FUNCTION}/event-invoke-config");
    let config = json!({ "DestinationConfig": { "OnSuccess": { "Destination": destination } } });
    api.control(Method::PUT, &path, &config).await.map(drop)
}

/// How a client sends.
#[derive(Clone, Copy)]
struct Order {
    pace: Duration,
    harm: Kind,
}

/// Sends at this pace until the node is gone.
async fn client(api: Api, sent: Rc<RefCell<Sent>>, order: Order) {
    let path = format!("/2015-03-31/functions/{FUNCTION}/invocations");
    let (mut connection, mut pace) = (None, tokio::time::interval(order.pace));
    loop {
        pace.tick().await;
        let n = {
            let mut sent = sent.borrow_mut();
            sent.next += 1;
            sent.next
        };
        let event = Bytes::from(json!({ "n": n, "ballast": ballast(n, order.harm) }).to_string());
        let answer =
            api.send_as(&mut connection, Method::POST, &path, &[("x-amz-invocation-type", "Event")], event).await;
        let mut sent = sent.borrow_mut();
        match answer {
            Ok(answer) => match answer.status.as_u16() {
                202 => drop(sent.acknowledged.insert(n)),
                429 => sent.throttled += 1,
                500 if is_clear(order.harm, &answer.body) => sent.refused += 1,
                other => sent.faults.push(format!("event {n}: {other} {}", String::from_utf8_lossy(&answer.body))),
            },
            Err(_gone) => {
                sent.cut_off += 1;
                return;
            }
        }
    }
}

/// On a disk that fills up some events are large: small ones find room in what others have left.
fn ballast(n: u64, harm: Kind) -> String {
    let size = if harm == Kind::Full && n.is_multiple_of(4) { 40_000 } else { 0 };
    "x".repeat(size)
}

/// Whether an error says that it is the disk.
fn is_clear(harm: Kind, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    harm.words().iter().any(|words| text.contains(words))
}

/// Waits until nothing is left to do; what was given up, as event and reason.
fn end(api: &Api, receiver: &Receiver, sent: &Sent) -> Result<Vec<Value>> {
    let list = |path: &str| -> Result<Vec<Value>> {
        let mut page = api.command(Method::GET, path, &Value::Null)?;
        let Some(Value::Array(events)) = page.get_mut("events").map(Value::take) else { bail!("{path}: {page}") };
        Ok(events)
    };
    let begun = Instant::now();
    loop {
        let waiting = list("/_lambent/events?limit=1")?;
        let buried = list("/_lambent/events?queue=dead-letters")?;
        let delivered = receiver.delivered().len();
        if waiting.is_empty() || begun.elapsed() > PATIENCE {
            eprintln!("{delivered} delivered, {} acknowledged", sent.acknowledged.len());
            return Ok(waiting.into_iter().chain(buried).collect());
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells another process that the queue is empty")]
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What is found in the end.
struct Findings {
    report: Value,
    faults: Vec<String>,
}

impl Findings {
    fn of(args: &EventsArgs, sent: &Sent, delivered: &HashMap<u64, u64>, left: &[Value]) -> Self {
        let mut faults = sent.faults.clone();
        let lost: Vec<u64> = sent.acknowledged.iter().copied().filter(|n| !delivered.contains_key(n)).collect();
        if !lost.is_empty() {
            faults.push(format!(
                "{} acknowledged events never ran: {:?}",
                lost.len(),
                lost.iter().take(10).collect::<Vec<_>>()
            ));
        }
        faults.extend(left.iter().take(5).map(|event| format!("left in a queue: {event}")));
        let invented = delivered.keys().filter(|n| **n > sent.next).count();
        if invented > 0 {
            faults.push(format!("{invented} events ran that nobody sent"));
        }
        if args.harm != Kind::Kills && sent.refused == 0 {
            faults.push("the disk never failed an event: nothing was shown".to_owned());
        }
        let again: u64 = delivered.values().map(|times| times - 1).sum();
        if again > args.kills * PLACES {
            faults.push(format!("{again} ran again, but {} kills explain {} at most", args.kills, args.kills * PLACES));
        }
        let unasked = delivered.keys().filter(|n| !sent.acknowledged.contains(n)).count();
        let report = json!({
            "soak": "events",
            "seed": args.seed,
            "kills": args.kills,
            "harm": format!("{:?}", args.harm).to_lowercase(),
            "refused": sent.refused,
            "acknowledged": sent.acknowledged.len(),
            "cut_off": sent.cut_off,
            "cut_off_but_run": unasked,
            "throttled": sent.throttled,
            "delivered": delivered.len(),
            "delivered_again": again,
            "lost": lost.len(),
        });
        Self { report, faults }
    }

    fn print(&self, json: bool) {
        let Self { report, faults } = self;
        if json {
            println!("{}", json!({ "report": report, "faults": faults, "passed": faults.is_empty() }));
            return;
        }
        for (name, value) in report.as_object().into_iter().flatten() {
            println!("{name:18} {value}");
        }
        faults.iter().for_each(|fault| println!("FAULT {fault}"));
        println!("{}", if faults.is_empty() { "passed: every acknowledged event has run" } else { "FAILED" });
    }
}

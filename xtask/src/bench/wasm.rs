//! `cargo xtask bench wasm`: the same component under Lambent's function URLs and under `wasmtime serve`, and a worker that says as much
//! under `workerd`.
//!
//! What differs is what each is: Lambent runs the component in a process of its own, a cell, and resolves, admits, logs and meters every
//! call; `wasmtime serve` runs it in the process that speaks HTTP and does none of that; `workerd` runs JavaScript in an isolate that
//! serves call after call. Cases `hello-*` make an instance for each call, cases `reuse-*` use one again (`workerd` always does). Turns
//! alternate, so that a machine that slows down slows all.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::install;
use super::load::{self, Asked, Target};
use super::report::{self, Metric};
use super::servers::{Lambent, Process, free_address};
use crate::run;

/// How to run it.
#[derive(clap::Args)]
pub struct WasmArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds that count, of each case in a turn.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Only this case.
    #[arg(long)]
    case: Option<String>,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Use this `wasmtime` instead of building version 48.
    #[arg(long, value_name = "FILE")]
    wasmtime: Option<PathBuf>,
}

/// The version that the component is also measured under.
const WASMTIME: &str = "48.0.8";
/// The npm package whose binary is `workerd`.
const WORKERD: &str = "@cloudflare/workerd-linux-64@1.20261117.1";
/// Time before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a server may take to answer.
const START_WITHIN: Duration = Duration::from_secs(30);
/// What every answer holds.
const EXPECTED: &[u8] = b"Hello from /";

/// A case: how many clients, and whether instances are used again.
struct Case {
    name: &'static str,
    clients: usize,
    reuse: bool,
    lambent: Seen,
    wasmtime: Seen,
    workerd: Seen,
}

/// What its clients saw of one server, turn by turn.
#[derive(Default, Clone)]
struct Seen {
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

/// Runs it.
pub fn run(args: &WasmArgs) -> Result<()> {
    let wasmtime = args.wasmtime.clone().map_or_else(wasmtime, Ok)?;
    let workerd = workerd()?;
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let counted = Duration::from_secs(args.seconds);
    let case = |name, clients, reuse| {
        let (lambent, wasmtime, workerd) = Default::default();
        Case { name, clients, reuse, lambent, wasmtime, workerd }
    };
    let mut cases = vec![
        case("hello-c1", 1, false),
        case("hello-c16", 16, false),
        case("reuse-c1", 1, true),
        case("reuse-c16", 16, true),
    ];
    cases.retain(|case| args.case.as_deref().is_none_or(|wanted| wanted == case.name));
    for turn in 1..=args.runs {
        for case in &mut cases {
            eprintln!("turn {turn} of {}: {}", args.runs, case.name);
            let peer = Wasmtime::start(&wasmtime, case.reuse)?;
            case.wasmtime.measure(&peer.target, case.clients, counted)?;
            drop(peer);
            let peer = Workerd::start(&workerd)?;
            case.workerd.measure(&peer.target, case.clients, counted)?;
            drop(peer);
            let node = Lambent::start(&lambent)?;
            case.lambent.measure(&deploy(&node, case.reuse)?, case.clients, counted)?;
        }
    }
    let metrics = |peer: fn(&Case) -> &Seen| cases.iter().flat_map(|case| case.metrics(peer(case))).collect::<Vec<_>>();
    report::print("wasm", &format!("wasmtime serve {WASMTIME}"), &metrics(|case| &case.wasmtime), args.json);
    report::print("wasm", "workerd", &metrics(|case| &case.workerd), args.json);
    Ok(())
}

/// The component, with a URL; called once, so that what is measured is warm.
fn deploy(node: &Lambent, reuse: bool) -> Result<Target> {
    let environment: &[&str] = if reuse { &["LAMBENT_WASM_REUSE=true"] } else { &[] };
    let url = node.deploy_url("hello", &install::wasm(), "provided.wasm", environment)?;
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).context("a URL without a port")?;
    Ok(page(SocketAddr::from(([127, 0, 0, 1], port)), host))
}

fn page(address: SocketAddr, host: String) -> Target {
    Target { address, path: "/".to_owned(), key: None, asked: Asked::Page { host, expected: EXPECTED } }
}

impl Seen {
    fn measure(&mut self, target: &Target, clients: usize, counted: Duration) -> Result<()> {
        let crowd = load::crowd(target, clients, WARM_UP, counted)?;
        let at = |percent: usize| {
            let rank = (crowd.len() * percent).div_ceil(100).saturating_sub(1);
            crowd.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        self.p50.push(at(50));
        self.p99.push(at(99));
        #[expect(clippy::cast_precision_loss, reason = "far fewer calls than a float can count")]
        self.rate.push(crowd.len() as f64 / counted.as_secs_f64());
        Ok(())
    }
}

impl Case {
    fn metrics(&self, peer: &Seen) -> [Metric; 3] {
        let metric = |name: &str, unit, lambent: &[f64], peer: &[f64]| Metric {
            case: self.name.to_owned(),
            name: name.to_owned(),
            unit,
            lambent: lambent.to_vec(),
            peer: peer.to_vec(),
        };
        [
            metric("p50", "ms", &self.lambent.p50, &peer.p50),
            metric("p99", "ms", &self.lambent.p99, &peer.p99),
            metric("calls_per_second", "1/s", &self.lambent.rate, &peer.rate),
        ]
    }
}

/// A server that was started with its address.
struct Peer {
    target: Target,
    _process: Process,
}

struct Wasmtime;

impl Wasmtime {
    fn start(binary: &Path, reuse: bool) -> Result<Peer> {
        let address = free_address()?;
        let mut command = Command::new(binary);
        // What Rust's standard library imports is in `wasi:cli`.
        command.args(["serve", "--addr", &address.to_string(), "-O", "pooling-allocator=y", "-S", "cli"]);
        let reused = if reuse { "1000000000" } else { "1" };
        command.args(["--max-instance-reuse-count", reused]);
        start(command.arg(run::root().join("examples/wasm-rust/function.wasm")), address)
    }
}

struct Workerd;

impl Workerd {
    fn start(binary: &Path) -> Result<Peer> {
        let address = free_address()?;
        let directory = run::target().join("bench/workerd");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("worker.js"), WORKER)?;
        let config = directory.join("config.capnp");
        std::fs::write(&config, CONFIG.replace("ADDRESS", &address.to_string()))?;
        start(Command::new(binary).arg("serve").arg(config), address)
    }
}

const WORKER: &str =
    "export default { fetch(request) { return new Response(`Hello from ${new URL(request.url).pathname}\\n`); } };\n";
const CONFIG: &str = r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "worker", esModule = embed "worker.js")], compatibilityDate = "2026-01-01"))],
  sockets = [(name = "http", address = "ADDRESS", http = (), service = "main")]);
"#;

fn start(command: &mut Command, address: SocketAddr) -> Result<Peer> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let process = Process(child.with_context(|| format!("cannot start {command:?}"))?);
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > START_WITHIN {
            bail!("{command:?} does not answer at {address}");
        }
        std::thread::yield_now();
    }
    Ok(Peer { target: page(address, address.to_string()), _process: process })
}

/// `wasmtime`, built once from its published crate with no more than `serve` needs. Takes ten minutes on two cores.
fn wasmtime() -> Result<PathBuf> {
    let root = run::target().join("tools/wasmtime");
    let binary = root.join("bin/wasmtime");
    if !binary.is_file() {
        let features = "run,serve,cranelift,pooling-allocator,parallel-compilation,component-model-async";
        // What compiles the component, once, need not be fast; building it well takes most of the time.
        let compiler = ["cranelift-codegen", "cranelift-assembler-x64", "cranelift-frontend", "regalloc2"];
        let little = compiler.map(|name| format!("profile.release.package.{name}.opt-level=1"));
        let mut install = run::command(run::cargo_path());
        install.args([
            "install",
            "wasmtime-cli",
            "--version",
            WASMTIME,
            "--no-default-features",
            "--features",
            features,
        ]);
        install.args(little.iter().flat_map(|setting| ["--config", setting]));
        run::check(install.arg("--root").arg(&root))?;
    }
    Ok(binary)
}

/// `workerd`, which ships in its package.
fn workerd() -> Result<PathBuf> {
    let root = run::target().join("tools/workerd");
    let binary = root.join("node_modules/@cloudflare/workerd-linux-64/bin/workerd");
    if !binary.is_file() {
        std::fs::create_dir_all(&root)?;
        run::check(run::command("npm").args(["install", "--silent", "--no-save", "--prefix"]).arg(&root).arg(WORKERD))?;
    }
    Ok(binary)
}

//! `cargo xtask bench density`: how many idle Python containers a GiB of memory holds.
//!
//! Counted is what is really used: the proportional share (PSS) of every process that the node started, agents, templates and waiting
//! instances included, and what the node itself grew by. Each container is another function's. The kernel's own memory for their
//! cgroups is shown apart. Peer: emulators, each with the same interpreter under the official client, after one call.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::json;

use super::install;
use super::load::{self, Asked, Target};
use super::report::{self, Metric};
use super::servers::{Emulator, Lambent};
use crate::api::{self, Api};
use crate::soak::functions::python;
use crate::soak::procs;

/// How to run it.
#[derive(clap::Args)]
pub struct DensityArgs {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Containers of a turn.
    #[arg(long, default_value_t = 100)]
    containers: u32,
    /// Emulators of a turn.
    #[arg(long, default_value_t = 20)]
    emulators: u32,
    /// Measure this binary instead of building one for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const KIB_PER_MIB: f64 = 1024.0;
const MIB_PER_GIB: f64 = 1024.0;

/// One turn of Lambent, in MiB.
struct Turn {
    idle_node: f64,
    each: f64,
    kernel_each: f64,
}

/// Runs it.
pub fn run(args: &DensityArgs) -> Result<()> {
    let emulator = install::emulator()?;
    let function = install::python()?;
    let lambent = args.binary.clone().map_or_else(install::lambent, Ok)?;
    let (mut turns, mut emulators) = (Vec::new(), Vec::new());
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}", args.runs);
        emulators.push(of_emulators(&emulator, &function, args.emulators)?);
        turns.push(of_lambent(&lambent, args.containers)?);
    }
    let of = |each: fn(&Turn) -> f64| turns.iter().map(each).collect::<Vec<_>>();
    let metric = |name: &str, unit, lambent, peer| Metric {
        case: "python".to_owned(),
        name: name.to_owned(),
        unit,
        lambent,
        peer,
    };
    let per_gib = |each: Vec<f64>| each.into_iter().map(|each| MIB_PER_GIB / each).collect();
    let metrics = [
        metric("containers_per_gib", "", per_gib(of(|turn| turn.each)), per_gib(emulators.clone())),
        metric("container", "MiB", of(|turn| turn.each), emulators),
        metric("container_kernel", "MiB", of(|turn| turn.kernel_each), Vec::new()),
        metric("idle_node", "MiB", of(|turn| turn.idle_node), Vec::new()),
    ];
    report::print("density", "aws-lambda-rie", &metrics, args.json);
    Ok(())
}

/// The memory of a process and everything below it, in MiB.
fn tree_mib(root: u32) -> f64 {
    let below = procs::below(root, &procs::all()).into_iter().map(|process| process.pid);
    mib(procs::proportional_kib(below.chain([root])))
}

fn mib(kib: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far less than a float can count")]
    let kib = kib as f64;
    kib / KIB_PER_MIB
}

/// What one idle emulator takes.
fn of_emulators(binary: &Path, function: &install::Function, count: u32) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..count {
        let emulator = Emulator::start(binary, function)?;
        load::latencies(&emulator.target(), 0, 1)?;
        all.push(emulator);
    }
    Ok(all.iter().map(|emulator| tree_mib(emulator.pid())).sum::<f64>() / f64::from(count))
}

fn of_lambent(binary: &Path, count: u32) -> Result<Turn> {
    let node = Lambent::start_with(binary, &[], Stdio::inherit())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let runtime = python().context("this machine has no Python")?;
    let idle_node = tree_mib(node.pid());
    for index in 0..count {
        let name = format!("density-{index}");
        // The code differs, so that no file is shared but those of the runtime.
        let source = format!("NUMBER = {index}\n\n\ndef handler(event, context):\n    return event\n");
        let code = json!({ "ZipFile": api::zip("app.py", source.as_bytes())? });
        api::block_on(api.create(json!({ "FunctionName": name, "Runtime": runtime, "Timeout": 30, "Code": code })))?;
        let path = format!("/2015-03-31/functions/{name}/invocations");
        let target = Target { address: node.address, path, key: Some(node.key.clone()), asked: Asked::Answer };
        load::latencies(&target, 0, 1)?;
    }
    let (all, kernel) = (tree_mib(node.pid()), mib(kernel_kib(Path::new("/sys/fs/cgroup"), node.pid())));
    let count = f64::from(count);
    Ok(Turn { idle_node, each: (all - idle_node) / count, kernel_each: kernel / count })
}

/// What the kernel keeps for the groups of a node: of version 1 its own account of it, of version 2 the `kernel` line.
fn kernel_kib(directory: &Path, node: u32) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let ours = entry.file_name().to_string_lossy().starts_with(&format!("lambent-{node}-"));
        bytes += if ours { kernel_bytes(&path) } else { kernel_kib(&path, node) * 1024 };
    }
    bytes / 1024
}

/// A group counts what is in its own groups as well.
fn kernel_bytes(group: &Path) -> u64 {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    if let Some(text) = read("memory.kmem.usage_in_bytes") {
        return text.trim().parse().unwrap_or(0);
    }
    let stat = read("memory.stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("kernel ")?.trim().parse().ok()).unwrap_or(0)
}

//! `cargo xtask sim deadlines`: the node's own line of calls, and what it learns, in virtual time beside other policies (docs/deadlines.md).
//!
//! The simulator is an example of the invoker's crate, so that it runs the node's code, and so that this crate does not depend on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::plot::{self, Across, Panel, Series};
use crate::run;

/// Which simulation.
#[derive(clap::Args)]
pub struct SimArgs {
    #[command(subcommand)]
    sim: Sim,
}

#[derive(clap::Subcommand)]
enum Sim {
    /// Deadlines that are missed, and the capacity that is needed, by the order in which calls start.
    Deadlines(DeadlinesArgs),
}

/// How to run it.
#[derive(clap::Args)]
pub struct DeadlinesArgs {
    /// One JSON object a line instead of tables.
    #[arg(long)]
    json: bool,
    /// Seeds, from 1 on.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Calls of a trace; the first half is history.
    #[arg(long, default_value_t = 16_000)]
    calls: usize,
    /// Where the plot goes, below the root of the repository.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What the simulator prints; other members are for those who read its lines.
#[derive(Deserialize)]
#[serde(tag = "case", rename_all = "lowercase")]
enum Line {
    Misses { variant: String, load: f64, policy: String, missed_percent: f64, p99_wait_now_ms: f64 },
    Tenth { variant: String, policy: String, missed_percent: f64 },
    Capacity { variant: String, policy: String, places: f64 },
}

const POLICIES: [&str; 4] = ["fifo", "priority", "learned", "foresight"];
const LOAD: Across = Across { from: 30.0, unit: " %", decimals: 0 };

/// Runs a simulation.
pub fn run(args: &SimArgs) -> Result<()> {
    match &args.sim {
        Sim::Deadlines(args) => deadlines(args),
    }
}

fn deadlines(args: &DeadlinesArgs) -> Result<()> {
    // With the features of the whole workspace, so that what is built for its tests does.
    run::cargo(&["build", "--quiet", "--workspace", "--example", "deadlines"])?;
    let example = run::target().join("debug/examples/deadlines");
    let mut command = run::command(&example);
    command.args([args.seeds.to_string(), args.calls.to_string()]).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {}", example.display()))?;
    if !output.status.success() {
        bail!("the simulator failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Line>, _>>()?;
    if args.json {
        print!("{text}");
    } else {
        println!("seeds 1 to {}, {} calls each, the first half of them history", args.seeds, args.calls);
        tables(&lines);
    }
    if let Some(path) = &args.plot {
        std::fs::write(run::root().join(path), drawn(&lines)).context("cannot write the plot")?;
    }
    Ok(())
}

/// All seeds' values of a policy.
type ByPolicy<'a> = BTreeMap<&'a str, Vec<f64>>;

/// Percent missed by variant and load.
fn misses(lines: &[Line]) -> BTreeMap<(&str, u32), ByPolicy<'_>> {
    let mut found = BTreeMap::<_, ByPolicy<'_>>::new();
    for line in lines {
        if let Line::Misses { variant, load, policy, missed_percent, .. } = line {
            let at = (variant.as_str(), percent(*load));
            found.entry(at).or_default().entry(policy).or_default().push(*missed_percent);
        }
    }
    found
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is between 0 and 1")]
fn percent(share: f64) -> u32 {
    (share * 100.0).round() as u32
}

fn tables(lines: &[Line]) {
    let row = |name: &str, values: &ByPolicy<'_>| {
        let cells = POLICIES.map(|policy| format!("{:>24}", shown(values.get(policy).map_or(&[], Vec::as_slice))));
        println!("{name:22}{}", cells.concat());
    };
    let head = POLICIES.map(|policy| format!("{policy:>24}")).concat();
    println!("\n{:22}{head}", "MISSED, percent");
    for ((variant, load), values) in misses(lines) {
        row(&format!("{variant}, load {load} %"), &values);
    }
    let mut waits = BTreeMap::<_, ByPolicy<'_>>::new();
    let (mut tenth, mut places) = (BTreeMap::<_, ByPolicy<'_>>::new(), BTreeMap::<_, ByPolicy<'_>>::new());
    for line in lines {
        match line {
            Line::Misses { variant, load, policy, p99_wait_now_ms, .. } => {
                let at = (variant.as_str(), percent(*load));
                waits.entry(at).or_default().entry(policy.as_str()).or_default().push(*p99_wait_now_ms);
            }
            Line::Tenth { variant, policy, missed_percent } => {
                tenth.entry(variant).or_default().entry(policy.as_str()).or_default().push(*missed_percent);
            }
            Line::Capacity { variant, policy, places: needed } => {
                places.entry(variant).or_default().entry(policy.as_str()).or_default().push(*needed);
            }
        }
    }
    println!("\n{:22}{head}", "MISSED where fifo 10 %");
    tenth.iter().for_each(|(variant, values)| row(variant, values));
    println!("\n{:22}{head}", "P99 WAIT, ms, now");
    waits.iter().for_each(|((variant, load), values)| row(&format!("{variant}, load {load} %"), values));
    println!("\n{:22}{head}", "PLACES for 1 % missed");
    places.iter().for_each(|(variant, values)| row(variant, values));
}

/// The median, and least to most.
fn shown(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (median(&sorted), sorted.first(), sorted.last()) {
        (Some(median), Some(least), Some(most)) => format!("{median:.2} ({least:.2} to {most:.2})"),
        _ => "-".to_owned(),
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn drawn(lines: &[Line]) -> String {
    let found = misses(lines);
    let panel = |title: &'static str, variant: &str| {
        let points = |policy: &str| {
            let of = found.iter().filter(|((name, _), _)| *name == variant);
            let each = of.filter_map(|((_, load), values)| {
                let mut sorted = values.get(policy)?.clone();
                sorted.sort_by(f64::total_cmp);
                Some((f64::from(*load), median(&sorted)?))
            });
            each.collect()
        };
        Panel { title, series: POLICIES.map(|name| Series { name, points: points(name) }).into() }
    };
    let panels = [
        panel("tight: percent of deadlines missed, by load; callers have 30 s (median) of their own to do", "tight"),
        panel("patient: the same with 120 s", "patient"),
        panel("erratic: 120 s, and nothing to be learned from the past", "erratic"),
    ];
    plot::svg("Deadlines missed, median of seeds", LOAD, &panels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_medians_and_a_plot() {
        let line = |seed: u32, missed: f64| {
            format!(
                r#"{{"sim":"deadlines","case":"misses","variant":"tight","seed":{seed},"load":0.3,"policy":"fifo","missed_percent":{missed},"p99_wait_now_ms":2.0}}"#
            )
        };
        let lines: Vec<Line> = [(1, 3.0), (2, 1.0), (3, 2.0)]
            .map(|(seed, missed)| serde_json::from_str(&line(seed, missed)).unwrap())
            .into();
        let found = misses(&lines);
        assert_eq!(shown(&found[&("tight", 30)]["fifo"]), "2.00 (1.00 to 3.00)");
        assert!(drawn(&lines).contains("fifo"));
    }
}

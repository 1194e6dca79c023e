//! `cargo xtask test`: every check that a change must pass, part by part, each with one line of result.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{checks, functions, run};

/// Which parts to run.
#[derive(clap::Args)]
pub struct TestArgs {
    /// Only these parts [default: all]. `--list` names them.
    parts: Vec<String>,
    /// Name the parts and end.
    #[arg(long)]
    list: bool,
}

/// How a part ended.
pub enum Outcome {
    /// As it must.
    Passed,
    /// What it needs is not on this machine.
    Skipped(String),
}

struct Part {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Outcome>,
}

const PARTS: &[Part] = &[
    Part { name: "fmt", about: "formatting", run: || passed(run::cargo(&["fmt", "--all", "--check"])) },
    Part { name: "rules", about: "file sizes, unsafe only in sandbox", run: || passed(checks::rules()) },
    Part { name: "clippy", about: "lints", run: || passed(run::cargo(checks::CLIPPY)) },
    // Before the tests that run them.
    Part { name: "functions", about: "functions that tests run", run: || passed(functions::build()) },
    Part {
        name: "rust",
        about: "Rust tests of the workspace",
        run: || passed(run::cargo(&["test", "--workspace", "--quiet"])),
    },
];

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

/// Runs the parts asked for; an error when any failed.
pub fn run(args: &TestArgs) -> Result<()> {
    if args.list {
        PARTS.iter().for_each(|part| println!("{:10} {}", part.name, part.about));
        return Ok(());
    }
    if let Some(unknown) = args.parts.iter().find(|name| PARTS.iter().all(|part| part.name != name.as_str())) {
        bail!("no part is called {unknown:?}; `cargo xtask test --list` names them");
    }
    let (mut done, mut failed, mut skipped) = (0, 0, 0);
    let mut lines = Vec::new();
    for part in PARTS.iter().filter(|part| args.parts.is_empty() || args.parts.iter().any(|name| name == part.name)) {
        println!("== {} ({})", part.name, part.about);
        let begun = Instant::now();
        let result = (part.run)();
        let (word, note) = match result {
            Ok(Outcome::Passed) => {
                done += 1;
                ("passed", String::new())
            }
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                ("SKIPPED", why)
            }
            Err(error) => {
                failed += 1;
                ("FAILED", format!("{error:#}"))
            }
        };
        lines.push(format!("{:10} {word:8} {:6.1} s  {note}", part.name, begun.elapsed().as_secs_f64()));
    }
    println!();
    lines.iter().for_each(|line| println!("{line}"));
    println!("{done} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { bail!("{failed} of the parts failed") } else { Ok(()) }
}

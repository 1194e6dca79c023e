//! `cargo xtask test`: every check that a change must pass, part by part, each with one line of result.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{checks, clients, deny, docs, run};

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

/// In the order in which they fail fastest.
const PARTS: &[Part] = &[
    Part { name: "fmt", about: "formatting", run: || passed(run::cargo(&["fmt", "--all", "--check"])) },
    Part { name: "rules", about: "file sizes, unsafe only in sandbox", run: || passed(checks::rules()) },
    Part { name: "clippy", about: "lints", run: || passed(run::cargo(checks::CLIPPY)) },
    Part { name: "deny", about: "licences, banned crates, duplicates, sources", run: deny::crates },
    Part { name: "advisories", about: "known faults of crates we depend on", run: deny::advisories },
    Part { name: "rust", about: "Rust tests of the workspace", run: rust },
    Part { name: "python", about: "the Python runtime's own tests", run: clients::python_runtime },
    Part { name: "node", about: "the Node.js runtime's own tests", run: clients::node_runtime },
    Part { name: "clients", about: "real AWS clients against a node", run: clients::clients },
    Part {
        name: "kills",
        about: "calls while processes of containers are killed, events while the node is",
        run: crate::soak::small,
    },
    Part { name: "docs", about: "commands of the documentation", run: docs::commands },
    Part { name: "demo", about: "the demo, from the command of the README", run: demo },
];

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

/// As root nothing stands in the way of isolation, so tests that need it may not skip.
fn rust() -> Result<Outcome> {
    crate::functions::build()?;
    let mut cargo = run::command(run::cargo_path());
    cargo.args(["test", "--workspace", "--quiet", "--no-fail-fast"]);
    if run::is_root() {
        cargo.env("LAMBENT_TEST_REQUIRE_ISOLATION", "1");
    }
    // Without a server the tests that want one say so, and skip.
    if let Some(programs) = crate::bench::install::postgres() {
        cargo.env("LAMBENT_TEST_POSTGRES", programs).env("LAMBENT_TEST_REQUIRE_POSTGRES", "1");
    }
    passed(run::check(&mut cargo))
}

fn demo() -> Result<Outcome> {
    let mut cargo = run::command(run::cargo_path());
    cargo.args([
        "run",
        "--release",
        "--quiet",
        "--",
        "demo",
        "--exit",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    // Relative, as its default is.
    passed(run::check(cargo.arg("target/demo")))
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
        let (word, note) = match (part.run)() {
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
        let line = format!("{:10} {word:8} {:6.1} s  {note}", part.name, begun.elapsed().as_secs_f64());
        println!("{line}");
        lines.push(line);
    }
    println!();
    lines.iter().for_each(|line| println!("{line}"));
    println!("{done} passed, {failed} failed, {skipped} skipped");
    // The last line is for machines; what failed stands above it.
    if failed > 0 { Err(run::Failed.into()) } else { Ok(()) }
}

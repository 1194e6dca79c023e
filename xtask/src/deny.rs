//! What `deny.toml` asks of the crates we depend on, by cargo-deny, which is built into `target/tools` where it is not there yet.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::run;
use crate::test::Outcome;

/// Another version may judge differently, so everybody runs this one.
const VERSION: &str = "0.20.2";

/// How long `timeout` lets the advisory database take, in seconds.
const FETCH_WITHIN: &str = "120";

/// Licences, banned crates, duplicates and sources: all from what cargo has anyway.
pub fn crates() -> Result<Outcome> {
    run::check(cargo_deny()?.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    Ok(Outcome::Passed)
}

/// Known faults. Their database is a git repository that is not reachable from everywhere; where it is not, that is said and nothing
/// is claimed.
pub fn advisories() -> Result<Outcome> {
    let program = installed()?;
    let fetched = run::command("timeout").arg(FETCH_WITHIN).arg(program).args(["fetch", "db"]).status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Ok(Outcome::Skipped(
            "NOT CHECKED for known faults: the advisory database could not be fetched from here".to_owned(),
        ));
    }
    run::check(cargo_deny()?.args(["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]))?;
    Ok(Outcome::Passed)
}

fn cargo_deny() -> Result<Command> {
    let mut command = run::command(installed()?);
    command.arg("--workspace");
    Ok(command)
}

/// The program of [`VERSION`]. Built without optimisation and debug information: it takes a minute instead of five, and runs for seconds.
fn installed() -> Result<PathBuf> {
    let program = run::target().join("tools/bin/cargo-deny");
    let shown = run::command(&program).arg("--version").output();
    if shown.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {VERSION}")) {
        return Ok(program);
    }
    println!("building cargo-deny {VERSION} into target/tools, once");
    let mut cargo = run::command(run::cargo_path());
    cargo.args(["install", "--quiet", "--locked", "--debug", "--force", "cargo-deny", "--version", VERSION, "--root"]);
    cargo.arg(run::target().join("tools"));
    // What it is made of is of no use afterwards: by default cargo builds in a folder that it removes.
    run::check(cargo.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_DEV_DEBUG", "false"))?;
    Ok(program)
}

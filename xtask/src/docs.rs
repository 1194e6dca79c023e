//! The commands of the documentation are run, so that nobody is told something that does not work.
//!
//! A `sh` block is run when the line before it is `<!-- tested -->`: with bash, in a directory of its own, with the binary and the
//! AWS CLI on PATH and no AWS settings of the caller's. All blocks of a file run in one shell, in their order, with each version of the
//! AWS CLI that is there.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test::Outcome;
use crate::{clients, run};

/// Files whose marked blocks are run.
const FILES: &[&str] = &["README.md"];
/// What marks a block.
const MARK: &str = "<!-- tested -->";

/// Where version 1 and version 2 of the AWS CLI are in the target folder; the second one cannot be had everywhere.
const CLIS: &[&str] = &["venv/bin", "aws2/bin"];

/// Runs every marked block.
pub fn commands() -> Result<Outcome> {
    run::lambent_for_tests()?;
    clients::setup(&["venv", "aws2"])?;
    let mut ran = 0;
    for file in FILES {
        let text = std::fs::read_to_string(run::root().join(file)).with_context(|| format!("reading {file}"))?;
        let blocks = marked(&text);
        if !blocks.is_empty() {
            for cli in CLIS.iter().filter(|cli| run::target().join(cli).join("aws").is_file()) {
                println!("{file}: {} blocks with {cli}", blocks.len());
                shell(&blocks.join("\n"), cli).with_context(|| format!("the commands of {file} failed with {cli}"))?;
            }
            ran += blocks.len();
        }
    }
    if ran == 0 { Ok(Outcome::Skipped(format!("no block is marked {MARK}"))) } else { Ok(Outcome::Passed) }
}

/// The content of each marked `sh` block.
fn marked(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == MARK && lines.next().is_some_and(|fence| fence.trim() == "```sh") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

fn shell(script: &str, cli: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let path = [run::target().join("debug"), run::target().join(cli)].map(|dir| dir.display().to_string());
    let inherited = std::env::var("PATH").unwrap_or_default();
    // What the script left running (a node, say) ends with it.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{script}\n");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(home.path())
        .env_clear()
        .env("PATH", format!("{}:{inherited}", path.join(":")))
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        // Ports of its own, whatever runs on this machine.
        .env("LAMBENT_API_LISTEN", "127.0.0.1:0")
        .env("LAMBENT_URLS_LISTEN", "127.0.0.1:0")
        .process_group(0);
    if !bash.status()?.success() {
        bail!("a command failed in {}", show(home.path()));
    }
    Ok(())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text = "```sh\nno\n```\n\n<!-- tested -->\n```sh\na\nb\n```\n<!-- tested -->\n```text\nno\n```\n";
        assert_eq!(marked(text), ["a\nb"]);
    }
}

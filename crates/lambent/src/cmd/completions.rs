//! `lambent completions SHELL`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints the script.
pub fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::Cli::command(), "lambent", &mut script);
    super::output::bytes(&script)
}

//! `cargo xtask soak`: a node under long load and steady harm, after which every call must be accounted for and nothing be left.

mod calls;
mod census;
mod events;
pub mod functions;
mod harm;
mod kills;
mod pools;
pub mod procs;
pub mod receiver;
mod verdict;

use anyhow::Result;
pub use harm::Chance;

/// Which soak, and how it reports.
#[derive(clap::Args)]
pub struct SoakArgs {
    #[command(subcommand)]
    soak: Soak,
}

#[derive(clap::Subcommand)]
enum Soak {
    /// Calls while processes of the node's containers are killed at random.
    Kills(kills::KillsArgs),
    /// Events while the node is killed at random; every acknowledged one must have run.
    Events(events::EventsArgs),
    /// Random arrivals over many functions, kills and memory pressure, for a long time; with a plot of it.
    Pools(pools::PoolsArgs),
}

/// Runs a soak.
pub fn run(args: &SoakArgs) -> Result<()> {
    match &args.soak {
        Soak::Kills(args) => kills::run(args),
        Soak::Events(args) => events::run(args),
        Soak::Pools(args) => pools::run(args),
    }
}

/// The small soaks that every change must pass, with the binary that was just built.
pub fn small() -> Result<crate::test::Outcome> {
    let outcome = kills::small()?;
    if matches!(outcome, crate::test::Outcome::Passed) {
        events::small()?;
    }
    Ok(outcome)
}

//! What developers and CI run: `cargo xtask test`, `bench`, `soak`, `sim`, `fmt`, `lint`, `functions`, `model`.
#![forbid(unsafe_code)]

mod api;
mod bench;
mod checks;
mod clients;
mod deny;
mod docs;
mod functions;
mod model;
mod plot;
mod run;
mod sim;
mod soak;
mod test;

use clap::{Parser, Subcommand};

/// Development tasks of Lambent.
#[derive(Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check that a change must pass, or only the named parts.
    Test(test::TestArgs),
    /// Measure Lambent beside its peers.
    Bench(bench::BenchArgs),
    /// Put a node under load and harm, and see that it holds.
    Soak(soak::SoakArgs),
    /// Run what decides on a node in virtual time, beside other ways to decide.
    Sim(sim::SimArgs),
    /// Format everything.
    Fmt,
    /// Clippy, with warnings as errors.
    Lint,
    /// Build the functions that tests run, into `target/functions`.
    Functions(functions::FunctionsArgs),
    /// Take the Lambda service model from botocore.
    Model(model::ModelArgs),
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Fmt => run::cargo(&["fmt", "--all"]),
        Task::Lint => run::cargo(checks::CLIPPY),
        Task::Functions(args) => functions::run(&args),
        Task::Model(args) => model::run(&args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<run::Failed>() {
                eprintln!("xtask: {error:#}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}

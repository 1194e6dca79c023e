//! `cargo xtask bench`: Lambent beside something that does the same job, on one machine, in one run, turn by turn.

mod affinity;
mod burst;
mod cold;
mod density;
mod enqueue;
pub mod install;
mod jetstream;
pub mod load;
mod relay;
pub mod report;
mod reuse;
pub mod servers;
mod warm;
mod wasm;

use anyhow::Result;

/// Which bench, and how it reports.
#[derive(clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Warm invocations, beside the AWS Runtime Interface Emulator.
    Warm(warm::WarmArgs),
    /// WebAssembly functions, beside `wasmtime serve` and `workerd`.
    Wasm(wasm::WasmArgs),
    /// The way from a request to the first line of user code in a container made for it.
    Cold(cold::ColdArgs),
    /// Many requests at once to a function that has no container, and what another function's callers see of it.
    Burst(burst::BurstArgs),
    /// Keeping events, beside Redis, JetStream and SQLite; what a backlog costs; how soon an event starts.
    Enqueue(enqueue::EnqueueArgs),
    /// Answers on record, beside warm Python calls.
    Reuse(reuse::ReuseArgs),
    /// A function that keeps models in memory, with affinity and without.
    Affinity(affinity::AffinityArgs),
    /// Idle Python containers per GiB, beside idle emulators.
    Density(density::DensityArgs),
}

/// Runs a bench.
pub fn run(args: &BenchArgs) -> Result<()> {
    match &args.bench {
        Bench::Warm(args) => warm::run(args),
        Bench::Wasm(args) => wasm::run(args),
        Bench::Cold(args) => cold::run(args),
        Bench::Burst(args) => burst::run(args),
        Bench::Enqueue(args) => enqueue::run(args),
        Bench::Reuse(args) => reuse::run(args),
        Bench::Affinity(args) => affinity::run(args),
        Bench::Density(args) => density::run(args),
    }
}

//! The `lambent` binary: reads the command line, builds the parts, joins them. No decision of the product is made here.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod cmd;
mod config;
mod node;
mod package;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use config::ProcessEnv;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage or configuration; clap's own, too.
const WRONG_USAGE: u8 = 2;
/// Exit code of an invocation whose function answered with an error.
const FUNCTION_ERROR: u8 = 3;

fn main() -> ExitCode {
    // A cell's agent is this same program; it must not have threads or open files of ours.
    lambent_sandbox::agent::main_if_asked();
    // So are the programs of WebAssembly functions, inside cells.
    lambent_sandbox::wasm::main_if_asked();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&anyhow::Error::new(error).context("cannot start the async runtime"), cli.json),
    };
    let json = cli.json;
    let result = runtime.block_on(cmd::run(cli, &ProcessEnv));
    // What is still running then has been waited for, or is not worth waiting for (a blocked read of standard input).
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, json),
    }
}

/// Threads for the node's own work: half of the processors, the other half is the functions'. More of them would mostly wake each other:
/// a warm call is a few hundred microseconds of waiting and a few dozen of work, and a wake-up across processors costs as much as all
/// that the node does for it. `TOKIO_WORKER_THREADS` overrides it.
fn threads() -> usize {
    let wanted = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.parse().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or(processors / 2).max(1)
}

/// Prints the whole chain of an error, and chooses the exit code.
fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = exit_code(error);
    if json {
        let kind = error.downcast_ref::<client::ApiError>().map(|error| error.code.as_str());
        eprintln!("{}", serde_json::json!({"error": {"code": kind, "message": format!("{error:#}"), "exit": code}}));
    } else if code != FUNCTION_ERROR {
        eprintln!("lambent: {error:#}");
    }
    ExitCode::from(code)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<cmd::FunctionFailed>() {
        FUNCTION_ERROR
    } else if error.is::<config::Error>() || error.is::<cmd::WrongUsage>() {
        WRONG_USAGE
    } else {
        FAILED
    }
}

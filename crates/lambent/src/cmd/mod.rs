//! One file per command.

mod affinity;
mod calls;
mod completions;
mod config;
mod credentials;
mod demo;
mod deploy;
mod doctor;
mod events;
mod executions;
mod functions;
mod invoke;
mod logs;
mod output;
mod schedules;
mod serve;
mod top;
mod version;
mod waterfall;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::config::Env;

/// The command line or the environment asks for something impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// The call worked, the function did not; its answer is printed already.
#[derive(Debug, thiserror::Error)]
#[error("the function failed ({0})")]
pub struct FunctionFailed(pub String);

/// Runs one command.
pub async fn run(cli: Cli, env: &dyn Env) -> Result<()> {
    let json = cli.json;
    match cli.command {
        Command::Serve(args) => serve::run(&args, env, json).await,
        Command::Demo(args) => demo::run(&args, env, json).await,
        Command::Deploy(args) => deploy::run(&args, env, json).await,
        Command::Invoke(args) => invoke::run(&args, env, json).await,
        Command::Logs(args) => logs::run(&args, env, json).await,
        Command::Top(args) => top::run(&args, env, json).await,
        Command::Functions(args) => functions::run(args, env, json).await,
        Command::Events(args) => events::run(args, None, env, json).await,
        Command::DeadLetters(args) => events::run(args, Some(events::DEAD_LETTERS), env, json).await,
        Command::Affinity(args) => affinity::run(args, env, json).await,
        Command::Calls(args) => calls::run(args, env, json).await,
        Command::Executions(args) => executions::run(args, env, json).await,
        Command::Schedules(args) => schedules::run(args, env, json).await,
        Command::Credentials(args) => credentials::run(&args, env, json).await,
        Command::Doctor(args) => doctor::run(&args, env, json).await,
        Command::Config(args) => config::run(&args, env, json),
        Command::Version => version::run(json),
        Command::Completions { shell } => completions::run(shell),
    }
}

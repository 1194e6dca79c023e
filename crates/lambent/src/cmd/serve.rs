//! `lambent serve`.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::output;
use crate::cli::ServeArgs;
use crate::config::{self, Config, Env, Use};
use crate::node::{Node, Signals, Telemetry};

/// Runs a node until it is told to stop.
pub async fn run(args: &ServeArgs, env: &dyn Env, json: bool) -> Result<()> {
    let begun = Instant::now();
    let config = config::load(args, env, Use::Serve)?.config;
    let telemetry = Telemetry::install(&config).await?;
    let signals = Signals::catch()?;
    let node = Node::start(&config, env, &telemetry).await?;
    let millis = begun.elapsed().as_millis();
    if json {
        output::json(&json!({"ready": node.endpoint, "start_ms": millis}))?;
    } else {
        output::line(&format!("ready {} in {millis} ms", node.endpoint))?;
    }
    serve_on(node, telemetry, signals, &config).await;
    Ok(())
}

/// Serves until a signal comes, then ends in order; a second signal ends the process at once.
pub async fn serve_on(node: Node, telemetry: Telemetry, mut signals: Signals, config: &Config) {
    let signal = signals.next().await;
    tracing::info!(grace = ?config.shutdown.grace, "{signal}: running calls may end; once more ends at once");
    signals.next_one_ends_the_process();
    node.stop(config.shutdown.grace).await;
    telemetry.shutdown().await;
}

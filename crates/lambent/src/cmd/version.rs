//! `lambent version`.

use anyhow::Result;
use serde_json::json;

use super::output;

/// Prints the version.
pub fn run(json: bool) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if json { output::json(&json!({"version": version})) } else { output::line(&format!("lambent {version}")) }
}

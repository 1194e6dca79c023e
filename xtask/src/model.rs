//! Takes names, types, limits and patterns of the Lambda service model from botocore, without its documentation text.

use anyhow::{Result, bail};

/// What to take.
#[derive(clap::Args)]
pub struct ModelArgs {}

/// Runs the step.
pub fn run(_: &ModelArgs) -> Result<()> {
    bail!("the model step has not landed yet")
}

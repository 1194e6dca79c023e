//! Cold calls of a node over its signed API.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;

use super::case::Case;
use crate::api::{self, Api};
use crate::bench::load::{self, Asked, Target};
use crate::bench::servers::Lambent;
use crate::run;

/// One whole CPU, so that Lambda's CPU share is not what is measured.
pub const MEMORY_OF_ONE_CPU: u32 = 1769;
/// Calls that do not count: the first makes the code ready, and tells the node which kind of instance is wanted.
const WARM_UP: usize = 3;
/// How long a node may take to end the last container and to fill its pool.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whether instances wait for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    Full,
    Empty,
}

impl Pool {
    /// The node's settings for it.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::Empty => &["pool.floor=0", "pool.ceiling=0"],
        }
    }
}

/// Whether a node of this binary can be told to keep no pool.
pub fn can_be_empty(binary: &Path) -> Result<bool> {
    let shown = run::command(binary).arg("config").output()?;
    Ok(String::from_utf8_lossy(&shown.stdout).contains("pool.ceiling"))
}

/// So many cold calls: until user code began, and until the answer was there, in milliseconds.
pub fn measure(binary: &Path, case: &Case, pool: Pool, calls: usize) -> Result<Vec<(f64, f64)>> {
    let node = Lambent::start_with(binary, pool.settings(), Stdio::inherit())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let wanted = json!({
        "FunctionName": "cold",
        "Runtime": case.runtime,
        "MemorySize": MEMORY_OF_ONE_CPU,
        "Timeout": 30,
        "Code": { "ZipFile": api::zip(case.file, &case.content)? },
    });
    api::block_on(api.create(wanted))?;
    let path = "/2015-03-31/functions/cold/invocations".to_owned();
    let target = Target { address: node.address, path, key: Some(node.key.clone()), asked: Asked::Answer };
    let mut samples = Vec::new();
    for call in 0..WARM_UP + calls {
        renew(&api, call)?;
        settle(&api, pool)?;
        let sample = load::until_user_code(&target)?;
        if call >= WARM_UP {
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// Makes the containers that are there a thing of the past.
fn renew(api: &Api, call: usize) -> Result<()> {
    let changed = json!({ "Environment": { "Variables": { "CALL": call.to_string() } } });
    api.command(Method::PUT, "/2015-03-31/functions/cold/configuration", &changed)?;
    api::block_on(api.wait_active("cold"))
}

/// Waits until no container is there, and the pool is as full as it wants to be.
pub fn settle(api: &Api, pool: Pool) -> Result<()> {
    let begun = Instant::now();
    loop {
        let metrics = api.metrics()?;
        let containers = api::sum(&metrics, "lambent_containers");
        let waiting: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("lambent_pool_instances{") && line.contains("state=\"waiting\""))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        if containers <= 0.0 && (pool == Pool::Empty || waiting >= api::sum(&metrics, "lambent_pool_target")) {
            return Ok(());
        }
        if begun.elapsed() > SETTLED_WITHIN {
            bail!("the node does not come to rest: {containers} containers, {waiting} instances wait");
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when another process has ended its containers")]
        std::thread::sleep(LOOK_EVERY);
    }
}

//! What a function costs, as its caller sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::client::{Ask, Client};

/// How long one client calls at most: a function that starts programs for each event needs a fifth of a second for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at once for the throughput column.
const CLIENTS: usize = 8;
/// How long they call before it counts, so that their containers are there.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long they call then.
const COUNTED: Duration = Duration::from_millis(1500);
/// What every example understands.
const EVENT: &[u8] = br#"{"name": "Ada"}"#;

/// One function's figures.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Figures {
    /// The first call, which made the container.
    pub cold_start_ms: f64,
    /// The middle of the warm calls by one client.
    pub warm_p50_ms: f64,
    /// All but one in a hundred of them were faster.
    pub warm_p99_ms: f64,
    /// By several clients at once.
    pub calls_per_second: f64,
    /// The most memory the container used, as its REPORT line says.
    pub memory_mib: Option<u32>,
    /// What it answered.
    pub answer: String,
}

/// Calls `function` in every way that the table shows; `calls` times by one client, or as often as its patience lasts.
pub async fn measure(client: &Client, function: &str, calls: u32) -> Result<Figures> {
    let (cold, answer) = call(client, function).await?;
    let (begun, mut warm) = (Instant::now(), Vec::new());
    while warm.is_empty() || warm.len() < calls as usize && begun.elapsed() < PATIENCE {
        warm.push(call(client, function).await?.0);
    }
    warm.sort();
    let calls_per_second = throughput(client, function).await?;
    let reported =
        client.invoke(function, None, Bytes::from_static(EVENT), Ask { log: true, ..Ask::default() }).await?;
    Ok(Figures {
        cold_start_ms: millis(cold),
        warm_p50_ms: millis(percentile(&warm, 50)),
        warm_p99_ms: millis(percentile(&warm, 99)),
        calls_per_second,
        memory_mib: reported.log_tail.as_deref().and_then(memory_used),
        answer: String::from_utf8_lossy(&answer).into_owned(),
    })
}

async fn call(client: &Client, function: &str) -> Result<(Duration, Bytes)> {
    let begun = Instant::now();
    let answer = client.invoke(function, None, Bytes::from_static(EVENT), Ask::default()).await?;
    let took = begun.elapsed();
    match answer.function_error {
        None => Ok((took, answer.payload)),
        Some(kind) => bail!("{function} answered {kind}: {}", String::from_utf8_lossy(&answer.payload)),
    }
}

async fn throughput(client: &Client, function: &str) -> Result<f64> {
    let (counting, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let count = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, function) = (client.clone(), function.to_owned());
        let (counting, ended, count) = (counting.clone(), ended.clone(), count.clone());
        clients.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                call(&client, &function).await?;
                count.fetch_add(u64::from(counting.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    counting.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(COUNTED).await;
    let (calls, took) = (count.load(Ordering::Relaxed), begun.elapsed());
    ended.store(true, Ordering::Relaxed);
    while let Some(result) = clients.join_next().await {
        result.context("a client broke off")??;
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer calls than a float can count")]
    Ok(calls as f64 / took.as_secs_f64())
}

/// The value below which so many percent of `sorted` are.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).or(sorted.last()).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// `Max Memory Used: 31 MB` of a REPORT line.
fn memory_used(log: &str) -> Option<u32> {
    log.split_once("Max Memory Used: ")?.1.split_once(' ')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&[Duration::from_millis(7)], 99), Duration::from_millis(7));
    }

    #[test]
    fn memory_is_read_from_the_report() {
        let log = "END RequestId: x\nREPORT RequestId: x\tMemory Size: 128 MB\tMax Memory Used: 31 MB\t\n";
        assert_eq!(memory_used(log), Some(31));
        assert_eq!(memory_used("nothing"), None);
    }
}

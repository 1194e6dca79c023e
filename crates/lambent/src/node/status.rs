//! The document of `/_lambent/status`: what the node, its pools and its containers are doing, for `lambent top` and whoever else asks.

use std::sync::Arc;
use std::time::Instant;

use lambent_fleet::Fleet;
use lambent_invoker::Invoker;
use serde_json::{Value, json};

/// What there is now.
pub async fn document(fleet: Arc<Fleet>, invoker: Arc<Invoker>, begun: Instant) -> Value {
    let status = fleet.status_with_usage().await;
    let own = tokio::fs::read_to_string("/proc/self/smaps_rollup").await.unwrap_or_default();
    json!({
        "node": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "calls_running": invoker.running(),
            "pss_bytes": pss_bytes(&own),
        },
        "fleet": serde_json::to_value(status).unwrap_or_default(),
    })
}

/// The `Pss` line, in bytes.
fn pss_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_not_its_parts() {
        assert_eq!(pss_bytes("Rss: 9 kB\nPss:   12 kB\nPss_Anon: 5 kB\n"), Some(12 * 1024));
        assert_eq!(pss_bytes(""), None);
    }
}

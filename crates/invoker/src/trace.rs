//! `X-Amzn-Trace-Id`, `Root=1-<8 hex seconds>-<24 hex>;Parent=<16 hex>;Sampled=0|1`.
//!
//! What the caller sent is passed on, completed where parts are missing. Where nothing was sent a trace is begun, as AWS does for
//! every invocation; only functions with active tracing have it sampled.

use jiff::Timestamp;
use lambent_model::function::TracingMode;

/// Random bits of a new trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    /// For the root; 96 bits are used.
    pub root: u128,
    /// For the segment.
    pub parent: u64,
}

/// The header that the function sees.
pub(crate) fn header(sent: Option<String>, mode: TracingMode, now: Timestamp, fresh: Fresh) -> String {
    let sampled = match mode {
        TracingMode::Active => 1,
        TracingMode::PassThrough => 0,
    };
    let Some(mut header) = sent.filter(|sent| sent.contains("Root=")) else {
        let root = fresh.root & ((1 << 96) - 1);
        return format!("Root=1-{:08x}-{root:024x};Parent={:016x};Sampled={sampled}", now.as_second(), fresh.parent);
    };
    if !header.contains("Parent=") {
        header.push_str(&format!(";Parent={:016x}", fresh.parent));
    }
    if !header.contains("Sampled=") {
        header.push_str(&format!(";Sampled={sampled}"));
    }
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FRESH: Fresh = Fresh { root: 0xabc, parent: 0x1f };

    #[test]
    fn a_trace_begins_where_none_was_sent() {
        let now = Timestamp::from_second(0x5759_e988).unwrap();
        assert_eq!(
            header(None, TracingMode::PassThrough, now, FRESH),
            "Root=1-5759e988-000000000000000000000abc;Parent=000000000000001f;Sampled=0"
        );
        assert!(header(None, TracingMode::Active, now, FRESH).ends_with(";Sampled=1"));
        assert!(header(Some("nonsense".to_owned()), TracingMode::Active, now, FRESH).starts_with("Root=1-5759e988-"));
    }

    #[test]
    fn what_was_sent_is_passed_on_and_completed() {
        let now = Timestamp::UNIX_EPOCH;
        let whole = "Root=1-a-b;Parent=c;Sampled=1";
        assert_eq!(header(Some(whole.to_owned()), TracingMode::PassThrough, now, FRESH), whole);
        assert_eq!(
            header(Some("Root=1-a-b".to_owned()), TracingMode::PassThrough, now, FRESH),
            "Root=1-a-b;Parent=000000000000001f;Sampled=0"
        );
    }
}

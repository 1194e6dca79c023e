//! The last 4 KB of a call's log.

use bytes::Bytes;
use lambent_model::limits::LOG_TAIL_BYTES;

/// Keeps the end of what is pushed.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &str) {
        let line = line.as_bytes();
        // A line longer than the tail leaves its own end only.
        let from = line.len().saturating_sub(LOG_TAIL_BYTES);
        self.0.extend_from_slice(line.get(from..).unwrap_or_default());
        if line.last() != Some(&b'\n') {
            self.0.push(b'\n');
        }
        // Trimmed now and then, not at every line.
        if self.0.len() > 4 * LOG_TAIL_BYTES {
            self.trim();
        }
    }

    pub(super) fn into_bytes(mut self) -> Bytes {
        self.trim();
        self.0.into()
    }

    fn trim(&mut self) {
        let surplus = self.0.len().saturating_sub(LOG_TAIL_BYTES);
        self.0.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let mut tail = Tail::default();
        for number in 0..10_000 {
            tail.push(&format!("line {number}"));
        }
        let kept = tail.into_bytes();
        assert_eq!(kept.len(), LOG_TAIL_BYTES);
        assert!(kept.ends_with(b"line 9998\nline 9999\n"));
        let mut long = Tail::default();
        long.push(&"x".repeat(3 * LOG_TAIL_BYTES));
        assert_eq!(long.into_bytes().len(), LOG_TAIL_BYTES);
    }
}

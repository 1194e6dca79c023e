//! How fast one version's containers may become more.

use std::time::{Duration, Instant};

use lambent_model::limits::SCALING_WINDOW;

/// A bucket of starts, full at first, refilled evenly; as AWS describes its concurrency scaling rate
/// (<https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html>).
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// What was taken and is not refilled yet, and when that was reckoned.
    taken: f64,
    at: Option<Instant>,
}

impl Rate {
    /// Whether one of the `most` starts that a window has is left.
    pub(super) fn allows(&mut self, now: Instant, most: u32) -> bool {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let refilled = f64::from(most) * passed.div_duration_f64(SCALING_WINDOW);
        self.taken = (self.taken - refilled).max(0.0);
        self.at = Some(now);
        self.taken + 1.0 <= f64::from(most)
    }

    /// Takes one that is left.
    pub(super) fn take(&mut self) {
        self.taken += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_so_many_and_refills_evenly() {
        let (mut rate, begun) = (Rate::default(), Instant::now());
        let taken = |rate: &mut Rate, now| {
            let mut take = || rate.allows(now, 10).then(|| rate.take());
            (0..20).filter_map(|_| take()).count()
        };
        assert_eq!(taken(&mut rate, begun), 10);
        assert_eq!(taken(&mut rate, begun + SCALING_WINDOW / 2), 5);
        assert_eq!(taken(&mut rate, begun + SCALING_WINDOW * 9), 10);
        // A clock that stood still, or went back, gives nothing.
        assert_eq!(taken(&mut rate, begun), 0);
    }
}

//! How many instances of a kind will be wanted, judged by the recent past.
//!
//! Two things make instances wanted: a steady stream of cold starts, of which those that come while new instances are being made must be
//! covered, and bursts, which come again. So the forecast is the smoothed rate times the time it takes to refill, plus the largest
//! number of cold starts in one second, which is forgotten by halves.

use std::time::Duration;

/// The rate is smoothed over about this long.
const SMOOTH: Duration = Duration::from_secs(60);
/// A burst counts half after this long.
const FORGET: Duration = Duration::from_secs(180);
/// How long it takes until what was taken is there again, on a machine that has other work.
const REFILL: Duration = Duration::from_secs(2);
/// What comes within this long is one burst.
const BURST: Duration = Duration::from_secs(1);
/// What is less than this is no demand any more.
const NOTHING: f64 = 0.05;

/// The recent past of one kind. Times are since any fixed moment and never run backwards.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Forecast {
    /// Cold starts a second, smoothed.
    rate: f64,
    /// The largest burst, decayed.
    burst: f64,
    /// The burst under way.
    current: f64,
    current_since: Duration,
    seen: Duration,
}

impl Forecast {
    /// A cold start wants an instance.
    pub(crate) fn arrived(&mut self, now: Duration) {
        self.age(now);
        if now.saturating_sub(self.current_since) >= BURST {
            (self.current, self.current_since) = (0.0, now);
        }
        self.current += 1.0;
        self.burst = self.burst.max(self.current);
        self.rate += 1.0 / SMOOTH.as_secs_f64();
    }

    /// Instances that should wait now.
    pub(crate) fn wanted(&mut self, now: Duration) -> usize {
        self.age(now);
        let wanted = self.rate * REFILL.as_secs_f64() + self.burst;
        if wanted < NOTHING { 0 } else { (wanted - NOTHING).ceil() as usize }
    }

    fn age(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.seen).as_secs_f64();
        self.seen = self.seen.max(now);
        self.rate *= (-passed / SMOOTH.as_secs_f64()).exp();
        self.burst *= (-passed / FORGET.as_secs_f64()).exp2();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn nothing_is_wanted_where_nothing_comes() {
        assert_eq!(Forecast::default().wanted(at(1_000.0)), 0);
    }

    #[test]
    fn a_burst_is_expected_again_and_forgotten() {
        let mut forecast = Forecast::default();
        (0..20).for_each(|n| forecast.arrived(at(100.0 + f64::from(n) / 100.0)));
        assert_eq!(forecast.wanted(at(101.0)), 21);
        assert_eq!(forecast.wanted(at(280.0)), 10);
        assert_eq!(forecast.wanted(at(280.0 + 1_800.0)), 0);
    }

    #[test]
    fn a_steady_stream_is_covered_while_instances_are_made() {
        let mut forecast = Forecast::default();
        (0..3_000).for_each(|n| forecast.arrived(at(f64::from(n) / 5.0)));
        // Five a second for two seconds, and what came within one.
        assert_eq!(forecast.wanted(at(600.0)), 15);
    }

    #[test]
    fn single_calls_want_one() {
        let mut forecast = Forecast::default();
        forecast.arrived(at(10.0));
        assert_eq!(forecast.wanted(at(10.0)), 1);
        assert_eq!(forecast.wanted(at(100.0)), 1);
        assert_eq!(forecast.wanted(at(3_600.0)), 0);
    }
}

//! Quantiles of durations, in little space, of which the old is forgotten.
//!
//! A histogram whose buckets grow by a constant factor, as DDSketch (Masson, Rim and Lee, VLDB 2019) and HdrHistogram have it: what it says
//! is within [`ERROR`] of a duration that was noted, from [`LEAST`] to [`MOST`]; shorter and longer ones count as those. Each note makes all before
//! it weigh a little less, so that after [`HALF_LIFE`] notes they weigh half: a function's past counts for as long as it takes the function to
//! be called often enough to show that it has changed, be that a second or a month. No crate that was looked at forgets.
//!
//! What is asked of it are a low quantile (of needs) and a high one (of durations). These follow a change for the worse after a few dozen notes, as
//! soon as the new has that share of the weight, and one for the better only when the old is forgotten: it errs on the side of starting early.
//!
//! Bounded: at most 175 buckets of eight bytes; a few dozen are usual. A bucket whose weight is next to nothing is given up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far a quantile may be from a duration that was noted, as a share of it.
pub const ERROR: f64 = 0.05;
/// Shorter ones count as this.
pub const LEAST: Duration = Duration::from_micros(100);
/// Longer ones count as this.
pub const MOST: Duration = Duration::from_secs(3_600);
/// After so many notes a note weighs half.
pub const HALF_LIFE: f64 = 512.0;
/// A bucket that weighs less is given up.
const NOTHING: f32 = 1e-3;
/// The growth of buckets.
const GROWTH: f64 = (1.0 + ERROR) / (1.0 - ERROR);

/// Durations that were noted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct Sketch {
    /// Number and weight of each bucket that has any, in order.
    buckets: Vec<(u8, f32)>,
    /// Notes ever.
    count: u64,
}

/// A sketch as it was written, by whomever.
#[derive(Deserialize)]
struct Kept {
    buckets: Vec<(u8, f32)>,
    count: u64,
}

impl From<Kept> for Sketch {
    fn from(Kept { mut buckets, count }: Kept) -> Self {
        buckets.retain(|(number, weight)| *number <= last() && weight.is_finite() && *weight >= NOTHING);
        buckets.sort_by_key(|(number, _)| *number);
        buckets.dedup_by_key(|(number, _)| *number);
        Self { buckets, count }
    }
}

impl Sketch {
    /// Notes a duration.
    pub fn note(&mut self, duration: Duration) {
        // 2^(-1/512).
        let fade = (-std::f64::consts::LN_2 / HALF_LIFE).exp() as f32;
        self.buckets.retain_mut(|(_, weight)| {
            *weight *= fade;
            *weight >= NOTHING
        });
        let number = bucket(duration);
        match self.buckets.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.buckets.get_mut(at).into_iter().for_each(|(_, weight)| *weight += 1.0),
            Err(at) => self.buckets.insert(at, (number, 1.0)),
        }
        self.count += 1;
    }

    /// The duration that this share of what was noted does not exceed; none of nothing.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: f64 = self.buckets.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut left = share.clamp(0.0, 1.0) * total;
        for (number, weight) in &self.buckets {
            left -= f64::from(*weight);
            if left <= 0.0 {
                return Some(middle(*number));
            }
        }
        // Rounding.
        self.buckets.last().map(|(number, _)| middle(*number))
    }

    /// How many were ever noted.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Bucket `n` has what is above `LEAST * GROWTH^(n-1)` up to `LEAST * GROWTH^n`; bucket 0 what is not above `LEAST`.
fn bucket(duration: Duration) -> u8 {
    let ratio = duration.clamp(LEAST, MOST).as_secs_f64() / LEAST.as_secs_f64();
    (ratio.ln() / GROWTH.ln()).ceil().clamp(0.0, f64::from(u8::MAX)) as u8
}

fn last() -> u8 {
    bucket(MOST)
}

/// What is within [`ERROR`] of all that is in a bucket.
fn middle(number: u8) -> Duration {
    let upper = LEAST.as_secs_f64() * GROWTH.powi(i32::from(number));
    Duration::from_secs_f64(if number == 0 { upper } else { upper * 2.0 / (GROWTH + 1.0) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(durations: impl IntoIterator<Item = Duration>) -> Sketch {
        let mut sketch = Sketch::default();
        durations.into_iter().for_each(|duration| sketch.note(duration));
        sketch
    }

    #[test]
    fn of_nothing_there_is_none() {
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn the_old_is_forgotten() {
        let (fast, slow) = (Duration::from_millis(10), Duration::from_secs(1));
        let near = |sketch: &Sketch, share, expected: Duration| {
            let found = sketch.quantile(share).unwrap();
            assert!(found.as_secs_f64() / expected.as_secs_f64() - 1.0 < ERROR, "{found:?} is not {expected:?}");
            assert!(found.as_secs_f64() / expected.as_secs_f64() - 1.0 > -ERROR, "{found:?} is not {expected:?}");
        };
        let mut sketch = of(std::iter::repeat_n(fast, 10_000));
        near(&sketch, 0.95, fast);
        (0..50).for_each(|_| sketch.note(slow));
        near(&sketch, 0.95, slow);
        near(&sketch, 0.5, fast);
        // More than one half-life.
        (0..600).for_each(|_| sketch.note(slow));
        near(&sketch, 0.5, slow);
        (0..10_000).for_each(|_| sketch.note(slow));
        near(&sketch, 0.0, slow);
        assert_eq!(sketch.buckets.len(), 1, "what weighs nothing is given up");
        assert_eq!(sketch.count(), 20_650);
    }

    #[test]
    fn what_was_written_by_whomever_is_a_sketch_or_none() {
        for (text, buckets) in [
            (r#"{"buckets":[[9,1.0],[3,2.0]],"count":3}"#, vec![(3, 2.0), (9, 1.0)]),
            (r#"{"buckets":[[3,-1.0],[4,1e300],[255,1.0],[3,2.0],[3,5.0]],"count":3}"#, vec![(3, 2.0)]),
        ] {
            assert_eq!(serde_json::from_str::<Sketch>(text).unwrap().buckets, buckets, "{text}");
        }
        assert!(serde_json::from_str::<Sketch>(r#"{"buckets":[[300,1.0]],"count":1}"#).is_err());
    }

    proptest! {
        /// Against all values in order, with the weights that fading gives them.
        #[test]
        fn a_quantile_is_near_the_one_of_all_values(
            micros in proptest::collection::vec(100_u64..3_600_000_000, 1..400),
            share in 0.0..1.0_f64,
        ) {
            let sketch = of(micros.iter().copied().map(Duration::from_micros));
            let found = sketch.quantile(share).unwrap().as_secs_f64() * 1e6;
            let age = |at: usize| (micros.len() - 1 - at) as f64;
            let mut weighed: Vec<(u64, f64)> =
                micros.iter().enumerate().map(|(at, value)| (*value, 2.0_f64.powf(-age(at) / HALF_LIFE))).collect();
            weighed.sort_by_key(|(value, _)| *value);
            let total: f64 = weighed.iter().map(|(_, weight)| weight).sum();
            // Weights are kept with less precision than the model's.
            let at = |share: f64| {
                let mut left = share.clamp(0.0, 1.0) * total;
                weighed.iter().find(|(_, weight)| { left -= weight; left <= 0.0 }).unwrap_or(weighed.last().unwrap()).0 as f64
            };
            let (low, high) = (at(share - 1e-3), at(share + 1e-3));
            prop_assert!(found >= low * (1.0 - ERROR) * 0.999 && found <= high * (1.0 + ERROR) * 1.001, "{found} is not in {low} to {high}");
            prop_assert!(sketch.buckets.len() <= usize::from(last()) + 1 && sketch.buckets.is_sorted_by_key(|bucket| bucket.0));
            let again: Sketch = serde_json::from_slice(&serde_json::to_vec(&sketch).unwrap()).unwrap();
            prop_assert_eq!(again, sketch);
        }
    }
}

//! Which container has a value, and what that is worth.
//!
//! A value's *home* is the container that ran its first call, until that container ends, or the value moves or is forgotten:
//!
//! ```text
//! no home ─► the idle container that comes first for it and holds no more than its share, else the idle one that holds least,
//!            else whatever the lane's calls get: it becomes the home                                                  miss
//! home    ─► holds more than its share: the idle container that comes first for it and holds less than the mean           spill
//!            idle: there                                                                                              hit
//!            busy: wait for it, as long as a hit saves ([`patience`]), behind at most WAITERS others                  hit
//!            still busy: the idle container that comes first for it, else whatever the lane's calls get               spill
//! ```
//! After a spill the home stays the home, and as each value has its own order of the containers (rendezvous hashing), it spills to the
//! same one again where it can. But where the home holds more than its share ([`share`]: it is overloaded) the value moves to where it went.
//!
//! Bounded: [`MOST_VALUES`] a container, the least recently used forgotten first; [`WAITERS`] a container.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use lambent_model::ContainerId;
use tokio::sync::oneshot;

use super::Handle;
use crate::affinity::{Outcome, Value};

/// Values remembered of one container.
pub(super) const MOST_VALUES: usize = 1_024;
/// Calls that wait for one container at once.
pub(super) const WAITERS: usize = 8;
/// What a call waits for its home before it is known what that saves.
const FIRST_PATIENCE: Duration = Duration::from_millis(100);
/// Durations that a mean goes back, about.
const MEMORY: u32 = 128;
/// With so much gain, or so many bytes, half of the longest time of keeping is reached, as far as it goes by that.
const HALF_GAIN: Duration = Duration::from_millis(50);
const HALF_BYTES: f64 = (64 << 20) as f64;

/// Waiting for one container: when it came, and who.
pub(super) type Waiters = VecDeque<(u64, oneshot::Sender<Handle>)>;

/// The values of one lane.
#[derive(Debug, Default)]
pub(super) struct Homes {
    values: HashMap<Value, Home>,
    containers: HashMap<ContainerId, Held>,
}

#[derive(Debug)]
struct Home {
    container: ContainerId,
    /// When it was last used; larger is more recent.
    used: u64,
}

/// What one container has.
#[derive(Debug, Default)]
struct Held {
    /// By when they were last used.
    values: BTreeMap<u64, Value>,
    waiting: Waiters,
}

impl Homes {
    /// Whether there is anything to know.
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Values that have a home, and containers that are one.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.values.len(), self.containers.values().filter(|held| !held.values.is_empty()).count())
    }

    /// The home of a value.
    pub(super) fn of(&self, value: Value) -> Option<ContainerId> {
        self.values.get(&value).map(|home| home.container)
    }

    /// Values that a container holds.
    pub(super) fn held(&self, container: ContainerId) -> usize {
        self.containers.get(&container).map_or(0, |held| held.values.len())
    }

    /// Those who wait for a container.
    pub(super) fn waiting(&mut self, container: ContainerId) -> Option<&mut Waiters> {
        self.containers.get_mut(&container).map(|held| &mut held.waiting)
    }

    /// Of these idle containers the one for a value that has no home, or whose home has no time. `containers`: all of the lane.
    pub(super) fn choose(&self, value: Value, idle: &[ContainerId], containers: usize) -> Option<ContainerId> {
        let share = share(self.values.len() + 1, containers);
        let homeless = !self.values.contains_key(&value);
        let fitting = idle.iter().copied().filter(|id| !homeless || self.held(*id) < share);
        let first = fitting.max_by_key(|id| rank(value, *id));
        first.or_else(|| idle.iter().copied().min_by_key(|id| self.held(*id)))
    }

    /// Of these idle containers the one for a value whose home holds more than its share.
    pub(super) fn relief(&self, value: Value, idle: &[ContainerId], containers: usize) -> Option<ContainerId> {
        let home = self.of(value)?;
        if self.held(home) <= share(self.values.len(), containers) {
            return None;
        }
        let below = |id: &ContainerId| *id != home && self.held(*id) * containers < self.values.len();
        idle.iter().copied().filter(below).max_by_key(|id| rank(value, *id))
    }

    /// A call with this value goes to this container, of a lane of so many. `now` is larger each time.
    pub(super) fn seat(&mut self, value: Value, container: ContainerId, containers: usize, now: u64) -> Outcome {
        let share = share(self.values.len(), containers);
        let outcome = match self.of(value) {
            Some(home) if home == container => Outcome::Hit,
            Some(home) if self.held(home) > share && self.held(container) < share => Outcome::Spill,
            Some(_) => return Outcome::Spill,
            None => Outcome::Miss,
        };
        if let Some(Home { container: before, used }) = self.values.insert(value, Home { container, used: now })
            && let Some(held) = self.containers.get_mut(&before)
        {
            held.values.remove(&used);
        }
        let held = self.containers.entry(container).or_default();
        held.values.insert(now, value);
        if held.values.len() > MOST_VALUES
            && let Some((_, forgotten)) = held.values.pop_first()
        {
            self.values.remove(&forgotten);
        }
        outcome
    }

    /// A container takes no more calls: its values have no home, and who waits for it hears that.
    pub(super) fn leave(&mut self, container: ContainerId) {
        let Some(held) = self.containers.remove(&container) else { return };
        for value in held.values.values() {
            self.values.remove(value);
        }
    }
}

/// How many of all values one of so many containers is to hold: a quarter more than the mean, and never less than one.
fn share(values: usize, containers: usize) -> usize {
    (values * 5).div_ceil(containers.max(1) * 4).max(1)
}

/// The larger, the earlier a container comes for a value.
fn rank(value: Value, container: ContainerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (value, container).hash(&mut hasher);
    hasher.finish()
}

/// A mean that forgets.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    seconds: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, took: Duration) {
        self.count = (self.count + 1).min(MEMORY);
        self.seconds += (took.as_secs_f64() - self.seconds) / f64::from(self.count);
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then_some(self.seconds)
    }
}

/// What hits save one version of a function.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gain {
    hits: Mean,
    misses: Mean,
}

impl Gain {
    /// A call took so long in the function. Spills say nothing: the value may have been there before, or not.
    pub(super) fn add(&mut self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Hit => self.hits.add(took),
            Outcome::Miss => self.misses.add(took),
            Outcome::Spill => {}
        }
    }

    /// In seconds, below zero where hits take longer; none where it is not known.
    pub(super) fn seconds(&self) -> Option<f64> {
        Some(self.misses.get()? - self.hits.get()?)
    }

    /// Never below zero; zero where it is not known.
    pub(super) fn saved(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds().unwrap_or_default()).unwrap_or_default()
    }

    /// How long a call waits for its home: as long as a hit saves, within bounds.
    pub(super) fn patience(&self, least: Duration, most: Duration) -> Duration {
        let wanted = if self.seconds().is_some() { self.saved() } else { FIRST_PATIENCE };
        wanted.max(least).min(most)
    }
}

/// How long an idle container that holds values is kept: longer the more it stores and the more a hit saves, from `idle` up to `longest`.
pub(super) fn keep(idle: Duration, longest: Duration, gain: Duration, bytes: u64) -> Duration {
    let part = |amount: f64, half: f64| amount / (amount + half);
    let share = part(gain.as_secs_f64(), HALF_GAIN.as_secs_f64()) * part(bytes as f64, HALF_BYTES);
    idle + longest.saturating_sub(idle).mul_f64(share.clamp(0.0, 1.0))
}

/// What giving a container up costs for each byte that it gives back: each of its values is missed once. Seconds a byte.
pub(super) fn worth(values: usize, gain: Duration, bytes: u64) -> f64 {
    values as f64 * gain.as_secs_f64() / bytes.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(number: u32) -> Value {
        Value::of(&number.to_be_bytes())
    }

    fn containers(count: usize) -> Vec<ContainerId> {
        (0..count).map(|_| ContainerId::random()).collect()
    }

    #[test]
    fn a_value_stays_where_it_was_and_leaves_with_its_container() {
        let (mut homes, ids) = (Homes::default(), containers(2));
        assert_eq!(homes.seat(value(1), ids[0], 2, 1), Outcome::Miss);
        assert_eq!(homes.seat(value(1), ids[0], 2, 2), Outcome::Hit);
        assert_eq!(homes.seat(value(1), ids[1], 2, 3), Outcome::Spill);
        assert_eq!(homes.of(value(1)), Some(ids[0]), "a spill is a visit");
        homes.leave(ids[0]);
        assert_eq!((homes.of(value(1)), homes.counts(), homes.is_empty()), (None, (0, 0), true));
        assert_eq!(homes.seat(value(1), ids[1], 1, 4), Outcome::Miss);
    }

    #[test]
    fn a_value_moves_from_where_there_are_too_many() {
        let (mut homes, ids) = (Homes::default(), containers(2));
        for number in 0..10 {
            homes.seat(value(number), ids[0], 2, number.into());
        }
        assert_eq!(homes.seat(value(3), ids[1], 2, 10), Outcome::Spill);
        assert_eq!(homes.of(value(3)), Some(ids[1]));
        assert_eq!((homes.held(ids[0]), homes.held(ids[1])), (9, 1));
        assert_eq!(homes.relief(value(3), &ids, 2), None, "it is where there is room");
        let mut moved = 0;
        for number in 0..10 {
            if let Some(id) = homes.relief(value(number), &ids, 2) {
                homes.seat(value(number), id, 2, 20 + u64::from(number));
                moved += 1;
            }
        }
        assert_eq!((moved, homes.held(ids[0]), homes.held(ids[1])), (2, 7, 3), "as far as its share, no further");
    }

    #[test]
    fn a_spill_goes_where_the_last_one_went() {
        let (mut homes, ids) = (Homes::default(), containers(5));
        homes.seat(value(1), ids[0], 5, 1);
        let chosen = homes.choose(value(1), &ids[1..], 5).unwrap();
        let mut turned = ids[1..].to_vec();
        turned.reverse();
        assert_eq!(homes.choose(value(1), &turned, 5), Some(chosen));
        assert_eq!(homes.choose(value(1), &[], 5), None);
    }

    #[test]
    fn patience_is_what_a_hit_saves() {
        let millis = Duration::from_millis;
        let mut gain = Gain::default();
        let patience = |gain: &Gain| gain.patience(millis(20), millis(1_000));
        assert_eq!(patience(&gain), FIRST_PATIENCE);
        gain.add(Outcome::Miss, millis(500));
        gain.add(Outcome::Spill, millis(9_000));
        assert_eq!((gain.seconds(), patience(&gain)), (None, FIRST_PATIENCE));
        gain.add(Outcome::Hit, millis(100));
        assert!((gain.seconds().unwrap() - 0.4).abs() < 1e-9 && patience(&gain) == millis(400));
        (0..1_000).for_each(|_| gain.add(Outcome::Hit, millis(5_000)));
        assert!(gain.seconds().unwrap() < 0.0, "it forgets");
        assert_eq!((gain.saved(), patience(&gain)), (Duration::ZERO, millis(20)));
        (0..1_000).for_each(|_| gain.add(Outcome::Miss, millis(50_000)));
        assert_eq!(patience(&gain), millis(1_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn homes_are_bounded_and_agree_with_themselves(
            steps in proptest::collection::vec((0_u32..3_000, 0_usize..4, 0_u8..200), 1..4_000),
        ) {
            let (mut homes, mut ids) = (Homes::default(), containers(4));
            for (now, (number, index, dice)) in steps.into_iter().enumerate() {
                if dice == 0 {
                    homes.leave(ids[index]);
                    prop_assert_eq!(homes.held(ids[index]), 0);
                    ids[index] = ContainerId::random();
                    continue;
                }
                let (value, id) = (value(number), ids[index]);
                let before = homes.of(value);
                let outcome = homes.seat(value, id, 4, now as u64);
                let after = homes.of(value).unwrap();
                match outcome {
                    Outcome::Hit => prop_assert_eq!((before, after), (Some(id), id)),
                    Outcome::Miss => prop_assert_eq!((before, after), (None, id)),
                    Outcome::Spill => prop_assert!(before.unwrap() != id && (after == id || Some(after) == before)),
                }
                prop_assert!(homes.held(id) <= MOST_VALUES);
                prop_assert_eq!(ids.iter().map(|id| homes.held(*id)).sum::<usize>(), homes.values.len());
                prop_assert!(homes.values.values().all(|home| ids.contains(&home.container)));
            }
        }

        #[test]
        fn no_container_gets_much_more_than_its_share(count in 1_usize..12, values in 1_u32..500) {
            let (mut homes, ids) = (Homes::default(), containers(count));
            for number in 0..values {
                let chosen = homes.choose(value(number), &ids, count).unwrap();
                homes.seat(value(number), chosen, count, number.into());
                prop_assert!(homes.held(chosen) <= share(homes.values.len(), count));
            }
        }

        #[test]
        fn keeping_grows_with_what_is_stored_and_saved_within_its_bounds(
            gain in 0_u64..100_000, more_gain in 0_u64..100_000, bytes in 0_u64..1 << 40, more_bytes in 0_u64..1 << 40,
        ) {
            let (idle, longest) = (Duration::from_secs(600), Duration::from_secs(3_600));
            let kept = |gain, bytes| keep(idle, longest, Duration::from_millis(gain), bytes);
            let one = kept(gain, bytes);
            prop_assert!(one >= idle && one <= longest);
            prop_assert!(kept(gain + more_gain, bytes) >= one && kept(gain, bytes + more_bytes) >= one);
            prop_assert_eq!(kept(0, bytes), idle);
            prop_assert_eq!(keep(longest, idle, Duration::from_millis(gain), bytes), longest, "never shorter than without");
        }

        #[test]
        fn worth_is_by_byte(values in 1_usize..1_000, gain in 1_u64..100_000, bytes in 1_u64..1 << 40) {
            let gain = Duration::from_millis(gain);
            let one = worth(values, gain, bytes);
            prop_assert!(one > 0.0 && worth(values + 1, gain, bytes) > one && worth(values, gain * 2, bytes) > one);
            prop_assert!(worth(values, gain, bytes * 2) < one);
            prop_assert!(worth(0, gain, bytes) == 0.0 && worth(values, Duration::ZERO, bytes) == 0.0);
        }
    }
}

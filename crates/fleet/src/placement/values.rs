//! The pool's dealings with calls that have a value, and with the containers that hold some. No other call comes here.

use std::time::{Duration, Instant};

use lambent_model::ContainerId;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::affinity::{Gain, WAITERS, keep, worth};
use super::{Entry, Lane, Patience, Placement, Pool, SOON, Stored};
use crate::affinity::{AffinityStatus, Outcome, Value};
use crate::container::state::{State, Then};

/// Versions whose calls with values are counted; beyond it one without containers is forgotten.
const MOST_TALLIES: usize = 1_000;

/// What is known of one version's calls with values.
#[derive(Debug)]
pub(super) struct Tally {
    function: String,
    gain: Gain,
    /// Hits, misses, spills.
    counts: [u64; 3],
    counters: [Counter; 3],
    gauge: Gauge,
}

impl Tally {
    fn of(function: &str) -> Self {
        // An ARN's seventh part.
        let name = function.split(':').nth(6).unwrap_or(function).to_owned();
        let outcomes = [Outcome::Hit, Outcome::Miss, Outcome::Spill].map(Outcome::as_str);
        let counters = outcomes.map(
            |outcome| counter!("lambent_affinity_requests_total", "function" => name.clone(), "outcome" => outcome),
        );
        let gauge = gauge!("lambent_affinity_gain_seconds", "function" => name.clone());
        Self { function: function.to_owned(), gain: Gain::default(), counts: [0; 3], counters, gauge }
    }

    fn count(&mut self, outcome: Outcome) {
        let [hits, misses, spills] = &mut self.counts;
        let [hit, miss, spill] = &self.counters;
        let (count, counter) = match outcome {
            Outcome::Hit => (hits, hit),
            Outcome::Miss => (misses, miss),
            Outcome::Spill => (spills, spill),
        };
        *count += 1;
        counter.increment(1);
    }
}

impl Pool {
    /// A place for a call with a value.
    pub(crate) fn place_with(&mut self, lane: &Lane, value: Value, patience: Patience) -> Placement {
        if self.is_closed() {
            return Placement::Closed;
        }
        match self.at_home(lane, value, patience) {
            Some(placement) => placement,
            None => self.place(lane, patience),
        }
    }

    /// None: wherever there is a place for any call of the lane.
    fn at_home(&mut self, lane: &Lane, value: Value, patience: Patience) -> Option<Placement> {
        let moment = self.moment;
        let books = self.lanes.get_mut(lane)?;
        if let Some(home) = books.homes.of(value) {
            let state = self.entries.get(&home)?.state;
            let waits =
                matches!(state, State::Starting(Then::Wait) | State::Busy(Then::Wait) | State::Finishing(Then::Wait));
            match state {
                State::Idle { .. } => {
                    let relief = books.homes.relief(value, &books.idle, books.containers);
                    return self.take(relief.unwrap_or(home)).map(Placement::Warm);
                }
                _ if !waits || patience == Patience::None => {}
                _ => {
                    let gain = self.tallies.get(&lane.generation).map(|tally| tally.gain).unwrap_or_default();
                    let waiters = books.homes.waiting(home)?;
                    waiters.retain(|(_, waiter)| !waiter.is_closed());
                    if waiters.len() < WAITERS {
                        let (sender, receiver) = oneshot::channel();
                        waiters.push_back((moment, sender));
                        let wait = gain.patience(SOON, self.room.affinity.wait);
                        return Some(Placement::Home(receiver, wait));
                    }
                }
            }
        }
        let chosen = books.homes.choose(value, &books.idle, books.containers)?;
        self.take(chosen).map(Placement::Warm)
    }

    /// A call with a value is about to be given to a container: whether the value was there, and where it is from now on.
    pub(crate) fn seat(&mut self, lane: &Lane, value: Value, id: ContainerId) -> Outcome {
        let now = self.next_moment();
        let (Some(entry), Some(books)) = (self.entries.get(&id), self.lanes.get_mut(lane)) else {
            return Outcome::Miss;
        };
        if let State::Ending(_) = entry.state {
            // The call goes elsewhere in a moment.
            return Outcome::Miss;
        }
        let outcome = books.homes.seat(value, id, books.containers, now);
        if self.tallies.len() >= MOST_TALLIES && !self.tallies.contains_key(&lane.generation) {
            let idle = |generation: &&Uuid| !self.lanes.keys().any(|lane| lane.generation == **generation);
            let forgotten = self.tallies.keys().find(idle).or_else(|| self.tallies.keys().next()).copied();
            forgotten.and_then(|generation| self.tallies.remove(&generation));
        }
        self.tallies.entry(lane.generation).or_insert_with(|| Tally::of(&entry.function)).count(outcome);
        outcome
    }

    /// A call with a value is over. `took`: its time in the function, where that went well; `bytes`: what the container uses now.
    pub(crate) fn served(&mut self, id: ContainerId, outcome: Outcome, took: Option<Duration>, bytes: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.stored = Some(Stored { bytes, at: Instant::now() });
        if let (Some(tally), Some(took)) = (self.tallies.get_mut(&entry.lane.generation), took) {
            tally.gain.add(outcome, took);
            if let Some(seconds) = tally.gain.seconds() {
                tally.gauge.set(seconds);
            }
        }
    }

    /// What hits save in this lane, and how many values this container of it holds.
    fn stake(&self, id: ContainerId, lane: &Lane) -> (Duration, usize) {
        let saved = self.tallies.get(&lane.generation).map(|tally| tally.gain.saved()).unwrap_or_default();
        (saved, self.lanes.get(lane).map_or(0, |books| books.homes.held(id)))
    }

    /// What ending a container costs for each byte that it gives back; nothing where it holds no values.
    pub(super) fn worth(&self, id: ContainerId, entry: &Entry) -> f64 {
        let Some(stored) = entry.stored else { return 0.0 };
        let (saved, values) = self.stake(id, &entry.lane);
        worth(values, saved, stored.bytes)
    }

    /// Whether an idle container is kept for the values it holds.
    pub(super) fn is_kept(&self, id: ContainerId, entry: &Entry) -> bool {
        let Some(stored) = entry.stored else { return false };
        let (saved, values) = self.stake(id, &entry.lane);
        let bounds = self.room.affinity;
        values > 0 && stored.at.elapsed() < keep(bounds.idle, bounds.keep, saved, stored.bytes)
    }

    /// What affinity does for each version that had calls with values.
    pub(crate) fn affinity(&self) -> Vec<AffinityStatus> {
        let status = |(generation, tally): (&Uuid, &Tally)| {
            let lanes = self.lanes.iter().filter(|(lane, _)| lane.generation == *generation);
            let counts = lanes.map(|(_, books)| books.homes.counts());
            let (values, containers) = counts.fold((0, 0), |(a, b), (values, containers)| (a + values, b + containers));
            let entries = self.entries.values().filter(|entry| entry.lane.generation == *generation);
            let [hits, misses, spills] = tally.counts;
            AffinityStatus {
                function: tally.function.clone(),
                values,
                containers,
                hits,
                misses,
                spills,
                gain_ms: tally.gain.seconds().map(|seconds| seconds * 1000.0),
                bytes: entries.filter_map(|entry| entry.stored).map(|stored| stored.bytes).sum(),
            }
        };
        self.tallies.iter().map(status).collect()
    }
}

//! The books of the warming pool: which instances there are, how many there should be.
//!
//! Bookkeeping only, under one lock that is never held across an await; [`state::step`] decides what becomes of an instance, [`Books::plan`]
//! how many are made and ended. Both are given the time, and chance comes from a seed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lambent_model::InstanceId;
use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::forecast::Forecast;
use super::instance::Instance;
use super::kind::Kind;
use super::pressure::Pressure;
use super::state::{self, Effect, Event, State, Why};
use crate::config::PoolConfig;
use crate::fleet::KindStatus;

/// Kinds known at once; functions of further kinds are served without a pool.
const KINDS: usize = 64;
/// Instances that are made at once, behind everybody's back.
const BUILDS: usize = 2;
/// A kind that no function was called or deployed for within this long keeps nothing.
const USED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long making waits after a failure: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// What has waited this long was made well; that it dies later says nothing about the next one.
pub(super) const PROVEN: Duration = Duration::from_secs(10);

/// What an instance's task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Hand it over.
    Give(oneshot::Sender<Instance>),
    /// End it.
    End,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    state: State,
    /// When it came to that state.
    since: Duration,
    commands: Option<oneshot::Sender<Command>>,
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Demand {
    forecast: Forecast,
    used: Duration,
    target: usize,
    failures: u32,
    not_before: Duration,
}

/// All instances that belong to nobody.
#[derive(Debug)]
pub(super) struct Books {
    config: PoolConfig,
    entries: HashMap<InstanceId, Entry>,
    kinds: BTreeMap<Kind, Demand>,
    chance: u64,
    /// Memory of what else waits, in MiB.
    held_mib: u64,
    closed: bool,
}

impl Books {
    pub(super) fn new(config: PoolConfig, seed: u64) -> Self {
        let (entries, kinds) = Default::default();
        Self { config, entries, kinds, chance: seed, held_mib: 0, closed: false }
    }

    /// So much of the pool's memory is taken by what is not in these books (a wasm host process that waits for an account).
    pub(super) fn hold(&mut self, mib: u64) {
        self.held_mib = mib;
    }

    /// There is a function that this kind serves.
    pub(super) fn used(&mut self, kind: &Kind, now: Duration) {
        if let Some(demand) = self.demand(kind) {
            demand.used = now;
        }
    }

    /// A container of this kind is to be made.
    pub(super) fn arrived(&mut self, kind: &Kind, now: Duration) {
        if let Some(demand) = self.demand(kind) {
            demand.used = now;
            demand.forecast.arrived(now);
        }
    }

    fn demand(&mut self, kind: &Kind) -> Option<&mut Demand> {
        if !self.kinds.contains_key(kind) && self.kinds.len() >= KINDS {
            return None;
        }
        Some(self.kinds.entry(kind.clone()).or_default())
    }

    /// This machine cannot make such instances.
    pub(super) fn never(&mut self, kind: &Kind) {
        self.kinds.remove(kind);
    }

    /// Asks the one that has waited longest to hand itself over: it has surely loaded by now. It may die on the way, which the receiver
    /// learns; then another should be asked.
    pub(super) fn take(&mut self, kind: &Kind, now: Duration) -> Option<oneshot::Receiver<Instance>> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.state == State::Waiting && entry.kind == *kind);
        let id = waiting.min_by_key(|(id, entry)| (entry.since, **id)).map(|(id, _)| *id)?;
        self.tell(id, Event::Take, now)
    }

    /// A place in the books for an instance that is to be made.
    pub(super) fn begin(&mut self, kind: &Kind, now: Duration) -> (InstanceId, oneshot::Receiver<Command>) {
        let (commands, receiver) = oneshot::channel();
        let id = InstanceId::random();
        let (kind, state) = (kind.clone(), State::Building);
        count(&kind, state, 1.0);
        self.entries.insert(id, Entry { kind, state, since: now, commands: Some(commands) });
        (id, receiver)
    }

    /// Takes a step in an instance's life; answers where it was asked to hand itself over.
    pub(super) fn tell(&mut self, id: InstanceId, event: Event, now: Duration) -> Option<oneshot::Receiver<Instance>> {
        let entry = self.entries.get_mut(&id)?;
        let (after, effect) = match state::step(entry.state, event) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(instance = %id, %error, "the books of the warming pool are wrong");
                return None;
            }
        };
        if after != entry.state {
            count(&entry.kind, entry.state, -1.0);
            count(&entry.kind, after, 1.0);
            (entry.state, entry.since) = (after, now);
        }
        match effect {
            Effect::Nothing => None,
            Effect::Stop => {
                let _ = entry.commands.take().map(|commands| commands.send(Command::End));
                None
            }
            Effect::Give => {
                let (giver, receiver) = oneshot::channel();
                entry.commands.take()?.send(Command::Give(giver)).ok()?;
                Some(receiver)
            }
        }
    }

    /// One could not be made, or died: the next is made a little later, and after each further failure later still. What fails while that
    /// is waited for is of the same cause.
    pub(super) fn failed(&mut self, kind: &Kind, now: Duration) -> Duration {
        counter!("lambent_pool_failures_total", "kind" => kind.to_string()).increment(1);
        let chance = self.chance();
        let Some(demand) = self.kinds.get_mut(kind) else { return RETRY.1 };
        if demand.not_before > now {
            return demand.not_before - now;
        }
        let doubled = RETRY.0.saturating_mul(1 << demand.failures.min(16)).min(RETRY.1);
        let wait = doubled.mul_f64(0.5 + chance);
        demand.failures = demand.failures.saturating_add(1);
        demand.not_before = now + wait;
        wait
    }

    /// A number from 0 to 1 (splitmix64).
    fn chance(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
    }

    /// An instance is gone, or somebody's.
    pub(super) fn forget(&mut self, id: InstanceId) {
        if let Some(entry) = self.entries.remove(&id) {
            count(&entry.kind, entry.state, -1.0);
        }
    }

    /// Ends what is too much, and answers what is to be made now.
    pub(super) fn plan(&mut self, now: Duration, pressure: Pressure) -> Vec<Kind> {
        if self.closed {
            return Vec::new();
        }
        let proven = |entry: &&Entry| entry.state == State::Waiting && now.saturating_sub(entry.since) >= PROVEN;
        for entry in self.entries.values().filter(proven) {
            if let Some(demand) = self.kinds.get_mut(&entry.kind) {
                demand.failures = 0;
            }
        }
        self.aim(now, pressure);
        self.trim(now, pressure);
        match pressure {
            Pressure::High => Vec::new(),
            Pressure::Calm => self.missing(now),
        }
    }

    /// Sets each kind's target: what the forecast says, within bounds, as far as the pool's memory goes; one of each kind in turn.
    fn aim(&mut self, now: Duration, pressure: Pressure) {
        let (floor, ceiling) = (self.config.floor.min(self.config.ceiling), self.config.ceiling);
        let mut wanted: Vec<(&Kind, &mut Demand, usize)> = Vec::new();
        for (kind, demand) in &mut self.kinds {
            let used = now.saturating_sub(demand.used) < USED_FOR;
            let least = if used { floor } else { 0 };
            let count = demand.forecast.wanted(now).clamp(least, ceiling);
            demand.target = 0;
            wanted.push((kind, demand, if pressure == Pressure::High { 0 } else { count }));
        }
        let mut left = self.config.memory_mib.saturating_sub(self.held_mib);
        for round in 0..ceiling {
            for (kind, demand, count) in &mut wanted {
                let cost = kind.cost_mib();
                if *count > round && demand.target == round && left >= cost {
                    left -= cost;
                    demand.target += 1;
                }
            }
        }
        for (kind, demand, _) in wanted {
            gauge!("lambent_pool_target", "kind" => kind.to_string()).set(demand.target as f64);
        }
    }

    /// Ends waiting instances beyond the target: those that waited long enough, and under pressure half of all.
    fn trim(&mut self, now: Duration, pressure: Pressure) {
        let mut victims = Vec::new();
        let kinds: Vec<Kind> = self.entries.values().map(|entry| entry.kind.clone()).collect();
        let kinds: std::collections::BTreeSet<Kind> = kinds.into_iter().collect();
        for kind in kinds {
            let (alive, mut waiting) = self.of(&kind);
            let target = self.kinds.get(&kind).map_or(0, |demand| demand.target);
            let surplus = alive.saturating_sub(target);
            waiting.sort_unstable();
            let (most, why) = match pressure {
                Pressure::High => (waiting.len().div_ceil(2), Why::Pressure),
                Pressure::Calm => (surplus, Why::Idle),
            };
            let ripe = |since: Duration| pressure == Pressure::High || now.saturating_sub(since) >= self.config.idle;
            let chosen = waiting.into_iter().filter(|(since, _)| ripe(*since)).take(most);
            victims.extend(chosen.map(|(_, id)| (id, why)));
        }
        for (id, why) in victims {
            self.tell(id, Event::End(why), now);
        }
    }

    /// What should be made next, the kind first that lacks most of what it should have.
    fn missing(&self, now: Duration) -> Vec<Kind> {
        let building = self.entries.values().filter(|entry| entry.state == State::Building).count();
        let mut lacking: Vec<(usize, usize, &Kind)> = Vec::new();
        for (kind, demand) in self.kinds.iter().filter(|(_, demand)| demand.not_before <= now) {
            let (alive, _) = self.of(kind);
            let lacks = demand.target.saturating_sub(alive);
            // After a failure one attempt at a time.
            let lacks = if demand.failures > 0 { lacks.min(1) } else { lacks };
            (0..lacks).for_each(|more| lacking.push(((alive + more) * 1000 / demand.target, alive + more, kind)));
        }
        lacking.sort_unstable();
        lacking.into_iter().take(BUILDS.saturating_sub(building)).map(|(.., kind)| kind.clone()).collect()
    }

    /// How many of a kind there are or soon will be, and which of them wait.
    fn of(&self, kind: &Kind) -> (usize, Vec<(Duration, InstanceId)>) {
        let mut alive = 0;
        let mut waiting = Vec::new();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.kind == *kind) {
            match entry.state {
                State::Building => alive += 1,
                State::Waiting => {
                    alive += 1;
                    waiting.push((entry.since, *id));
                }
                State::Given | State::Ending(_) => {}
            }
        }
        (alive, waiting)
    }

    /// Whether nothing is left that pressure could end.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes no more and ends what waits.
    pub(super) fn close(&mut self, now: Duration) {
        self.closed = true;
        let ids: Vec<_> = self.entries.keys().copied().collect();
        ids.into_iter().for_each(|id| drop(self.tell(id, Event::End(Why::Shutdown), now)));
    }

    /// Each kind.
    pub(super) fn status(&self) -> Vec<KindStatus> {
        let status = |(kind, demand): (&Kind, &Demand)| {
            let (alive, waiting) = self.of(kind);
            let (waiting, building) = (waiting.len(), alive - waiting.len());
            KindStatus { kind: kind.to_string(), waiting, building, target: demand.target }
        };
        self.kinds.iter().map(status).collect()
    }
}

fn count(kind: &Kind, state: State, change: f64) {
    gauge!("lambent_pool_instances", "kind" => kind.to_string(), "state" => state.name()).increment(change);
}

#[cfg(test)]
mod tests;

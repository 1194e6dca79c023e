//! Which container a call gets.
//!
//! Where a version isolates tenants, its containers are kept apart for each of them: a [`Lane`] is a version, and a tenant if there is one.
//!
//! In order: the most recently used idle container of the lane; one that has answered and is about to be free, if that happens within
//! [`SOON`]; a new one. A node starts a few containers at a time, because more would only make each of them later: a call whose turn to start one
//! has not come takes whichever of its lane becomes free meanwhile. A new one needs room on the node: idle containers of other lanes
//! make it, least recently used first; if that is not enough the call waits for [some](crate::dispatch), and is refused when none comes. What a new container is made from, an instance of the
//! [warming pool](crate::warming) or one built in the call's way, is its own task's business.
//!
//! Where quick calls crowd on busy processors, a call waits for one of the containers at work before it takes an idle one: [`crowd`].
//!
//! A call with a value (affinity) goes to the container that has that value, where there is one: [`affinity`] has the rules.
//!
//! This is bookkeeping only, under one lock that is never held across an await. [`Pool`] performs what [`state::step`] decides.
//!
//! [`state::step`]: crate::container::state::step

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambent_model::{ContainerId, FunctionVersion};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

mod affinity;
mod crowd;
mod frozen;
mod rate;
mod values;

use affinity::{Homes, Waiters};
pub(crate) use crowd::PATIENCE as CROWD_PATIENCE;
use crowd::Pace;
use frozen::{Apart, Frozen};
use rate::Rate;
use values::Tally;

use crate::container::Command;
use crate::container::state::{self, Effect, Event, State, Then, Why};
use crate::fleet::{ContainerStatus, millis};
use crate::processors::Processors;

/// How long a call waits for a container that has answered its last call already: longer than a runtime takes to ask for its next event,
/// far shorter than making a container.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// Where a call goes.
#[derive(Debug)]
pub(crate) enum Placement {
    /// To this container, which is marked as busy.
    Warm(Handle),
    /// To whichever container becomes free first, if that is soon.
    Soon(oneshot::Receiver<Handle>),
    /// To whichever container at work becomes free first, though others are idle; if that is within [`CROWD_PATIENCE`].
    Crowd(oneshot::Receiver<Handle>),
    /// To its value's container, if that becomes free within so long.
    Home(oneshot::Receiver<Handle>, Duration),
    /// To a new container: [`Pool::begin`].
    Fresh,
    /// Nowhere: the node shuts down.
    Closed,
}

/// Which calls may share a container: those of one version, and of one tenant where it isolates tenants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub generation: Uuid,
    pub tenant: Option<Arc<str>>,
}

impl Lane {
    /// The lane of calls of `version` for `tenant`.
    pub(crate) fn of(version: &FunctionVersion, tenant: Option<&Arc<str>>) -> Self {
        Self { generation: version.generation, tenant: tenant.cloned() }
    }
}

/// A way to a container's task.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub id: ContainerId,
    pub commands: mpsc::Sender<Command>,
}

/// The bounds of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub containers: usize,
    pub memory_mib: u64,
    /// Containers of one version begun for calls within a window.
    pub scaling: u32,
    /// Frozen containers that the bounds above leave out.
    pub frozen: usize,
    pub affinity: Bounds,
}

/// What affinity may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How long idle containers are kept that hold no values.
    pub idle: Duration,
    /// How long those are kept at most that do.
    pub keep: Duration,
    /// How long a call waits at most for its value's container.
    pub wait: Duration,
}

/// All containers of the node.
#[derive(Debug)]
pub(crate) struct Pool {
    room: Room,
    entries: HashMap<ContainerId, Entry>,
    lanes: HashMap<Lane, Books>,
    /// Of versions that had calls with values, by generation.
    tallies: HashMap<Uuid, Tally>,
    /// Promised, but to those that are apart.
    memory_mib: u64,
    apart: Apart,
    /// Orders the moments at which containers became idle.
    moment: u64,
    closed: bool,
    /// Told when a container becomes idle or is gone.
    room_made: Arc<Notify>,
    processors: Arc<Processors>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    lane: Lane,
    function: String,
    memory_mib: u32,
    calls: u64,
    begun: Instant,
    /// Kept for provisioned concurrency.
    provisioned: bool,
    /// What it had stored after its last call with a value.
    stored: Option<Stored>,
    /// Whether its code waits, and its processes stand.
    frozen: Option<Frozen>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    bytes: u64,
    at: Instant,
}

/// The containers of one lane.
#[derive(Debug, Default)]
struct Books {
    /// The most recently used last.
    idle: Vec<ContainerId>,
    finishing: usize,
    /// Busy and finishing ones.
    at_work: usize,
    /// So many at work that others do not help; see [`crowd`].
    enough: usize,
    waiting: Waiters,
    containers: usize,
    rate: Rate,
    pace: Pace,
    /// Which of the containers have which values.
    homes: Homes,
}

impl Pool {
    /// None yet. `room_made` is told when there may be room where there was none.
    pub(crate) fn new(room: Room, room_made: Arc<Notify>, processors: Arc<Processors>) -> Self {
        let (entries, lanes, tallies, apart) = Default::default();
        Self { room, entries, lanes, tallies, memory_mib: 0, apart, moment: 0, closed: false, room_made, processors }
    }

    /// A place for a call in this lane. `patience`: whether it may wait for a container that is about to be free.
    pub(crate) fn place(&mut self, lane: &Lane, patience: Patience) -> Placement {
        if self.closed {
            return Placement::Closed;
        }
        if patience == Patience::Some && self.is_crowded(lane) {
            return Placement::Crowd(self.queue(lane));
        }
        if let Some(id) = self.lanes.get(lane).and_then(|books| books.idle.last().copied())
            && let Some(handle) = self.take(id)
        {
            return Placement::Warm(handle);
        }
        let moment = self.moment;
        if patience == Patience::Some
            && let Some(books) = self.lanes.get_mut(lane)
        {
            // Those that gave up do not count.
            books.waiting.retain(|(_, waiter)| !waiter.is_closed());
            if books.waiting.len() < books.finishing {
                let (sender, receiver) = oneshot::channel();
                books.waiting.push_back((moment, sender));
                return Placement::Soon(receiver);
            }
        }
        Placement::Fresh
    }

    /// Waits for a container of this lane that becomes free, whenever that is.
    pub(crate) fn queue(&mut self, lane: &Lane) -> oneshot::Receiver<Handle> {
        let (sender, receiver) = oneshot::channel();
        let moment = self.moment;
        self.lanes.entry(lane.clone()).or_default().waiting.push_back((moment, sender));
        receiver
    }

    /// A place in the books for a new container of `version` in `lane`; none where there is no room for it, or too many were begun of late.
    pub(crate) fn begin(
        &mut self,
        version: &FunctionVersion,
        lane: &Lane,
        purpose: Purpose,
    ) -> Option<(ContainerId, mpsc::Receiver<Command>)> {
        let counts = purpose == Purpose::Call;
        // The rate first: who may not begin takes no idle container from others.
        let rate = &mut self.lanes.entry(lane.clone()).or_default().rate;
        if counts && !rate.allows(Instant::now(), self.room.scaling) {
            return None;
        }
        if self.closed || !self.make_room(version.memory_mib) {
            self.tidy(lane);
            return None;
        }
        let books = self.lanes.entry(lane.clone()).or_default();
        if counts {
            books.rate.take();
        }
        books.containers += 1;
        books.enough = crowd::enough(self.processors.count, version.memory_mib);
        let (commands, receiver) = mpsc::channel(2);
        let id = ContainerId::random();
        let entry = Entry {
            state: State::Starting(Then::Wait),
            lane: lane.clone(),
            function: version.qualified_arn(),
            memory_mib: version.memory_mib,
            calls: u64::from(counts),
            provisioned: purpose == Purpose::Provisioned,
            begun: Instant::now(),
            stored: None,
            frozen: None,
            commands,
        };
        count(entry.state, 1.0);
        self.memory_mib += u64::from(entry.memory_mib);
        self.entries.insert(id, entry);
        Some((id, receiver))
    }

    /// Forgets a lane without containers that nobody waits for.
    pub(crate) fn tidy(&mut self, lane: &Lane) {
        let Some(found) = self.lanes.get_mut(lane) else { return };
        found.waiting.retain(|(_, waiter)| !waiter.is_closed());
        if found.containers == 0 && found.waiting.is_empty() {
            self.lanes.remove(lane);
        }
    }

    /// Marks an idle container as busy with a call.
    fn take(&mut self, id: ContainerId) -> Option<Handle> {
        self.tell(id, Event::Taken);
        let entry = self.entries.get_mut(&id)?;
        entry.calls += 1;
        Some(Handle { id, commands: entry.commands.clone() })
    }

    /// Ends idle containers, those of least worth first and of these the least recently used, until another one of this size fits; false where
    /// it cannot.
    fn make_room(&mut self, memory_mib: u32) -> bool {
        let needed = u64::from(memory_mib);
        if needed > self.room.memory_mib {
            return false;
        }
        // Those that are ending give their room back within moments; it counts as free.
        let (mut containers, mut memory) = (0, 0);
        let mut idle = Vec::new();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| !entry.is_apart()) {
            match entry.state {
                State::Ending(_) => continue,
                State::Idle { since } if !entry.provisioned => {
                    idle.push((self.worth(*id, entry), since, *id, u64::from(entry.memory_mib)));
                }
                State::Idle { .. } => {}
                State::Starting(_) | State::Busy(_) | State::Finishing(_) => {}
            }
            containers += 1;
            memory += u64::from(entry.memory_mib);
        }
        let fits = |containers: usize, memory: u64| {
            containers < self.room.containers && memory + needed <= self.room.memory_mib
        };
        idle.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut victims = Vec::new();
        for (.., id, size) in idle {
            if fits(containers, memory) {
                break;
            }
            containers -= 1;
            memory -= size;
            victims.push(id);
        }
        if !fits(containers, memory) {
            return false;
        }
        victims.into_iter().for_each(|id| self.tell(id, Event::End(Why::Idle)));
        true
    }

    /// Takes a step in a container's life. What became of it, where the container's task needs to know.
    pub(crate) fn tell(&mut self, id: ContainerId, event: Event) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = entry.state;
        let (after, effect) = match state::step(before, event) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(container = %id, %error, "the books of the pool are wrong");
                return;
            }
        };
        entry.state = after;
        count(before, -1.0);
        count(after, 1.0);
        let commands = entry.commands.clone();
        // Every entry's lane is there until its last entry is gone.
        let books = self.lanes.entry(entry.lane.clone()).or_default();
        if let State::Idle { .. } = before {
            // Nearly always the last one, which is the one that calls are given to.
            match books.idle.last() {
                Some(last) if *last == id => drop(books.idle.pop()),
                _ => books.idle.retain(|idle| *idle != id),
            }
        }
        if matches!(after, State::Ending(_)) && !books.homes.is_empty() {
            books.homes.leave(id);
        }
        books.count(before, after);
        if !matches!(after, State::Busy(_) | State::Finishing(_)) {
            self.thaw(id);
        }
        match effect {
            Effect::Nothing => {}
            // Two commands at most are ever queued: a call and this.
            Effect::Stop(why) => {
                let _ = commands.try_send(Command::End(why));
            }
            Effect::Offer => self.offer(id),
        }
    }

    /// Gives a container that became idle to the first call that still waits, else keeps it.
    fn offer(&mut self, id: ContainerId) {
        let Some(lane) = self.entries.get(&id).map(|entry| entry.lane.clone()) else { return };
        if let Some(books) = self.lanes.get_mut(&lane) {
            books.idle.push(id);
        }
        if self.is_superfluous(id) {
            return;
        }
        loop {
            let Some(waiter) = self.lanes.get_mut(&lane).and_then(|found| found.next_waiter(id)) else {
                self.room_made.notify_one();
                return;
            };
            if waiter.is_closed() {
                continue;
            }
            let Some(handle) = self.take(id) else { return };
            if waiter.send(handle).is_err() {
                // It left in between; the container is as idle as before.
                let at = self.next_moment();
                self.tell(id, Event::Finished { at });
            }
            return;
        }
    }

    /// A container's call is over.
    pub(crate) fn finished(&mut self, id: ContainerId) {
        let at = self.next_moment();
        if let Some(books) = self.entries.get(&id).and_then(|entry| self.lanes.get_mut(&entry.lane)) {
            books.pace.ended(Instant::now());
        }
        self.tell(id, Event::Finished { at });
    }

    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A container that no call waits for is initialised.
    pub(crate) fn ready(&mut self, id: ContainerId) {
        let at = self.next_moment();
        self.tell(id, Event::Ready { at });
    }

    /// A container was idle for as long as one may be.
    pub(crate) fn idled(&mut self, id: ContainerId) {
        let Some(entry) = self.entries.get(&id).filter(|entry| !entry.provisioned) else { return };
        if !self.is_kept(id, entry) {
            self.tell(id, Event::End(Why::Idle));
        }
    }

    /// Containers of a version that are kept for provisioned concurrency: all, and those of them that are initialised.
    pub(crate) fn provisioned(&self, generation: Uuid) -> (u32, u32) {
        let kept = self.entries.values().filter(|entry| entry.provisioned && entry.lane.generation == generation);
        kept.fold((0, 0), |(all, ready), entry| match entry.state {
            State::Starting(_) => (all + 1, ready),
            State::Idle { .. } | State::Busy(_) | State::Finishing(_) => (all + 1, ready + 1),
            State::Ending(_) => (all, ready),
        })
    }

    /// Makes those kept for provisioned concurrency ordinary that are more than `wanted` of their version; who is idle first.
    pub(crate) fn release(&mut self, wanted: impl Fn(Uuid) -> u32) {
        let kept = self.entries.iter().filter(|(_, entry)| entry.provisioned);
        let mut kept: Vec<(bool, ContainerId, Uuid)> =
            kept.map(|(id, entry)| (!matches!(entry.state, State::Idle { .. }), *id, entry.lane.generation)).collect();
        kept.sort_unstable();
        let mut counts: HashMap<Uuid, u32> = HashMap::new();
        for (.., generation) in &kept {
            *counts.entry(*generation).or_default() += 1;
        }
        for (busy, id, generation) in kept {
            let Some(count) = counts.get_mut(&generation).filter(|count| **count > wanted(generation)) else {
                continue;
            };
            *count -= 1;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.provisioned = false;
            }
            if !busy {
                self.tell(id, Event::End(Why::Idle));
            }
        }
    }

    /// A container is gone, with all it held.
    pub(crate) fn forget(&mut self, id: ContainerId) {
        self.thaw(id);
        let Some(entry) = self.entries.remove(&id) else { return };
        self.room_made.notify_one();
        count(entry.state, -1.0);
        self.memory_mib -= u64::from(entry.memory_mib);
        let Some(books) = self.lanes.get_mut(&entry.lane) else { return };
        books.idle.retain(|idle| *idle != id);
        books.homes.leave(id);
        books.containers -= 1;
        books.count(entry.state, State::Ending(Why::Failed));
        self.tidy(&entry.lane);
    }

    /// Ends all containers of a version: idle ones now, the others after their call.
    pub(crate) fn retire(&mut self, generation: Uuid) {
        let ids: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.lane.generation == generation).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.tell(id, Event::End(Why::Retired)));
        self.tallies.remove(&generation);
    }

    /// Ends the quarter of the idle containers that is of least worth and was used least recently, to give memory back; how many those are.
    pub(crate) fn relieve(&mut self) -> usize {
        let idle = |(id, entry): (&ContainerId, &Entry)| match entry.state {
            State::Idle { since } if !entry.provisioned => Some((self.worth(*id, entry), since, *id)),
            State::Idle { .. } | State::Starting(_) | State::Busy(_) | State::Finishing(_) | State::Ending(_) => None,
        };
        let mut idle: Vec<_> = self.entries.iter().filter_map(idle).collect();
        idle.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        idle.truncate(idle.len().div_ceil(4));
        idle.iter().for_each(|(.., id)| self.tell(*id, Event::End(Why::Idle)));
        idle.len()
    }

    /// Takes no more calls and ends all containers, idle ones now, the others after their call.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        let ids: Vec<_> = self.entries.keys().copied().collect();
        ids.into_iter().for_each(|id| self.tell(id, Event::End(Why::Shutdown)));
    }

    /// Whether the node shuts down.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Memory promised to those of them that the node's bounds are for.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory_mib
    }

    /// Each of them.
    pub(crate) fn containers(&self) -> Vec<ContainerStatus> {
        let status = |(id, entry): (&ContainerId, &Entry)| ContainerStatus {
            id: *id,
            function: entry.function.clone(),
            tenant: entry.lane.tenant.as_deref().map(str::to_owned),
            state: entry.state_name(),
            memory_mib: entry.memory_mib,
            calls: entry.calls,
            age_ms: millis(entry.begun.elapsed()),
            usage: None,
        };
        self.entries.iter().map(status).collect()
    }
}

impl Books {
    /// A container of the lane went from one state to another.
    fn count(&mut self, before: State, after: State) {
        let change = |count: &mut usize, was: bool, is: bool| match (was, is) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            (true, true) | (false, false) => {}
        };
        let is_finishing = |state| matches!(state, State::Finishing(_));
        let is_at_work = |state| matches!(state, State::Busy(_) | State::Finishing(_));
        change(&mut self.finishing, is_finishing(before), is_finishing(after));
        change(&mut self.at_work, is_at_work(before), is_at_work(after));
    }

    /// Who waits for this container, itself or any of the lane: whoever came first.
    fn next_waiter(&mut self, id: ContainerId) -> Option<oneshot::Sender<Handle>> {
        let own = self.homes.waiting(id).filter(|own| !own.is_empty());
        let queue = match (own, self.waiting.front()) {
            (Some(own), Some((any, _))) if own.front().is_some_and(|(came, _)| came <= any) => own,
            (Some(own), None) => own,
            (Some(_) | None, _) => &mut self.waiting,
        };
        queue.pop_front().map(|(_, waiter)| waiter)
    }
}

/// What a container is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A call that waits.
    Call,
    /// Provisioned concurrency.
    Provisioned,
    /// A snapshot; it never takes a call.
    Snapshot,
}

/// Whether a call may wait for a container that is about to be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Some,
    None,
}

fn count(state: State, change: f64) {
    metrics::gauge!("lambent_containers", "state" => state.name()).increment(change);
}

#[cfg(test)]
pub(crate) mod tests;

//! Which event is next: the order of a queue, in memory, for any back end that keeps the events elsewhere.
//!
//! Pure: no clock, no I/O. Times are microseconds since 1970. Buried events are counted and otherwise not here.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use super::Bounds;

/// What is to be taken; see [`super::Wish`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take<'a> {
    pub now: i64,
    pub until: i64,
    pub places: usize,
    pub most: usize,
    pub without: &'a [String],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not due yet.
    Waiting,
    /// Due.
    Ready,
    /// Somebody's.
    Leased { until: i64 },
}

#[derive(Debug)]
struct Entry {
    lane: u32,
    latest: i64,
    due: i64,
    bytes: u64,
    /// How often it was leased.
    turns: u32,
    /// The turn whose holder may still say what became of it; 0: none.
    right: u32,
    state: State,
}

#[derive(Debug)]
struct Lane {
    name: String,
    account: u32,
    /// `(latest start, id)` of its events that are due.
    ready: BTreeSet<(i64, u64)>,
    leased: usize,
    events: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Account {
    leased: usize,
}

/// The order of a queue.
#[derive(Debug, Default)]
pub(crate) struct Order {
    bounds: Bounds,
    entries: HashMap<u64, Entry>,
    lanes: Vec<Lane>,
    /// Numbers of lanes by account and name.
    lane_numbers: HashMap<(u32, String), u32>,
    /// Numbers of lanes that had their last event, for others.
    free_numbers: Vec<u32>,
    accounts: Vec<Account>,
    account_numbers: HashMap<String, u32>,
    /// `(latest start, id, lane)` of the first event of each lane that has one due.
    heads: BTreeSet<(i64, u64, u32)>,
    /// `(due, id)` of events that are not due yet.
    waiting: BTreeSet<(i64, u64)>,
    /// `(until, id)` of leases.
    leases: BTreeSet<(i64, u64)>,
    bytes: u64,
    buried: u64,
    buried_bytes: u64,
}

impl Order {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Whether `events` more, of so many `bytes` together, may be added to a lane.
    pub(crate) fn admits(&self, account: &str, lane: &str, events: u64, bytes: u64) -> bool {
        let lane = self.find_lane(account, lane).and_then(|number| self.lanes.get(number as usize));
        let (own, own_bytes) = lane.map_or((0, 0), |lane| (lane.events, lane.bytes));
        let free = self.bounds.events.saturating_sub(self.entries.len() as u64 + self.buried);
        let free_bytes = self.bounds.bytes.saturating_sub(self.bytes + self.buried_bytes);
        events <= free && bytes <= free_bytes && own + events <= free && own_bytes + bytes <= free_bytes
    }

    /// An event that is kept from `now` on; `turns` is how often it was leased. What is due already is ready at once: moved up
    /// later, a backlog would be moved up all together, in the way of whoever takes the first of it.
    pub(crate) fn insert(
        &mut self,
        id: u64,
        (account, lane): (&str, &str),
        (now, due, latest): (i64, i64, i64),
        bytes: u64,
        turns: u32,
    ) {
        let lane = self.number_lane(account, lane);
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.events += 1;
            lane.bytes += bytes;
        }
        self.bytes += bytes;
        let state = if due <= now { State::Ready } else { State::Waiting };
        match state {
            State::Ready => self.change_ready(lane, |ready| ready.insert((latest, id))),
            _ => drop(self.waiting.insert((due, id))),
        }
        self.entries.insert(id, Entry { lane, latest, due, bytes, turns, right: 0, state });
    }

    /// The events to run next, with the number of the turn of each. What is due by `now`, and what is leased no longer, is moved up first.
    pub(crate) fn take(&mut self, wish: Take<'_>) -> Vec<(u64, u32)> {
        self.advance(wish.now);
        let mut taken = Vec::new();
        let mut next = self.heads.first().copied();
        while let Some((latest, id, number)) = next {
            if taken.len() >= wish.most || self.leases.len() >= wish.places {
                break;
            }
            if self.has_share(number, wish) {
                taken.push((id, self.lease(id, wish.until)));
                // The lane's next event may be the first of all again.
                next = self.heads.range((latest, 0, 0)..).next().copied();
            } else {
                next = self.heads.range((latest, id, number + 1)..).next().copied();
            }
        }
        taken
    }

    fn has_share(&self, number: u32, wish: Take<'_>) -> bool {
        let free = wish.places.saturating_sub(self.leases.len());
        let Some(lane) = self.lanes.get(number as usize) else { return false };
        let account = self.accounts.get(lane.account as usize).map_or(0, |account| account.leased);
        lane.leased < free && account < 3 * free && !wish.without.contains(&lane.name)
    }

    fn lease(&mut self, id: u64, until: i64) -> u32 {
        let Some(entry) = self.entries.get_mut(&id) else { return 0 };
        entry.turns += 1;
        entry.right = entry.turns;
        entry.state = State::Leased { until };
        let (key, number, turn) = ((entry.latest, id), entry.lane, entry.turns);
        self.leases.insert((until, id));
        self.change_ready(number, |ready| ready.remove(&key));
        self.count_lease(number, 1);
        turn
    }

    /// Takes a lease back that nobody was told of.
    pub(crate) fn untake(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.turns -= 1;
        entry.right = 0;
        self.move_to(id, State::Ready);
    }

    /// Extends a lease; false where it is no right any more.
    pub(crate) fn renew(&mut self, id: u64, turn: u32, until: i64) -> bool {
        if !self.is_right(id, turn) {
            return false;
        }
        self.move_to(id, State::Leased { until });
        true
    }

    /// Whether the holder of this turn may still say what became of the event. That is so until the next turn, even where its time
    /// has run out: what was done need not be done again.
    pub(crate) fn is_right(&self, id: u64, turn: u32) -> bool {
        turn != 0 && self.entries.get(&id).is_some_and(|entry| entry.right == turn)
    }

    pub(crate) fn is_leased(&self, id: u64) -> bool {
        self.entries.get(&id).is_some_and(|entry| matches!(entry.state, State::Leased { .. }))
    }

    /// Puts an event off until `due`. Earlier leases of it are no right any more.
    pub(crate) fn put_off(&mut self, id: u64, due: i64, latest: i64, bytes: u64) {
        self.move_to(id, State::Waiting);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.waiting.remove(&(entry.due, id));
        self.waiting.insert((due, id));
        let (lane, before) = (entry.lane, entry.bytes);
        (entry.due, entry.latest, entry.bytes, entry.right) = (due, latest, bytes, 0);
        self.bytes = self.bytes + bytes - before;
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.bytes = lane.bytes + bytes - before;
        }
    }

    /// Forgets an event; false where there is none.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.move_to(id, State::Waiting);
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.waiting.remove(&(entry.due, id));
        self.bytes -= entry.bytes;
        if let Some(lane) = self.lanes.get_mut(entry.lane as usize) {
            lane.events -= 1;
            lane.bytes -= entry.bytes;
            if lane.events == 0 {
                self.lane_numbers.remove(&(lane.account, std::mem::take(&mut lane.name)));
                self.free_numbers.push(entry.lane);
            }
        }
        true
    }

    /// Counts a buried event.
    pub(crate) fn bury(&mut self, bytes: u64) {
        self.buried += 1;
        self.buried_bytes += bytes;
    }

    /// Counts a buried event that is one no longer.
    pub(crate) fn unbury(&mut self, bytes: u64) {
        self.buried = self.buried.saturating_sub(1);
        self.buried_bytes = self.buried_bytes.saturating_sub(bytes);
    }

    /// When time alone makes another event one that can be taken.
    pub(crate) fn next(&self) -> Option<i64> {
        let due = self.waiting.first().map(|(due, _)| *due);
        let lapse = self.leases.first().map(|(until, _)| *until);
        due.into_iter().chain(lapse).min()
    }

    /// Pending, leased and buried events, and the bytes of all.
    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        let (all, leased) = (self.entries.len() as u64, self.leases.len() as u64);
        (all - leased, leased, self.buried, self.bytes + self.buried_bytes)
    }

    fn advance(&mut self, now: i64) {
        while let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.move_to(id, State::Ready);
            self.waiting.remove(&(due, id));
        }
        while let Some((until, id)) = self.leases.first().copied().filter(|(until, _)| *until <= now) {
            self.move_to(id, State::Ready);
            self.leases.remove(&(until, id));
        }
    }

    /// Takes an event out of the set its state has it in, and puts it into another.
    fn move_to(&mut self, id: u64, to: State) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let from = std::mem::replace(&mut entry.state, to);
        let (number, latest, due) = (entry.lane, entry.latest, entry.due);
        match from {
            State::Waiting => drop(self.waiting.remove(&(due, id))),
            State::Ready => self.change_ready(number, |ready| ready.remove(&(latest, id))),
            State::Leased { until } => {
                self.leases.remove(&(until, id));
                self.count_lease(number, -1);
            }
        }
        match to {
            State::Waiting => drop(self.waiting.insert((due, id))),
            State::Ready => self.change_ready(number, |ready| ready.insert((latest, id))),
            State::Leased { until } => {
                self.leases.insert((until, id));
                self.count_lease(number, 1);
            }
        }
    }

    fn change_ready(&mut self, number: u32, change: impl FnOnce(&mut BTreeSet<(i64, u64)>) -> bool) {
        let Some(lane) = self.lanes.get_mut(number as usize) else { return };
        let before = lane.ready.first().copied();
        change(&mut lane.ready);
        let after = lane.ready.first().copied();
        if before == after {
            return;
        }
        if let Some((latest, id)) = before {
            self.heads.remove(&(latest, id, number));
        }
        if let Some((latest, id)) = after {
            self.heads.insert((latest, id, number));
        }
    }

    fn count_lease(&mut self, number: u32, by: isize) {
        let Some(lane) = self.lanes.get_mut(number as usize) else { return };
        lane.leased = lane.leased.saturating_add_signed(by);
        if let Some(account) = self.accounts.get_mut(lane.account as usize) {
            account.leased = account.leased.saturating_add_signed(by);
        }
    }

    fn find_lane(&self, account: &str, lane: &str) -> Option<u32> {
        let account = *self.account_numbers.get(account)?;
        self.lane_numbers.get(&(account, lane.to_owned())).copied()
    }

    fn number_lane(&mut self, account: &str, lane: &str) -> u32 {
        let account = match self.account_numbers.get(account) {
            Some(number) => *number,
            None => {
                let number = self.accounts.len() as u32;
                self.accounts.push(Account::default());
                self.account_numbers.insert(account.to_owned(), number);
                number
            }
        };
        let slot = match self.lane_numbers.entry((account, lane.to_owned())) {
            Slot::Occupied(known) => return *known.get(),
            Slot::Vacant(slot) => slot,
        };
        let fresh = Lane { name: lane.to_owned(), account, ready: BTreeSet::new(), leased: 0, events: 0, bytes: 0 };
        let number = self.free_numbers.pop().unwrap_or(self.lanes.len() as u32);
        match self.lanes.get_mut(number as usize) {
            Some(lane) => *lane = fresh,
            None => self.lanes.push(fresh),
        }
        slot.insert(number);
        number
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;

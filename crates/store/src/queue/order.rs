//! Which event is next: the order of a queue, in memory, for any back end that keeps the events elsewhere, and for whatever else waits for
//! shared places in the order of latest starts (calls between functions).
//!
//! Pure: no clock, no I/O. Times are microseconds since 1970. Buried events are counted and otherwise not here.
//!
//! ```text
//! Waiting --due--> Ready --take--> Leased <--step away, come back--> Away: still somebody's, its place free for others
//!    ^               ^--lapse, untake--'
//!    '--put off--- any
//! ```

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use super::Bounds;

/// What is to be taken; see [`super::Wish`].
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// The time.
    pub now: i64,
    /// When the leases run out, unless renewed.
    pub until: i64,
    /// Leases that may be held at once, those that are held already included.
    pub places: usize,
    /// Events at most.
    pub most: usize,
    /// Only what must start by then at the latest.
    pub latest_by: Option<i64>,
    /// Whether there are lanes with places of their own ([`Room::Own`]), which are asked also where all others are taken.
    pub own_places: bool,
    /// What a lane's share of the places means.
    pub shares: Shares,
}

/// What it means that a lane gets another place only while it has fewer than are free, and an account while it has fewer than three times as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// It gets no more: there is always a place for a newcomer, and some stay empty for that.
    Bound,
    /// Who has less than its share goes first, then who has as a lane but not as an account, and whoever wants may have what is left: a newcomer is
    /// the next to get a place.
    First,
}

/// Within what a lane has to be to get another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Its own share, and its account's.
    Both,
    /// Its own share.
    Lane,
    /// What is free.
    Free,
}

/// Where the next event of a lane would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Nowhere, for now.
    None,
    /// In one of the places that all share: as far as the lane has a share of them.
    Shared,
    /// In a place of its own, which is no part of those.
    Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not due yet.
    Waiting,
    /// Due.
    Ready,
    /// Somebody's.
    Leased { until: i64 },
    /// Somebody's, and in no shared place.
    Away,
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
pub struct Order {
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
    /// Events that are somebody's and in no shared place.
    away: usize,
    bytes: u64,
    buried: u64,
    buried_bytes: u64,
}

impl Order {
    /// An empty one that keeps so much.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Whether `events` more, of so many `bytes` together, may be added to a lane.
    pub fn admits(&self, account: &str, lane: &str, events: u64, bytes: u64) -> bool {
        let lane = self.find_lane(account, lane).and_then(|number| self.lanes.get(number as usize));
        let (own, own_bytes) = lane.map_or((0, 0), |lane| (lane.events, lane.bytes));
        let free = self.bounds.events.saturating_sub(self.entries.len() as u64 + self.buried);
        let free_bytes = self.bounds.bytes.saturating_sub(self.bytes + self.buried_bytes);
        events <= free && bytes <= free_bytes && own + events <= free && own_bytes + bytes <= free_bytes
    }

    /// An event that is kept from `now` on; `turns` is how often it was leased. What is due already is ready at once: moved up
    /// later, a backlog would be moved up all together, in the way of whoever takes the first of it.
    pub fn insert(
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
    /// `room` is asked about lanes by name.
    pub fn take(&mut self, wish: Take, mut room: impl FnMut(&str) -> Room) -> Vec<(u64, u32)> {
        self.advance(wish.now);
        if wish.shares == Shares::Bound {
            return self.take_within(wish, wish.most, Within::Both, &mut room);
        }
        let mut taken = Vec::new();
        while taken.len() < wish.most {
            // Each that is taken may bring others within their share, or beyond.
            let mut steps = [Within::Both, Within::Lane, Within::Free].into_iter();
            let next = steps.find_map(|within| self.take_within(wish, 1, within, &mut room).pop());
            let Some(next) = next else { break };
            taken.push(next);
        }
        taken
    }

    fn take_within(
        &mut self,
        wish: Take,
        most: usize,
        within: Within,
        room: &mut impl FnMut(&str) -> Room,
    ) -> Vec<(u64, u32)> {
        let mut taken = Vec::new();
        let mut next = self.heads.first().copied();
        while let Some((latest, id, number)) = next {
            let is_full = self.leases.len() >= wish.places && !wish.own_places;
            if taken.len() >= most || is_full || wish.latest_by.is_some_and(|by| latest > by) {
                break;
            }
            let room = self.lanes.get(number as usize).map_or(Room::None, |lane| room(&lane.name));
            let state = match room {
                Room::Own => Some(State::Away),
                Room::Shared if self.has_share(number, wish.places, within) => {
                    Some(State::Leased { until: wish.until })
                }
                Room::Shared | Room::None => None,
            };
            if let Some(state) = state {
                taken.push((id, self.hand_out(id, state)));
                // The lane's next event may be the first of all again.
                next = self.heads.range((latest, 0, 0)..).next().copied();
            } else {
                next = self.heads.range((latest, id, number + 1)..).next().copied();
            }
        }
        taken
    }

    fn has_share(&self, number: u32, places: usize, within: Within) -> bool {
        let free = places.saturating_sub(self.leases.len());
        let Some(lane) = self.lanes.get(number as usize) else { return false };
        let account = || self.accounts.get(lane.account as usize).map_or(0, |account| account.leased);
        match within {
            Within::Both => lane.leased < free && account() < 3 * free,
            Within::Lane => lane.leased < free,
            Within::Free => free > 0,
        }
    }

    fn hand_out(&mut self, id: u64, to: State) -> u32 {
        let Some(entry) = self.entries.get_mut(&id) else { return 0 };
        entry.turns += 1;
        entry.right = entry.turns;
        let turn = entry.turns;
        self.move_to(id, to);
        turn
    }

    /// An event of which nothing runs for now: its place is free for others.
    pub fn step_away(&mut self, id: u64) {
        if self.entries.get(&id).is_some_and(|entry| matches!(entry.state, State::Leased { .. })) {
            self.move_to(id, State::Away);
        }
    }

    /// It takes a place again, whether there is one or not.
    pub fn come_back(&mut self, id: u64, until: i64) {
        if self.entries.get(&id).is_some_and(|entry| entry.state == State::Away) {
            self.move_to(id, State::Leased { until });
        }
    }

    /// Has an event that is nobody's start earlier than it had to; false where it is somebody's, or has to start by then anyway.
    pub fn hasten(&mut self, id: u64, latest: i64) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let is_free = matches!(entry.state, State::Waiting | State::Ready);
        if !is_free || entry.latest <= latest {
            return false;
        }
        let (number, before) = (entry.lane, std::mem::replace(&mut entry.latest, latest));
        if entry.state == State::Ready {
            self.change_ready(number, |ready| ready.remove(&(before, id)));
            self.change_ready(number, |ready| ready.insert((latest, id)));
        }
        true
    }

    /// Leases that are held.
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// Of the events that are due and must start after `now`: when the first of them must.
    pub fn next_latest(&self, now: i64) -> Option<i64> {
        self.heads.range((now.saturating_add(1), 0, 0)..).next().map(|(latest, ..)| *latest)
    }

    /// Takes a lease back that nobody was told of.
    pub fn untake(&mut self, id: u64) {
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
    pub fn put_off(&mut self, id: u64, due: i64, latest: i64, bytes: u64) {
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
    pub fn remove(&mut self, id: u64) -> bool {
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
    pub fn next(&self) -> Option<i64> {
        let due = self.waiting.first().map(|(due, _)| *due);
        let lapse = self.leases.first().map(|(until, _)| *until);
        due.into_iter().chain(lapse).min()
    }

    /// Pending, leased and buried events, and the bytes of all.
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        let (all, leased) = (self.entries.len() as u64, (self.leases.len() + self.away) as u64);
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
            State::Away => self.away -= 1,
        }
        match to {
            State::Waiting => drop(self.waiting.insert((due, id))),
            State::Ready => self.change_ready(number, |ready| ready.insert((latest, id))),
            State::Leased { until } => {
                self.leases.insert((until, id));
                self.count_lease(number, 1);
            }
            State::Away => self.away += 1,
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

//! The line: in which order calls start that functions have started, and which of them are held back.
//!
//! ```text
//! join --> waits --next--> started --left--> its place is free again: what it runs for waits itself, or has ended
//!           |  ^             |  ^ '-entered-'
//!           |  '--put off----'  |
//!           '-----------------done--> gone
//! ```
//! Pure: times are microseconds of whatever clock the caller has. The same code runs on a node (`calls/desk.rs`) and in the simulator
//! (`examples/deadlines.rs`).
//!
//! **Order.** It is the order of the queue of events ([`lambent_store::queue::Order`]), of which a call is one that nobody keeps: what must start first
//! is first, but a function goes before all others that has less than its share of the places: fewer than are free, its account fewer
//! than three times as many. So whoever comes while others flood the node is the next to get a place. Events are kept to their shares, and some places
//! stay empty for newcomers; calls may have those (`Shares::First`), because a place that is empty while somebody waits is what costs
//! deadlines. Nothing that waits inside of a call of its own has a place, so that no chain of callers can keep what they wait for from
//! starting. A function with a reservation has its pool to itself.
//!
//! **Held back.** While capacity is short ([`Capacity::is_short`]) only calls start whose latest start has come. All others wait, for the
//! time when it is not, and until their latest start at most; so the work of a peak that can wait is moved behind it, and what cannot, direct
//! invocations among it, finds the machine less busy. Who waits for a call makes it urgent ([`Line::hasten`]).
//!
//! **Bounds.** So many calls wait or run ([`lambent_store::queue::Bounds`]); one function has half of them at most. Beyond it [`Line::join`] refuses.

use lambent_store::queue::{Bounds, Order, Shares, Take};

pub use lambent_store::queue::Room;

/// What there is to start calls with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Places that are free of those that functions without a reservation share.
    pub free: usize,
    /// Whether what can wait had better do so.
    pub is_short: bool,
}

/// A call that joins.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// Its name here; never used twice.
    pub id: u64,
    /// Whose share it runs on.
    pub account: &'a str,
    /// The function called.
    pub lane: &'a str,
    /// The time.
    pub now: i64,
    /// When it must start at the latest.
    pub latest: i64,
}

/// There is no room in the line for this function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Calls that wait to be started, and those that were.
#[derive(Debug, Default)]
pub struct Line {
    order: Order,
}

impl Line {
    /// An empty one, for so many calls.
    pub fn new(most: u64) -> Self {
        Self { order: Order::new(Bounds { events: most, bytes: u64::MAX }) }
    }

    /// Has a call wait for its turn.
    pub fn join(&mut self, call: Joining<'_>) -> Result<(), Full> {
        let Joining { id, account, lane, now, latest } = call;
        if !self.order.admits(account, lane, 1, 0) {
            return Err(Full);
        }
        self.order.insert(id, (account, lane), (now, now, latest), 0, 0);
        Ok(())
    }

    /// The call that starts now; none where none can, or all that can may wait. `room` says of a function where it would run.
    pub fn next(&mut self, now: i64, capacity: Capacity, room: impl FnMut(&str) -> Room) -> Option<u64> {
        let take = Take {
            now,
            until: i64::MAX,
            places: self.order.leased() + capacity.free,
            most: 1,
            latest_by: capacity.is_short.then_some(now),
            own_places: true,
            shares: Shares::First,
        };
        self.order.take(take, room).first().map(|(id, _)| *id)
    }

    /// Somebody waits for a call: it starts as soon as it can. False where it has been started, or has to start anyway.
    pub fn hasten(&mut self, id: u64, now: i64) -> bool {
        self.order.hasten(id, now)
    }

    /// A call that was to start finds no place after all; it waits again, until `due` at least.
    pub fn put_off(&mut self, id: u64, due: i64, latest: i64) {
        self.order.put_off(id, due, latest, 0);
    }

    /// A started call's place is free: it waits for calls of its own, or has no place to begin with.
    pub fn left(&mut self, id: u64) {
        self.order.step_away(id);
    }

    /// A started call has a place again.
    pub fn entered(&mut self, id: u64) {
        self.order.come_back(id, i64::MAX);
    }

    /// A call is over, or nobody wants it any more.
    pub fn done(&mut self, id: u64) {
        self.order.remove(id);
    }

    /// When time alone makes another call one that starts.
    pub fn wake_at(&self, now: i64) -> Option<i64> {
        let due = self.order.next().filter(|due| *due < i64::MAX);
        due.into_iter().chain(self.order.next_latest(now)).min()
    }

    /// Calls that wait.
    pub fn waiting(&self) -> u64 {
        self.order.counts().0
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

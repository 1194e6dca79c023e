//! The desk: where calls wait for their turn, each called up by itself when there is a place for it.
//!
//! It has the [`Line`] under a lock, and one task that looks at it when a place is given back, when the next latest start has come, or when somebody
//! has joined who must wait. A call that can start at once is called up by whoever brings it. Who is called up has a place already, so nobody runs
//! for it in vain; the others sleep on.
//!
//! A call of an idempotent function is called up without a place: it may find its answer on record, or wait for another's, and a place would be
//! kept from those it waits for. It takes one where it runs, and waits again, for [`LOOK_AGAIN`], where there is none; so does a call
//! that the node has no container for. Of such calls no more are called up at once than places are free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use lambent_model::{Clock, FunctionArn};
use tokio::sync::{Notify, oneshot};

use crate::Invoker;
use crate::admission::Permit;
use crate::deadlines::learned::micros;
use crate::deadlines::line::{Capacity, Joining, Line, Room};

/// Calls that wait or run; a function has half of them at most.
pub const MOST_IN_LINE: u64 = 100_000;
/// When a call looks for a place again that found none when it had its turn: that a full node has room is told by nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long the line is left alone at most while somebody waits in it.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// When calls and events are held back.
#[derive(Debug, Clone, Copy)]
pub struct Holding {
    /// Invocations at once on the node from which on calls wait that can. 0: always.
    pub from: u32,
}

impl Default for Holding {
    /// Never.
    fn default() -> Self {
        Self { from: u32::MAX }
    }
}

/// A call's turn: its place, if it was given one.
#[derive(Debug)]
pub struct Turn {
    permit: Option<Permit>,
    share: Option<Share>,
}

impl Turn {
    /// The place it was given, else the one that `admit` gives.
    pub(crate) fn place<E>(self, admit: impl FnOnce() -> Result<Permit, E>) -> Result<Permit, E> {
        match (self.permit, self.share) {
            (Some(permit), _) => Ok(permit),
            (None, None) => admit(),
            (None, Some(share)) => admit().map(|permit| {
                share.enter();
                permit.counted(share)
            }),
        }
    }
}

/// What a place that came of a turn counts in: its function's share.
#[derive(Debug)]
pub(crate) struct Share {
    desk: Weak<Desk>,
    id: u64,
}

/// What waits.
#[derive(Debug)]
struct Waiting {
    function: FunctionArn,
    latest: i64,
    since: Instant,
    /// Whether it is called up with a place.
    placed: bool,
    call_up: oneshot::Sender<Turn>,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    waiting: HashMap<u64, Waiting>,
    /// Functions that calls wait for.
    lanes: HashMap<String, Lane>,
    fresh: u64,
}

#[derive(Debug)]
struct Lane {
    function: FunctionArn,
    waiting: usize,
}

/// Who joins.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub function: FunctionArn,
    /// When it must start at the latest, in microseconds.
    pub latest: i64,
    /// Whether its answer may be found without running it.
    pub may_be_on_record: bool,
}

/// Where a call waits, or runs; it has left when this is dropped.
#[derive(Debug)]
pub(super) struct Spot {
    desk: Arc<Desk>,
    pub(super) id: u64,
}

impl Drop for Spot {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.forget(self.id);
        state.line.done(self.id);
    }
}

/// Calls that wait.
pub(crate) struct Desk {
    state: Mutex<State>,
    /// Told when somebody must wait.
    nudge: Notify,
    invoker: Arc<Invoker>,
    clock: Arc<dyn Clock>,
    holding: Holding,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    pub(super) fn new(invoker: Arc<Invoker>, clock: Arc<dyn Clock>, holding: Holding) -> Arc<Self> {
        let state = State { line: Line::new(MOST_IN_LINE), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), nudge: Notify::new(), invoker, clock, holding })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }

    /// Has a call wait for its turn, which may be now. Refused where too many wait.
    pub(super) fn join(self: &Arc<Self>, arrival: Arrival) -> Result<(Spot, oneshot::Receiver<Turn>), crate::Error> {
        let Arrival { function, latest, may_be_on_record } = arrival;
        let (call_up, turn) = oneshot::channel();
        let now = self.now();
        let spot = {
            let mut state = self.lock();
            state.fresh += 1;
            let (id, lane) = (state.fresh, function.to_string());
            let joining = Joining { id, account: function.account.as_str(), lane: &lane, now, latest };
            // Too much of what can only wait: the same answer as to too many events.
            state.line.join(joining).map_err(|_| crate::Error::QueueFull)?;
            let waiting = Waiting { function, latest, since: Instant::now(), placed: !may_be_on_record, call_up };
            state.wait(id, lane, waiting);
            Spot { desk: Arc::clone(self), id }
        };
        self.call_up();
        Ok((spot, turn))
    }

    /// A call that had its turn found no place all the same; it waits again.
    pub(super) fn join_again(self: &Arc<Self>, spot: &Spot, arrival: Arrival) -> oneshot::Receiver<Turn> {
        let Arrival { function, may_be_on_record, .. } = arrival;
        let (call_up, turn) = oneshot::channel();
        // It was to start already.
        let latest = self.now();
        let due = latest.saturating_add(micros(LOOK_AGAIN));
        {
            let mut state = self.lock();
            state.line.put_off(spot.id, due, latest);
            let (lane, placed) = (function.to_string(), !may_be_on_record);
            state.wait(spot.id, lane, Waiting { function, latest, since: Instant::now(), placed, call_up });
        }
        self.nudge.notify_one();
        turn
    }

    /// Somebody waits for these: they start as soon as they can.
    pub(super) fn hasten(self: &Arc<Self>, spots: &[u64]) {
        let now = self.now();
        let hastened = {
            let mut state = self.lock();
            spots.iter().filter(|spot| state.hasten(**spot, now)).count()
        };
        if hastened > 0 {
            self.call_up();
        }
    }

    /// Nobody wants a call any more: where it still waits, it will not start.
    pub(super) fn withdraw(&self, spot: u64) {
        let mut state = self.lock();
        if let Some(waiting) = state.forget(spot) {
            state.line.done(spot);
            drop(state);
            // Its task learns by this that it is over.
            drop(waiting);
        }
    }

    /// Calls up whoever can start now.
    fn call_up(self: &Arc<Self>) {
        if self.look().is_some() {
            self.nudge.notify_one();
        }
    }

    /// The same; when to look again unasked, if anybody waits.
    fn look(self: &Arc<Self>) -> Option<i64> {
        let mut called = Vec::new();
        let wake = {
            let mut state = self.lock();
            while let Some((waiting, turn)) = self.next(&mut state, &called) {
                called.push((waiting, turn));
            }
            let depth = state.waiting.len();
            metrics::gauge!("lambent_calls_waiting").set(depth as f64);
            let now = self.now();
            (depth > 0).then(|| state.line.wake_at(now).unwrap_or(i64::MAX))
        };
        let had_no_place = called.iter().any(|(waiting, _)| !waiting.placed);
        for (waiting, turn) in called {
            metrics::histogram!("lambent_call_held_seconds").record(waiting.since.elapsed().as_secs_f64());
            // Whose receiver is gone has been withdrawn; the place goes back with what could not be sent.
            let _ = waiting.call_up.send(turn);
        }
        let again = self.now().saturating_add(micros(LOOK_AGAIN));
        wake.map(|wake| if had_no_place { wake.min(again) } else { wake })
    }

    /// The one who starts next, and with what.
    fn next(self: &Arc<Self>, state: &mut State, called: &[(Waiting, Turn)]) -> Option<(Waiting, Turn)> {
        let free = self.invoker.free_places();
        let unplaced = called.iter().filter(|(waiting, _)| !waiting.placed).count();
        let capacity = Capacity {
            free: free.saturating_sub(unplaced),
            is_short: self.invoker.running() as usize + unplaced >= self.holding.from as usize,
        };
        let State { line, lanes, .. } = state;
        let room = |lane: &str| lanes.get(lane).map_or(Room::Own, |lane| self.invoker.room(&lane.function));
        let now = self.now();
        let id = line.next(now, capacity, room)?;
        let Some(waiting) = state.forget(id) else {
            state.line.done(id);
            return None;
        };
        let share = Share { desk: Arc::downgrade(self), id };
        if !waiting.placed {
            state.line.left(id);
            return Some((waiting, Turn { permit: None, share: Some(share) }));
        }
        match self.invoker.place(&waiting.function) {
            Ok(Some(permit)) if permit.is_shared() => {
                Some((waiting, Turn { permit: Some(permit.counted(share)), share: None }))
            }
            // Its own pool's; or there is something wrong with the function, which it will be told.
            Ok(permit) => {
                state.line.left(id);
                Some((waiting, Turn { permit, share: None }))
            }
            // An invocation from outside was faster.
            Err(_) => {
                state.line.put_off(id, now, waiting.latest);
                let lane = waiting.function.to_string();
                state.wait(id, lane, waiting);
                None
            }
        }
    }

    /// Looks whenever there is something to see, for as long as it is wanted.
    pub(super) async fn attend(self: Arc<Self>) {
        loop {
            let left = self.invoker.place_left();
            tokio::pin!(left);
            left.as_mut().enable();
            let Some(wake) = self.look() else {
                self.nudge.notified().await;
                continue;
            };
            let sleep = Duration::from_micros(wake.saturating_sub(self.now()).max(0).unsigned_abs()).min(LOOK_ANYWAY);
            tokio::select! {
                () = left => {}
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }
}

impl State {
    fn wait(&mut self, id: u64, lane: String, waiting: Waiting) {
        let function = &waiting.function;
        self.lanes.entry(lane).or_insert_with(|| Lane { function: function.clone(), waiting: 0 }).waiting += 1;
        self.waiting.insert(id, waiting);
    }

    /// Takes out one that waits.
    fn forget(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        let name = waiting.function.to_string();
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.waiting -= 1;
            if lane.waiting == 0 {
                self.lanes.remove(&name);
            }
        }
        Some(waiting)
    }

    fn hasten(&mut self, id: u64, now: i64) -> bool {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.latest = waiting.latest.min(now);
        }
        self.line.hasten(id, now)
    }
}

impl Share {
    /// What it counts for does not run for now.
    pub(crate) fn leave(&self) {
        self.on_line(Line::left);
    }

    /// It runs again.
    pub(crate) fn enter(&self) {
        self.on_line(Line::entered);
    }

    fn on_line(&self, tell: impl FnOnce(&mut Line, u64)) {
        if let Some(desk) = self.desk.upgrade() {
            tell(&mut desk.lock().line, self.id);
        }
    }
}

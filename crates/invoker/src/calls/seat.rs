//! The seat of a running invocation: its place in concurrency, which it gives back while it waits, and the calls it has started.
//!
//! ```text
//! Here ──leave──► Away ──back──► Here          over ──► Gone, and with it all calls
//! ```
//!
//! Who comes back takes a place without asking: the account may be over its limit by as many as have just come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lambent_fleet::Pause;
use lambent_model::RequestId;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::claim::Claim;
use super::{Blocked, Books, Error, Held, MOST_BYTES, MOST_CALLS, Outcome};
use crate::admission::{Parked, Permit};

/// Of one invocation.
#[derive(Debug)]
pub struct Seat {
    books: Arc<Books>,
    state: Mutex<State>,
    changed: Notify,
    /// What its container does meanwhile.
    pause: Arc<Pause>,
}

#[derive(Debug)]
struct State {
    place: Place,
    /// Of the waits that are over.
    waited: Duration,
    calls: HashMap<RequestId, Call>,
    bytes: usize,
}

#[derive(Debug)]
enum Place {
    Here(#[allow(dead_code, reason = "its drop is what counts")] Permit),
    Away(Parked, Instant),
    Gone,
}

#[derive(Debug)]
struct Call {
    held: Held,
    outcome: Option<Result<Outcome, Error>>,
    claim: Option<Claim>,
}

/// Held by the call as long as it runs.
pub(crate) struct Ticket(Arc<Seat>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// Somebody waits; back when dropped.
#[derive(Debug)]
pub(super) struct Away(Arc<Seat>);

impl Away {
    /// Comes back, when the container runs again.
    pub(super) async fn back(self) {
        self.0.pause.go_on();
        self.0.pause.running().await;
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.pause.go_on();
        self.0.back();
    }
}

impl Seat {
    /// For an invocation that has this place.
    pub(crate) fn of(permit: Permit, books: Arc<Books>) -> (Arc<Self>, Ticket) {
        let state = State { place: Place::Here(permit), waited: Duration::ZERO, calls: HashMap::new(), bytes: 0 };
        let (state, changed, pause) = (Mutex::new(state), Notify::new(), Arc::default());
        let seat = Arc::new(Self { books, state, changed, pause });
        (Arc::clone(&seat), Ticket(seat))
    }

    /// What its container does while it waits.
    pub(crate) fn pause(&self) -> &Arc<Pause> {
        &self.pause
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when a call has become done, or all is over.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn begin(&self, id: RequestId, bytes: usize) -> Result<(), Error> {
        let mut state = self.lock();
        state.check()?;
        if state.calls.len() >= MOST_CALLS {
            return Err(Error::TooMany);
        }
        if state.bytes + bytes > MOST_BYTES {
            return Err(Error::TooLarge { bytes, limit: MOST_BYTES });
        }
        let held = self.books.hold(bytes)?;
        state.bytes += bytes;
        state.calls.insert(id, Call { held, outcome: None, claim: None });
        Ok(())
    }

    /// The call waits for its turn; what it is to be told of its caller goes through this.
    pub(super) fn claim(&self, id: RequestId, claim: Claim) {
        match self.lock().calls.get_mut(&id) {
            Some(call) => call.claim = Some(claim),
            // All is over already.
            None => drop(claim),
        }
    }

    /// The results of these are asked for; gives what still waits of those for which that is the first time.
    pub(super) fn ask(&self, ids: &[RequestId]) -> Vec<u64> {
        let mut state = self.lock();
        let mut asked = Vec::new();
        for id in ids {
            asked.extend(state.calls.get_mut(id).and_then(|call| call.claim.as_mut()).and_then(Claim::ask));
        }
        asked
    }

    /// Whether the call is still wanted.
    pub(super) fn wants(&self, id: RequestId) -> bool {
        self.lock().calls.contains_key(&id)
    }

    /// A call has ended. An answer that finds no room is told as an error.
    pub(super) fn done(&self, id: RequestId, outcome: Result<Outcome, Error>) {
        let mut state = self.lock();
        // Where it was let go of, the answer is too.
        let Some(Call { held, claim, .. }) = state.calls.remove(&id) else { return };
        state.bytes -= held.bytes;
        drop(held);
        let bytes = outcome.as_ref().map_or(0, |outcome| outcome.body.len());
        let held = match state.bytes + bytes > MOST_BYTES {
            true => Err(Error::TooLarge { bytes, limit: MOST_BYTES }),
            false => self.books.hold(bytes),
        };
        let call = match held {
            Ok(held) => Call { held, outcome: Some(outcome), claim },
            Err(error) => {
                let nothing = Held { books: Arc::clone(&self.books), bytes: 0 };
                Call { held: nothing, outcome: Some(Err(error)), claim }
            }
        };
        state.bytes += call.held.bytes;
        state.calls.insert(id, call);
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn which_are_done(&self, ids: &[RequestId]) -> Result<Vec<RequestId>, Error> {
        let state = self.lock();
        state.check()?;
        let mut done = Vec::new();
        for id in ids {
            let call = state.calls.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
            if call.outcome.is_some() {
                done.push(*id);
            }
        }
        Ok(done)
    }

    pub(super) fn take(&self, id: RequestId) -> Result<Outcome, Error> {
        let mut state = self.lock();
        let gone = || Error::NotFound(id.to_string());
        let Call { held, outcome, claim: _asked } = state.calls.remove(&id).ok_or_else(gone)?;
        state.bytes -= held.bytes;
        outcome.unwrap_or_else(|| Err(gone()))
    }

    pub(super) fn forget(&self, id: RequestId) -> Result<(), Error> {
        let mut state = self.lock();
        let mut call = state.calls.remove(&id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        state.bytes -= call.held.bytes;
        drop(state);
        call.claim.iter_mut().for_each(Claim::let_go);
        // Who waits for it learns that it is gone.
        self.changed.notify_waiters();
        Ok(())
    }

    /// Gives the place back for as long as somebody waits. The first who comes back takes it again: there is something to do.
    pub(super) fn leave(seat: &Arc<Self>, blocked: Blocked) -> Away {
        let mut state = seat.lock();
        state.place = match std::mem::replace(&mut state.place, Place::Gone) {
            Place::Here(permit) => Place::Away(permit.park(), Instant::now()),
            other => other,
        };
        drop(state);
        match blocked {
            Blocked::Yes => seat.pause.block(),
            Blocked::No => seat.pause.go_on(),
        }
        Away(Arc::clone(seat))
    }

    fn back(&self) {
        let mut state = self.lock();
        state.place = match std::mem::replace(&mut state.place, Place::Gone) {
            Place::Away(parked, since) => {
                state.waited += since.elapsed();
                Place::Here(parked.back())
            }
            other => other,
        };
    }

    fn over(&self) {
        let mut state = self.lock();
        if let Place::Away(_, since) = &state.place {
            let last = since.elapsed();
            state.waited += last;
        }
        let place = std::mem::replace(&mut state.place, Place::Gone);
        let calls = std::mem::take(&mut state.calls);
        state.bytes = 0;
        drop(state);
        drop((place, calls));
        self.changed.notify_waiters();
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        match self.place {
            Place::Here(_) | Place::Away(..) => Ok(()),
            Place::Gone => Err(Error::Over),
        }
    }
}

impl lambent_fleet::Seat for Seat {
    fn waited(&self) -> Duration {
        let state = self.lock();
        match &state.place {
            Place::Away(_, since) => state.waited + since.elapsed(),
            Place::Here(_) | Place::Gone => state.waited,
        }
    }
}

//! Requests that are the same and come at the same time: one leads, the others wait for what comes of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Done;
use super::digest::Key;

/// What comes of a run; none yet.
type Seen = Option<Arc<Done>>;

#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, Flight>>>);

struct Flight {
    /// Digest of what the leader's function gets.
    payload: Arc<str>,
    seen: watch::Receiver<Seen>,
}

/// What to do.
pub(super) enum Joined {
    /// Run it.
    Lead(Lead),
    /// Wait.
    Follow(Follow),
}

/// The right to run what nobody else runs. Dropped without having landed, it lets the waiting try by themselves.
pub(super) struct Lead {
    key: Key,
    flights: Arc<Mutex<HashMap<Key, Flight>>>,
    seen: watch::Sender<Seen>,
}

/// Somebody else runs it.
pub(super) struct Follow {
    pub payload: Arc<str>,
    seen: watch::Receiver<Seen>,
}

impl Flights {
    pub fn join(&self, key: Key, payload: &str) -> Joined {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match flights.entry(key) {
            Entry::Occupied(flight) => {
                Joined::Follow(Follow { payload: flight.get().payload.clone(), seen: flight.get().seen.clone() })
            }
            Entry::Vacant(place) => {
                let (sender, seen) = watch::channel(None);
                place.insert(Flight { payload: payload.into(), seen });
                Joined::Lead(Lead { key, flights: self.0.clone(), seen: sender })
            }
        }
    }
}

impl Lead {
    /// Gives what came of it to all who wait. Who comes later finds it on record, or runs.
    pub fn land(self, done: Arc<Done>) {
        self.seen.send_replace(Some(done));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Follow {
    /// What came of it; none: nothing.
    pub async fn landed(mut self) -> Seen {
        // An error: the leader is gone. Its last word counts either way.
        let _ = self.seen.wait_for(Option::is_some).await;
        let seen = self.seen.borrow();
        seen.clone()
    }
}

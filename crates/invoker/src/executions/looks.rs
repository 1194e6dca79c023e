//! Looks that are shared: requests that need the state of the same thing at the same time.
//!
//! A look counts for those who came before it began: what changed before they came, it sees. So one look goes on at a time for each thing;
//! who comes meanwhile waits for it to end, and all of those share the next. Held as long as somebody waits, so bounded by the requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use lambent_model::idempotency::Resource;
use lambent_model::{Clock, FunctionArn};

use super::inspect::{Inspect, State, Unknown};

/// When somebody came or a look began; no two at once. A count, as the clock may stand still or be set back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// When a look began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub at: Timestamp,
    pub turn: Turn,
}

/// Of no turn of this process: it says nothing to those who wait.
impl From<Timestamp> for Looked {
    fn from(at: Timestamp) -> Self {
        Self { at, turn: Turn::default() }
    }
}

/// What a look found.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub state: Result<State, Unknown>,
    pub looked: Looked,
}

/// The last look at one thing. The lock is held while one goes on.
type Place = Arc<tokio::sync::Mutex<Option<Look>>>;

pub(super) struct Looks {
    inspector: Arc<dyn Inspect>,
    clock: Arc<dyn Clock>,
    turns: AtomicU64,
    places: Mutex<HashMap<String, Place>>,
}

/// Somebody who waits for a look; the last one to go takes the place away.
pub(super) struct Waiting {
    looks: Arc<Looks>,
    name: String,
    place: Option<Place>,
}

impl Looks {
    pub fn new(inspector: Arc<dyn Inspect>, clock: Arc<dyn Clock>) -> Self {
        Self { inspector, clock, turns: AtomicU64::new(0), places: Mutex::default() }
    }

    /// The turn of who comes now.
    pub fn come(&self) -> Turn {
        Turn(self.turns.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether `function` may have `resource` looked at.
    pub fn check(&self, function: &FunctionArn, resource: &Resource) -> Result<(), Unknown> {
        self.inspector.check(function, resource)
    }

    /// Takes a place among those who wait for a look at what is called `name`.
    pub fn wait(self: &Arc<Self>, name: &str) -> Waiting {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(name.to_owned()).or_default().clone();
        Waiting { looks: self.clone(), name: name.to_owned(), place: Some(place) }
    }

    /// Things that somebody waits to have looked at.
    #[cfg(test)]
    pub fn going(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Waiting {
    /// A look at `resource` that began after `came`.
    pub async fn look(self, resource: &Resource, came: Turn) -> Look {
        let place = self.place.clone().unwrap_or_default();
        let mut last = place.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.looked.turn > came) {
            return look.clone();
        }
        let looked = Looked { turn: self.looks.come(), at: self.looks.clock.now() };
        let look = Look { state: self.looks.inspector.state(resource).await, looked };
        *last = Some(look.clone());
        look
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut places = self.looks.places.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.place.take());
        if places.get(&self.name).is_some_and(|place| Arc::strong_count(place) == 1) {
            places.remove(&self.name);
        }
    }
}

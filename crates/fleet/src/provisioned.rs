//! Provisioned concurrency: containers that are initialised ahead of calls and kept.
//!
//! The control plane says, whole, what is wanted: versions and how many containers of each ([`Provisioning::wish`]). One task ([`keep`]),
//! nudged by whatever changes and by a timer, makes what is missing one at a time, in the same turns as calls' cold starts. What is too much,
//! or not wanted any more, becomes ordinary: it serves on and ends when it was idle for long enough, or with its version.
//!
//! ```text
//! wish ─► begin (books: provisioned) ─► init outside of any call ─► Idle ─► calls … ─► ended or broken ─► made again
//!                                          └── fails: the reason is kept for whoever asks; tried again later and later
//! ```
//!
//! A provisioned container is not ended for idleness, nor to make room, nor under memory pressure. Calls beyond their number get ordinary
//! containers. WebAssembly functions need no containers: compiled, they are as ready as they can be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::fleet::Inner;

/// How often everything is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How long a version whose container could not be made waits: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What became of a version's provisioned concurrency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provisioned {
    /// Containers that are initialised.
    pub available: u32,
    /// Why there are not more, where the last attempt to make one failed.
    pub failure: Option<String>,
}

struct Wish {
    version: Arc<FunctionVersion>,
    count: u32,
    failure: Option<Failure>,
}

struct Failure {
    reason: String,
    attempts: u32,
    again_at: Instant,
}

/// What is wanted, and what was in the way.
#[derive(Default)]
pub(crate) struct Provisioning {
    wishes: Mutex<HashMap<Uuid, Wish>>,
    nudge: Notify,
}

impl Provisioning {
    fn wishes(&self) -> MutexGuard<'_, HashMap<Uuid, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of whatever was wanted before.
    pub(crate) fn wish(&self, wanted: Vec<(Arc<FunctionVersion>, u32)>) {
        let mut wishes = self.wishes();
        let mut before = std::mem::take(&mut *wishes);
        for (version, count) in wanted {
            let failure = before.remove(&version.generation).and_then(|wish| wish.failure);
            wishes.insert(version.generation, Wish { version, count, failure });
        }
        drop(wishes);
        self.nudge.notify_one();
    }

    /// A container could not be initialised.
    pub(crate) fn failed(&self, generation: Uuid, reason: &str) {
        if let Some(wish) = self.wishes().get_mut(&generation) {
            let attempts = wish.failure.as_ref().map_or(0, |failure| failure.attempts);
            let wait = RETRY.0.saturating_mul(1 << attempts.min(16)).min(RETRY.1);
            let again_at = Instant::now() + wait;
            wish.failure = Some(Failure { reason: reason.to_owned(), attempts: attempts.saturating_add(1), again_at });
        }
    }

    /// One is ready.
    pub(crate) fn succeeded(&self, generation: Uuid) {
        if let Some(wish) = self.wishes().get_mut(&generation) {
            wish.failure = None;
        }
        self.nudge.notify_one();
    }

    /// Something changed that may leave a wish unfulfilled.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }
}

impl Inner {
    /// What became of the provisioned concurrency of a version.
    pub(crate) fn provisioned(&self, generation: Uuid) -> Provisioned {
        let (failure, wasm) = {
            let wishes = self.provisioning.wishes();
            let Some(wish) = wishes.get(&generation) else { return Provisioned::default() };
            let wasm = (wish.version.runtime == Runtime::Wasm).then_some(wish.count);
            (wish.failure.as_ref().map(|failure| failure.reason.clone()), wasm)
        };
        let available = wasm.unwrap_or_else(|| self.pool().provisioned(generation).1);
        Provisioned { available, failure }
    }

    /// The next version that lacks a container; the others are told what is too much.
    fn lacking(&self) -> Option<Arc<FunctionVersion>> {
        let now = Instant::now();
        let wishes = self.provisioning.wishes();
        let mut pool = self.pool();
        pool.release(|generation| wishes.get(&generation).map_or(0, |wish| wish.count));
        let lacks = |wish: &&Wish| {
            wish.version.runtime != Runtime::Wasm
                && wish.failure.as_ref().is_none_or(|failure| failure.again_at <= now)
                && pool.provisioned(wish.version.generation).0 < wish.count
        };
        wishes.values().filter(lacks).min_by_key(|wish| wish.version.generation).map(|wish| Arc::clone(&wish.version))
    }
}

/// Keeps what is wanted until the fleet closes.
pub(crate) async fn keep(fleet: Arc<Inner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = fleet.closing.cancelled() => return,
            () = fleet.provisioning.nudge.notified() => {}
            _ = ticks.tick() => {}
        }
        // Each round begins a container, or marks its version as one to try later.
        while let Some(version) = fleet.lacking() {
            let generation = version.generation;
            let Some(begun) = fleet.closing.run_until_cancelled(fleet.start_ahead(version)).await else { return };
            if let Err(error) = begun {
                fleet.provisioning.failed(generation, &error.to_string());
            }
        }
    }
}

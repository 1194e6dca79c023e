//! Containers that stand while their code waits for calls of its own, beside the node's bounds.
//!
//! Who waits for others must not be what keeps them from starting. So a frozen container leaves the bounds on containers and promised memory,
//! and takes its room again without asking when it is thawed: they may be exceeded by as many as have just come back. Its memory it keeps,
//! though it cannot get more while it is frozen. So this is bounded too: by number ([`Room::frozen`]), and what they use together, measured, by
//! what the node may promise. Whoever is frozen beyond that counts as before.

use lambent_model::ContainerId;

use super::{Entry, Pool, State};

/// How a frozen container is in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frozen {
    /// Not among those that the node's bounds are for. It uses so much memory.
    Apart { bytes: u64 },
    /// Like any other.
    Counted,
}

/// Those that are apart.
#[derive(Debug, Default)]
pub(super) struct Apart {
    containers: usize,
    bytes: u64,
}

impl Entry {
    pub(super) fn is_apart(&self) -> bool {
        matches!(self.frozen, Some(Frozen::Apart { .. }))
    }

    /// The word for people.
    pub(super) fn state_name(&self) -> &'static str {
        if self.frozen.is_some() { "frozen" } else { self.state.name() }
    }
}

impl Pool {
    /// A container was frozen, and uses so much memory. False where it was already, or has no call.
    pub(crate) fn freeze(&mut self, id: ContainerId, bytes: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        if entry.frozen.is_some() || !matches!(entry.state, State::Busy(_) | State::Finishing(_)) {
            return false;
        }
        metrics::counter!("lambent_freezes_total").increment(1);
        metrics::gauge!("lambent_frozen_containers").increment(1.0);
        let together = self.apart.bytes.saturating_add(bytes);
        if self.apart.containers >= self.room.frozen || together > self.room.memory_mib.saturating_mul(1 << 20) {
            entry.frozen = Some(Frozen::Counted);
            return true;
        }
        entry.frozen = Some(Frozen::Apart { bytes });
        self.memory_mib -= u64::from(entry.memory_mib);
        self.apart.containers += 1;
        self.apart.bytes = together;
        self.room_made.notify_one();
        true
    }

    /// It runs again, or has ended; nothing where it was not frozen.
    pub(crate) fn thaw(&mut self, id: ContainerId) {
        let Some((entry, frozen)) =
            self.entries.get_mut(&id).and_then(|entry| Some((entry.memory_mib, entry.frozen.take()?)))
        else {
            return;
        };
        metrics::gauge!("lambent_frozen_containers").decrement(1.0);
        if let Frozen::Apart { bytes } = frozen {
            self.memory_mib += u64::from(entry);
            self.apart.containers -= 1;
            self.apart.bytes -= bytes;
        }
    }

    /// Containers that the node's bounds are for.
    pub(crate) fn counted(&self) -> usize {
        self.entries.len() - self.apart.containers
    }
}

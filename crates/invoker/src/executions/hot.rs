//! Records in memory, so that a reused answer costs no read of the disk: the ones that were used last, within a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use lambent_store::records::RecordId;

use super::digest::Key;
use super::looks::Looked;
use super::record::Kept;

#[derive(Debug)]
pub(super) struct Hot {
    most_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<Key, Entry>,
    /// Turn of last use to key.
    order: BTreeMap<u64, Key>,
    turn: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    turn: u64,
    /// When all dependencies were last seen as they were.
    looked: Looked,
}

impl Hot {
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of `key`, if it counts at `now`, and when its dependencies were last looked at.
    pub fn get(&self, key: &Key, now: Timestamp) -> Option<(Arc<Kept>, Looked)> {
        let mut held = self.held();
        if held.entries.get(key)?.kept.expires <= now {
            held.remove(key);
            return None;
        }
        held.turn += 1;
        let turn = held.turn;
        let entry = held.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.turn, turn);
        let found = (entry.kept.clone(), entry.looked);
        held.order.remove(&before);
        held.order.insert(turn, *key);
        Some(found)
    }

    /// Holds `kept` in place of an older one. What alone is too large is not held.
    pub fn put(&self, key: Key, kept: Arc<Kept>, looked: Looked) {
        let bytes = kept.bytes();
        let mut held = self.held();
        if held.entries.get(&key).is_some_and(|entry| entry.kept.id > kept.id) {
            return;
        }
        held.remove(&key);
        if bytes > self.most_bytes {
            return;
        }
        while held.bytes + bytes > self.most_bytes {
            let Some((_, oldest)) = held.order.pop_first() else { break };
            held.remove(&oldest);
        }
        held.turn += 1;
        let turn = held.turn;
        held.order.insert(turn, key);
        held.bytes += bytes;
        held.entries.insert(key, Entry { kept, turn, looked });
    }

    /// The dependencies of record `id` were as it says when they were `looked` at.
    pub fn looked(&self, key: &Key, id: RecordId, looked: Looked) {
        if let Some(entry) = self.held().entries.get_mut(key).filter(|entry| entry.kept.id == id) {
            let before = entry.looked;
            entry.looked = Looked { at: before.at.max(looked.at), turn: before.turn.max(looked.turn) };
        }
    }

    pub fn forget(&self, ids: &[RecordId]) {
        let mut held = self.held();
        let gone: Vec<Key> =
            held.entries.iter().filter(|(_, entry)| ids.contains(&entry.kept.id)).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| held.remove(key));
    }
}

impl Held {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.turn);
            self.bytes = self.bytes.saturating_sub(entry.kept.bytes());
        }
    }
}

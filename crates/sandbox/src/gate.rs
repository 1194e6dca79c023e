//! Keeps what is asked of a cell and its being frozen apart.
//!
//! Whoever is to answer may be frozen itself. So a cell is not frozen in the midst of a question, and what is asked meanwhile waits until it
//! is thawed, or has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Of one cell; open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    lock: Arc<RwLock<()>>,
    closed: Mutex<Option<OwnedRwLockWriteGuard<()>>>,
}

impl Gate {
    /// Waits until the gate is open. It stays so while what this gives is held.
    pub(crate) async fn pass(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.lock).read_owned().await
    }

    /// Closes it; false where somebody is passing.
    pub(crate) fn close(&self) -> bool {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.is_none() {
            *closed = Arc::clone(&self.lock).try_write_owned().ok();
        }
        closed.is_some()
    }

    /// Opens it.
    pub(crate) fn open(&self) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_a_closed_gate_and_it_closes_on_nobody() {
        let gate = Gate::default();
        let passing = gate.pass().await;
        assert!(!gate.close());
        drop(passing);
        assert!(gate.close() && gate.close());
        let mut waiting = std::pin::pin!(gate.pass());
        assert!(tokio::time::timeout(std::time::Duration::from_secs(60), &mut waiting).await.is_err());
        gate.open();
        waiting.await;
    }
}

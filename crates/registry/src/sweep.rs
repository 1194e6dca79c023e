//! Forgetting code that nothing refers to any more.
//!
//! A sweep lists the blobs, then deletes those that no document names. It must not take one that is being uploaded: a
//! blob is *held* from before it is written until its commit is in the snapshot, and a sweep spares what was held at
//! any time since it began. While it looks and deletes, no upload writes ([`Registry::sweeping`]); so an upload either
//! comes first and is spared, or comes after and writes the blob anew. Where a document could not be read, nothing is
//! deleted at all.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lambent_model::Digest;

use crate::{Error, Registry};

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(3_600);
/// Most blobs that one sweep deletes.
const AT_ONCE: usize = 10_000;

/// Sweeps now and then, the first time soon.
pub(crate) fn start(registry: &Arc<Registry>) {
    // The task holds no strong reference while it waits, or the registry would never go.
    let weak = Arc::downgrade(registry);
    let stop = registry.stop.clone();
    registry.tasks.spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some(registry) = weak.upgrade() else { return };
            match registry.sweep().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "forgot code that nothing refers to"),
                Err(error) => tracing::warn!(%error, "code was not swept"),
            }
        }
    });
}

impl Registry {
    /// Deletes blobs that nothing refers to; returns how many.
    pub async fn sweep(&self) -> Result<usize, Error> {
        let _turn = self.sweeps.lock().await;
        if self.snapshot.incomplete.load(Ordering::Acquire) {
            tracing::warn!("code is not swept: a document that may refer to it cannot be read");
            return Ok(0);
        }
        self.uploads.begin_sweep();
        let kept = self.blobs.list().await?;
        let used = self.used_blobs();
        let mut deleted = 0;
        for digest in kept.into_iter().filter(|digest| !used.contains(digest)).take(AT_ONCE) {
            let _alone = self.sweeping.write().await;
            if !self.uploads.is_spared(digest) {
                self.blobs.delete(digest).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    fn used_blobs(&self) -> HashSet<Digest> {
        let mut used = HashSet::new();
        for function in self.snapshot.functions.all() {
            for config in function.configs() {
                used.insert(config.settings.code.digest);
                used.extend(config.settings.layers.iter().map(|used| used.layer.code.digest));
            }
            used.insert(function.running.code.digest);
            used.extend(function.running.layers.iter().map(|layer| layer.code.digest));
        }
        for layer in self.snapshot.layers.all() {
            used.extend(layer.value.versions.values().map(|version| version.code.digest));
        }
        used
    }
}

//! What a container's task does while its code is blocked: what the [`Pause`] asks for.
//!
//! Not before [`FleetConfig::freeze_after`](crate::FleetConfig), so that what is answered at once costs nothing. What the kernel must do once
//! for the first time is done before the processes are stopped. Memory is reclaimed a little later still, by a task of its own: what the kernel
//! drops has to be read again. Whoever has extensions is never frozen: they work during invocations, whatever the function does.

use std::convert::Infallible;
use std::sync::Arc;

use lambent_model::ContainerId;
use lambent_runtime_api::RuntimeApi;
use lambent_sandbox::Cell;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::live::Live;
use super::pause::{Event, Pause, State, Then, due};
use crate::fleet::Inner;

/// Of one call. When it is dropped nobody waits for the container any more.
pub(super) struct Rest {
    pause: Arc<Pause>,
    cell: Arc<dyn Cell>,
    api: Arc<RuntimeApi>,
    fleet: Arc<Inner>,
    id: ContainerId,
}

impl Rest {
    /// None where the host cannot freeze.
    pub(super) fn of(pause: Option<Arc<Pause>>, live: &Live, fleet: &Arc<Inner>, id: ContainerId) -> Option<Self> {
        let pause = pause.filter(|_| fleet.freezes)?;
        let (cell, api) = (Arc::clone(&live.cell), Arc::clone(&live.api));
        Some(Self { pause, cell, api, fleet: Arc::clone(fleet), id })
    }

    /// Does what the pause asks for, again and again. It may be dropped at any time, and taken up again.
    pub(super) async fn keep(&self) -> Infallible {
        let mut changes = self.pause.watch();
        loop {
            let state = *changes.borrow_and_update();
            match state {
                State::Running | State::Over => changed(&mut changes).await,
                State::Blocked { since } => self.wait(since, &mut changes).await,
                State::Freezing(Then::Stay) => self.freeze(&mut changes).await,
                // Whatever that has come to is undone.
                State::Freezing(Then::GoOn { .. }) => self.pause.tell(Event::Frozen),
                State::Frozen => self.stand(&mut changes).await,
                State::Thawing { since } => self.thaw(since).await,
            }
        }
    }

    /// Something was promised and came: whoever did that runs, whatever it said.
    pub(super) async fn settle(&self) {
        self.pause.go_on();
        tokio::select! {
            biased;
            () = self.pause.running() => {}
            never = self.keep() => match never {},
        }
    }

    async fn wait(&self, since: Instant, changes: &mut watch::Receiver<State>) {
        let prepare = async {
            sleep_until(due(since, self.fleet.config.freeze_after)).await;
            if !self.api.extensions().is_empty() {
                return std::future::pending().await;
            }
            // Where that fails, so does what it is for.
            let _ = self.cell.prepare_to_freeze().await;
        };
        tokio::select! {
            biased;
            () = changed(changes) => {}
            () = prepare => self.pause.tell(Event::Due),
        }
    }

    /// Who has something to do meanwhile does not wait for the last process to stand.
    async fn freeze(&self, changes: &mut watch::Receiver<State>) {
        let frozen = tokio::select! {
            biased;
            frozen = self.cell.freeze() => frozen,
            () = changed(changes) => return,
        };
        match frozen {
            Ok(()) => self.pause.tell(Event::Frozen),
            Err(error) => {
                tracing::debug!(container = %self.id, error = &error as &dyn std::error::Error, "a container was not frozen");
                self.pause.tell(Event::Failed);
            }
        }
    }

    /// It is frozen, until something changes.
    async fn stand(&self, changes: &mut watch::Receiver<State>) {
        let books = async {
            let bytes = self.cell.usage().await.map_or(0, |usage| usage.memory_bytes);
            if !self.fleet.pool().freeze(self.id, bytes) {
                return;
            }
            sleep(self.fleet.config.reclaim_after).await;
            let cell = Arc::clone(&self.cell);
            self.fleet.tasks.spawn(async move {
                match cell.reclaim().await {
                    Ok(bytes) => metrics::counter!("lambent_reclaimed_bytes_total").increment(bytes),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(cell = %cell.id(), error, "memory of a frozen cell was not reclaimed");
                    }
                }
            });
        };
        tokio::select! {
            biased;
            () = changed(changes) => {}
            () = async { books.await; std::future::pending().await } => {}
        }
    }

    async fn thaw(&self, since: Instant) {
        // The room first: whoever runs counts.
        self.fleet.pool().thaw(self.id);
        if let Err(error) = self.cell.thaw().await {
            tracing::error!(container = %self.id, error = &error as &dyn std::error::Error, "a frozen container is lost");
            // Its end is noticed like any other.
            self.cell.destroy().await;
        }
        metrics::histogram!("lambent_thaw_seconds").record(since.elapsed());
        self.pause.tell(Event::Thawed);
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.pause.tell(Event::Over);
    }
}

async fn changed(changes: &mut watch::Receiver<State>) {
    // The sender lives as long as the pause.
    let _ = changes.changed().await;
}

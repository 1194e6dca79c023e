//! Whose turn it is to start a container.
//!
//! A node starts a few at a time, because more would only make each of them later. Those who wait are served version by version in
//! turn, so that a burst of one function's calls puts off the first call of another by one start, not by all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

/// The turns of a node.
#[derive(Debug, Clone)]
pub(crate) struct Starts {
    shared: Arc<Shared>,
}

/// A turn; the next one's when dropped.
#[derive(Debug)]
pub(crate) struct StartTurn {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    at_once: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// Whose turn comes first. No version twice, none without anybody who waits (some may have left).
    versions: VecDeque<(Uuid, VecDeque<oneshot::Sender<StartTurn>>)>,
}

impl Starts {
    /// So many at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        let queue = Mutex::new(Queue { free: at_once, versions: VecDeque::new() });
        Self { shared: Arc::new(Shared { at_once, queue }) }
    }

    /// A turn, if one is free now; nobody waits then.
    pub(crate) fn try_acquire(&self) -> Option<StartTurn> {
        let mut queue = self.shared.queue();
        queue.free = queue.free.checked_sub(1)?;
        Some(StartTurn { shared: Arc::clone(&self.shared) })
    }

    /// The next turn of this version. Who no longer wants it drops the future.
    pub(crate) async fn acquire(&self, version: Uuid) -> StartTurn {
        loop {
            let turn = {
                let mut queue = self.shared.queue();
                if let Some(free) = queue.free.checked_sub(1) {
                    queue.free = free;
                    return StartTurn { shared: Arc::clone(&self.shared) };
                }
                queue.wait(version)
            };
            // The sender is dropped only with the fleet.
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    /// Turns that are free, and all there are.
    pub(crate) fn free(&self) -> (usize, usize) {
        (self.shared.queue().free, self.shared.at_once)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn wait(&mut self, version: Uuid) -> oneshot::Receiver<StartTurn> {
        let (sender, receiver) = oneshot::channel();
        match self.versions.iter_mut().find(|(waiting, _)| *waiting == version) {
            Some((_, waiters)) => waiters.push_back(sender),
            None => self.versions.push_back((version, VecDeque::from([sender]))),
        }
        receiver
    }

    /// The first of the version whose turn it is, which goes to the end.
    fn next(&mut self) -> Option<oneshot::Sender<StartTurn>> {
        while let Some((version, mut waiters)) = self.versions.pop_front() {
            let next = std::iter::from_fn(|| waiters.pop_front()).find(|waiter| !waiter.is_closed());
            if !waiters.is_empty() {
                self.versions.push_back((version, waiters));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for StartTurn {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.shared.queue();
            let next = queue.next();
            if next.is_none() {
                queue.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // Who has left in between drops the turn, which is then the next one's.
            drop(next.send(StartTurn { shared: Arc::clone(&self.shared) }));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    /// Polls once, so that it waits in the queue.
    macro_rules! waiting {
        ($starts:expr, $version:expr) => {{
            let starts = $starts.clone();
            let mut future = Box::pin(async move { starts.acquire($version).await });
            assert!(futures_util::poll!(&mut future).is_pending());
            future
        }};
    }

    #[tokio::test]
    async fn versions_take_turns() {
        let starts = Starts::new(1);
        let first = starts.try_acquire().unwrap();
        assert!(starts.try_acquire().is_none());
        let (mut a1, mut a2, mut b) = (waiting!(starts, A), waiting!(starts, A), waiting!(starts, B));
        drop(first);
        let first = a1.as_mut().await;
        assert!(futures_util::poll!(&mut a2).is_pending());
        drop(first);
        let second = b.as_mut().await;
        assert!(futures_util::poll!(&mut a2).is_pending());
        drop(second);
        drop(a2.as_mut().await);
        assert_eq!(starts.free(), (1, 1));
    }

    #[tokio::test]
    async fn turns_of_those_who_left_are_not_lost() {
        let starts = Starts::new(2);
        let held = (starts.try_acquire().unwrap(), starts.try_acquire().unwrap());
        let (gone, also_gone, mut there) = (waiting!(starts, A), waiting!(starts, B), waiting!(starts, B));
        drop((gone, also_gone));
        drop(held.0);
        let turn = there.as_mut().await;
        // Given, but not looked at before its waiter left.
        let late = waiting!(starts, A);
        drop(held.1);
        drop(late);
        drop(turn);
        assert_eq!(starts.free(), (2, 2));
    }
}

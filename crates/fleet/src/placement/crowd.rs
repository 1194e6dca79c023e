//! Calls that crowd: when more containers at work would only make each of them slower.
//!
//! Quick calls of many clients at once can keep as many containers at work as there are clients, of which the processors run but a
//! few at a time; the others cost changes of address space, cold caches and memory. So where
//!
//! - the processors are all [busy](crate::processors),
//! - enough containers of a lane are at work ([`enough`]), and
//! - as many of its calls have ended within the last [`SOON`], so they are quick, and
//! - fewer of its calls wait than end within [`PATIENCE`] at that pace,
//!
//! a call waits for one of those at work ([`Placement::Crowd`](super::Placement::Crowd)) although others are idle, or could be made; at
//! most for [`PATIENCE`]. It is measured, not supposed, that its turn comes soon: of functions whose calls take longer no call waits for
//! this reason. A container that becomes free while more than that are at work stays idle, so their number comes back to it.

use std::time::{Duration, Instant};

use lambent_model::{ContainerId, limits};

use super::{Lane, Pool, SOON};

/// Containers of one lane at work for each processor, at which others do not help: while some wait for their runtime, others compute.
const AT_WORK: usize = 4;
/// How many times those at work could use up the processors, each having no more than its share of them, as a fraction: where some are at the
/// end of their share, there are others.
const OVER: (usize, usize) = (3, 2);

/// How long a call in a crowd waits: the processors are busy, so it would not end sooner elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// Containers at work with which `processors` are used to the full: [`AT_WORK`] for each, but as many as may use them up [`OVER`] times by
/// the share that their memory gives them.
pub(super) fn enough(processors: usize, memory_mib: u32) -> usize {
    let by_share = processors * OVER.0 * limits::MEMORY_MIB_PER_VCPU as usize / (OVER.1 * memory_mib.max(1) as usize);
    by_share.max(processors * AT_WORK)
}

/// How many calls of a lane end.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when `now` counts.
    since: Option<Instant>,
    now: usize,
    /// In the window before it.
    before: usize,
}

impl Pace {
    /// A call has ended.
    pub(super) fn ended(&mut self, at: Instant) {
        self.turn(at);
        self.now += 1;
    }

    /// How many ended within the last [`SOON`], about.
    pub(super) fn lately(&mut self, at: Instant) -> usize {
        self.turn(at);
        self.now.max(self.before)
    }

    fn turn(&mut self, at: Instant) {
        let age = self.since.map(|since| at.saturating_duration_since(since));
        match age {
            Some(age) if age < SOON => return,
            Some(age) if age < 2 * SOON => self.before = self.now,
            Some(_) | None => self.before = 0,
        }
        (self.since, self.now) = (Some(at), 0);
    }
}

impl Pool {
    /// Whether a call of this lane is better off with one of the containers at work.
    pub(super) fn is_crowded(&mut self, lane: &Lane) -> bool {
        let Some(books) = self.lanes.get_mut(lane) else { return false };
        if books.at_work < books.enough {
            return false;
        }
        books.waiting.retain(|(_, waiter)| !waiter.is_closed());
        let lately = books.pace.lately(Instant::now());
        let in_time = lately * (PATIENCE.as_millis() / SOON.as_millis()) as usize;
        lately >= books.enough && books.waiting.len() < in_time && self.processors.are_busy()
    }

    /// Whether a container that has become idle stays so, although calls of its lane wait: enough others are at work.
    pub(super) fn is_superfluous(&mut self, id: ContainerId) -> bool {
        let Some(lane) = self.entries.get(&id).map(|entry| entry.lane.clone()) else { return false };
        let homes = self.lanes.get_mut(&lane).map(|books| &mut books.homes);
        // A call that waits for this one gets it.
        let is_wanted = homes.and_then(|homes| homes.waiting(id)).is_some_and(|waiting| !waiting.is_empty());
        !is_wanted && self.is_crowded(&lane)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::super::tests::version;
    use super::super::{Bounds, Patience, Placement, Purpose, Room};
    use super::*;
    use crate::container::Command;
    use crate::container::state::Event;
    use crate::processors::Processors;

    #[test]
    fn a_pace_is_that_of_the_last_whole_window_or_of_this_one() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        assert_eq!(pace.lately(begun), 0);
        (0..10).for_each(|_| pace.ended(begun));
        assert_eq!(pace.lately(begun + SOON / 2), 10);
        assert_eq!(pace.lately(begun + SOON), 10);
        (0..3).for_each(|_| pace.ended(begun + SOON));
        assert_eq!(pace.lately(begun + SOON), 10, "the window before");
        assert_eq!(pace.lately(begun + 2 * SOON), 3);
        assert_eq!(pace.lately(begun + 9 * SOON), 0, "nothing for a while");
    }

    /// Containers of one lane on a machine with one processor, all at work; so many calls of it have just ended.
    fn at_work(count: usize, ended: usize, busy: bool) -> (Pool, Lane, Vec<(ContainerId, mpsc::Receiver<Command>)>) {
        let long = std::time::Duration::from_secs(600);
        let affinity = Bounds { idle: long, keep: long, wait: long };
        let room = Room { containers: 100, memory_mib: 1_000_000, scaling: 1_000, frozen: 0, affinity };
        let mut pool = Pool::new(room, Arc::default(), Processors::told(1, busy));
        let (function, lane) = (version(0, 1_769), Lane::of(&version(0, 1_769), None));
        let mut all = Vec::new();
        for _ in 0..count {
            let (id, commands) = pool.begin(&function, &lane, Purpose::Call).unwrap();
            pool.tell(id, Event::Started);
            all.push((id, commands));
        }
        for _ in 0..ended {
            let (id, _) = all.last().unwrap();
            pool.finished(*id);
            assert!(matches!(pool.place(&lane, Patience::None), Placement::Warm(handle) if handle.id == *id));
        }
        (pool, lane, all)
    }

    #[test]
    fn the_smaller_their_share_the_more_are_enough() {
        assert_eq!([10_240, 1_769, 884, 320, 128].map(|memory_mib| enough(2, memory_mib)), [8, 8, 8, 16, 41]);
    }

    #[test]
    fn a_call_in_a_crowd_waits_for_a_container_at_work() {
        let (mut pool, lane, all) = at_work(AT_WORK + 1, AT_WORK, true);
        pool.finished(all[0].0);
        let Placement::Crowd(mut soon) = pool.place(&lane, Patience::Some) else { panic!("one is idle, and stays so") };
        pool.finished(all[1].0);
        assert_eq!(soon.try_recv().unwrap().id, all[1].0);
        assert!(matches!(pool.place(&lane, Patience::None), Placement::Warm(handle) if handle.id == all[0].0));
    }

    #[test]
    fn who_would_wait_long_does_not_wait() {
        let (mut pool, lane, all) = at_work(AT_WORK + 1, AT_WORK, true);
        pool.finished(all[0].0);
        let waiting: Vec<_> = (0..5 * (AT_WORK + 1)).map(|_| pool.place(&lane, Patience::Some)).collect();
        assert!(waiting.iter().all(|placement| matches!(placement, Placement::Crowd(_))));
        assert!(matches!(pool.place(&lane, Patience::Some), Placement::Warm(_)), "more wait than end");
    }

    #[test]
    fn nobody_waits_where_there_is_time_to_spare_or_few_are_at_work_or_calls_are_long() {
        for (count, ended, busy) in [(AT_WORK + 1, AT_WORK, false), (AT_WORK, AT_WORK, true), (AT_WORK + 1, 1, true)] {
            let (mut pool, lane, all) = at_work(count, ended, busy);
            pool.finished(all[0].0);
            assert!(matches!(pool.place(&lane, Patience::Some), Placement::Warm(handle) if handle.id == all[0].0));
        }
    }

    #[test]
    fn too_many_at_work_become_fewer_though_calls_wait() {
        let (mut pool, lane, all) = at_work(AT_WORK + 2, AT_WORK, true);
        let Placement::Crowd(mut soon) = pool.place(&lane, Patience::Some) else { panic!() };
        for (id, _) in &all[..2] {
            pool.finished(*id);
            assert!(soon.try_recv().is_err(), "enough others are at work");
        }
        pool.finished(all[2].0);
        assert_eq!(soon.try_recv().unwrap().id, all[2].0);
    }
}

//! The event queue: what each operation promises, at every crash, and over random histories.
//!
//! Time is handed in, so nothing here waits. An event's payload is its key: a number that no other event of the test has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_store::queue::{Batch, Bounds, EventId, Lease, Leased, NewEvent, Place, Query, Settlement, Status, Wish};
use lambent_store::{Error, EventQueue};

use crate::Backend;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

pub fn event(lane: &str, key: u64) -> NewEvent {
    NewEvent {
        account: "000000000000".to_owned(),
        lane: lane.to_owned(),
        place: Place::Pending,
        due: at(0),
        latest_start: at(0),
        meta: Bytes::new(),
        payload: key.to_string().into(),
    }
}

fn buried(queue: &str, key: u64) -> NewEvent {
    NewEvent { place: Place::Buried { queue: queue.to_owned(), reason: "why".to_owned() }, ..event("x", key) }
}

pub fn wish(seconds: i64) -> Wish {
    Wish { now: at(seconds), until: at(seconds + 60), places: 1_000, most: 100, without: Vec::new(), latest_by: None }
}

pub fn key(payload: &Bytes) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

fn keys(batch: &Batch) -> Vec<u64> {
    batch.events.iter().map(|event| key(&event.payload)).collect()
}

async fn all(queue: &dyn EventQueue, name: Option<&str>) -> Vec<u64> {
    let query = Query { queue: name.map(str::to_owned), limit: 100_000, ..Query::default() };
    let mut keys = Vec::new();
    for kept in queue.list(query).await.unwrap() {
        let (again, payload) = queue.get(kept.id).await.unwrap().expect("listed");
        assert_eq!(again, kept);
        keys.push(key(&payload));
    }
    keys
}

async fn done(queue: &dyn EventQueue, lease: Lease) -> bool {
    queue.settle(lease, Settlement::Done { then: Vec::new() }, at(0)).await.unwrap()
}

async fn events_go_through_their_states<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let queue = &*ports.events;
    let ids = queue.enqueue(vec![event("x", 1), event("y", 2)], at(0)).await.unwrap();
    assert!(ids[0] < ids[1]);
    let leased = queue.lease(wish(0)).await.unwrap();
    assert_eq!((keys(&leased), leased.next), (vec![1, 2], Some(at(60))));
    let [first, second] = leased.events.as_slice() else { panic!() };
    assert_eq!((first.lane.as_str(), first.enqueued, first.lease.id, first.lease.turn), ("x", at(0), ids[0], 1));
    assert_eq!(queue.lease(wish(1)).await.unwrap().events, []);

    let put_off = Settlement::Retry { due: at(10), meta: "later".into() };
    assert!(queue.settle(first.lease, put_off.clone(), at(1)).await.unwrap());
    assert!(!queue.settle(first.lease, put_off, at(1)).await.unwrap(), "settled already");
    let bury = Settlement::Bury { queue: "dead".to_owned(), reason: "no luck".to_owned(), meta: "sad".into() };
    assert!(queue.settle(second.lease, bury, at(1)).await.unwrap());
    assert_eq!(keys(&queue.lease(wish(9)).await.unwrap()), [0; 0]);
    let again = queue.lease(wish(10)).await.unwrap();
    assert_eq!((keys(&again), again.events[0].lease.turn, again.events[0].meta.as_ref()), (vec![1], 2, &b"later"[..]));

    let (kept, _) = queue.get(ids[1]).await.unwrap().unwrap();
    let status = Status::Buried { queue: "dead".to_owned(), reason: "no luck".to_owned() };
    assert_eq!((kept.status, kept.meta.as_ref(), kept.leases), (status, &b"sad"[..], 1));
    assert_eq!(queue.get(ids[0]).await.unwrap().unwrap().0.status, Status::Leased);
    assert_eq!(queue.queues("000000000000").await.unwrap(), [("dead".to_owned(), 1)]);
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.pending, depth.leased, depth.buried, depth.interrupted), (0, 1, 1, 0));

    assert!(done(queue, again.events[0].lease).await);
    assert!(!done(queue, again.events[0].lease).await);
    assert!(queue.revise(ids[1], at(20), at(20), "again".into()).await.unwrap());
    assert_eq!(keys(&queue.lease(wish(20)).await.unwrap()), [2]);
    assert!(!queue.revise(ids[1], at(0), at(0), Bytes::new()).await.unwrap(), "leased");
    assert_eq!(queue.forget(vec![ids[1], ids[0]]).await.unwrap(), 1);
    assert!(queue.get(ids[1]).await.unwrap().is_none());
    assert_eq!(queue.depth().await.unwrap().bytes, 0);
}

async fn what_follows_comes_in_the_same_commit<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let queue = &*ports.events;
    queue.enqueue(vec![event("x", 1)], at(0)).await.unwrap();
    let lease = queue.lease(wish(0)).await.unwrap().events[0].lease;
    let then = vec![event("y", 2), buried("results", 3)];
    assert!(queue.settle(lease, Settlement::Done { then: then.clone() }, at(1)).await.unwrap());
    assert!(!queue.settle(lease, Settlement::Done { then }, at(1)).await.unwrap());
    assert_eq!((all(queue, None).await, all(queue, Some("results")).await), (vec![2], vec![3]));
}

async fn a_lapsed_lease_is_somebody_elses<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let queue = &*ports.events;
    queue.enqueue(vec![event("x", 1)], at(0)).await.unwrap();
    let first = queue.lease(wish(0)).await.unwrap().events[0].lease;
    assert_eq!(queue.renew(vec![first, Lease { turn: 9, ..first }], at(90)).await.unwrap(), [true, false]);
    assert_eq!(keys(&queue.lease(wish(89)).await.unwrap()), [0; 0]);
    let second = queue.lease(wish(90)).await.unwrap().events[0].lease;
    assert_eq!(second.turn, 2);
    assert_eq!(queue.renew(vec![first], at(900)).await.unwrap(), [false]);
    assert!(!done(queue, first).await);
    assert_eq!(all(queue, None).await, [1]);
    assert!(done(queue, second).await);
}

async fn events_are_leased_by_latest_start_and_lane<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let queue = &*ports.events;
    let start = |key, latest| NewEvent { latest_start: at(latest), ..event(&format!("lane{key}"), key) };
    queue.enqueue(vec![start(1, 30), start(2, 10), start(3, 20)], at(0)).await.unwrap();
    let one = Wish { most: 1, without: vec!["lane2".to_owned()], ..wish(0) };
    assert_eq!(keys(&queue.lease(one).await.unwrap()), [3]);
    let held = queue.lease(Wish { latest_by: Some(at(10)), ..wish(0) }).await.unwrap();
    assert_eq!((keys(&held), held.held_until), (vec![2], Some(at(30))), "what can start later may be left");
    assert_eq!(keys(&queue.lease(wish(0)).await.unwrap()), [1]);
    queue.enqueue((10..30).map(|key| event("flood", key)).collect(), at(0)).await.unwrap();
    assert_eq!(queue.lease(Wish { places: 13, ..wish(0) }).await.unwrap().events.len(), 5, "half of what is free");
    queue.enqueue(vec![NewEvent { latest_start: at(99), ..event("late", 99) }], at(0)).await.unwrap();
    assert_eq!(keys(&queue.lease(Wish { places: 13, ..wish(0) }).await.unwrap()), [99]);
}

async fn beyond_the_bounds_nothing_is_kept<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open_bounded(dir.path(), Bounds { events: 8, bytes: 1_000_000 }, Default::default());
    let queue = &*ports.events;
    queue.enqueue((0..4).map(|key| event("x", key)).collect(), at(0)).await.unwrap();
    let refused = queue.enqueue(vec![event("y", 4), event("x", 5)], at(0)).await;
    assert!(matches!(&refused, Err(Error::QueueFull { lane }) if lane == "x"), "{refused:?}");
    assert_eq!(all(queue, None).await, [0, 1, 2, 3], "whole or not at all");
    queue.enqueue(vec![event("y", 6), event("y", 7)], at(0)).await.unwrap();
    let huge = NewEvent { payload: vec![b'1'; 600_000].into(), ..event("z", 0) };
    assert!(matches!(queue.enqueue(vec![huge.clone(), huge], at(0)).await, Err(Error::QueueFull { .. })));
    let lease = queue.lease(wish(0)).await.unwrap().events[0].lease;
    let then = vec![event("x", 8), event("x", 9), event("x", 10)];
    assert!(queue.settle(lease, Settlement::Done { then }, at(0)).await.unwrap(), "what follows is never refused");
}

async fn a_megabyte_comes_back_as_it_was<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let payload = Bytes::from((0..1 << 20).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    let id = {
        let ports = B::open(dir.path());
        ports.events.enqueue(vec![NewEvent { payload: payload.clone(), ..event("x", 0) }], at(0)).await.unwrap()[0]
    };
    let ports = B::open(dir.path());
    assert_eq!(ports.events.lease(wish(0)).await.unwrap().events[0].payload, payload);
    let (kept, found) = ports.events.get(id).await.unwrap().unwrap();
    assert_eq!((kept.payload_bytes, found), (1 << 20, payload));
}

async fn whoever_waits_is_told<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let mut changes = ports.events.changes();
    changes.mark_unchanged();
    ports.events.enqueue(vec![event("x", 1)], at(0)).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let lease = ports.events.lease(wish(0)).await.unwrap().events[0].lease;
    assert!(!changes.has_changed().unwrap());
    ports.events.settle(lease, Settlement::Retry { due: at(9), meta: Bytes::new() }, at(0)).await.unwrap();
    assert!(changes.has_changed().unwrap());
}

async fn pages_show_every_event_once<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    ports.events.enqueue((0..20).map(|key| event(["x", "y"][key as usize % 2], key)).collect(), at(0)).await.unwrap();
    let (mut seen, mut after) = (0, None);
    loop {
        let query = Query { lane: Some("x".to_owned()), after, limit: 3, ..Query::default() };
        let page = ports.events.list(query).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
    }
    assert_eq!(seen, 10);
    let other = Query { account: Some("111111111111".to_owned()), limit: 9, ..Query::default() };
    assert_eq!(ports.events.list(other).await.unwrap(), []);
}

/// A scripted life of three events. Step `n` of it, and what must be there after it: pending and buried keys.
async fn step(queue: &dyn EventQueue, n: usize, held: &mut BTreeMap<u64, Leased>) -> (Vec<u64>, Vec<u64>) {
    let take = |held: &BTreeMap<u64, Leased>, key| held[&key].lease;
    match n {
        0 => drop(queue.enqueue(vec![event("x", 1), event("y", 2)], at(0)).await.unwrap()),
        1 => {
            for event in queue.lease(wish(0)).await.unwrap().events {
                held.insert(key(&event.payload), event);
            }
        }
        2 => assert!(queue.renew(vec![take(held, 1)], at(90)).await.unwrap()[0]),
        3 => {
            let retry = Settlement::Retry { due: at(5), meta: "retried".into() };
            assert!(queue.settle(take(held, 1), retry, at(1)).await.unwrap());
        }
        4 => {
            let bury = Settlement::Bury { queue: "dead".to_owned(), reason: "why".to_owned(), meta: Bytes::new() };
            assert!(queue.settle(take(held, 2), bury, at(1)).await.unwrap());
        }
        5 => {
            let leased = queue.lease(wish(5)).await.unwrap().events.remove(0);
            held.insert(1, leased);
        }
        6 => {
            let then = vec![event("z", 3), buried("dead", 4)];
            assert!(queue.settle(take(held, 1), Settlement::Done { then }, at(6)).await.unwrap());
        }
        7 => {
            let (id, _) = find(queue, "dead", 2).await;
            assert!(queue.revise(id, at(0), at(0), Bytes::new()).await.unwrap());
        }
        _ => {
            let (id, _) = find(queue, "dead", 4).await;
            assert_eq!(queue.forget(vec![id]).await.unwrap(), 1);
        }
    }
    match n {
        0..=3 => (vec![1, 2], vec![]),
        4 | 5 => (vec![1], vec![2]),
        6 => (vec![3], vec![2, 4]),
        7 => (vec![2, 3], vec![4]),
        _ => (vec![2, 3], vec![]),
    }
}

async fn find(queue: &dyn EventQueue, name: &str, wanted: u64) -> (EventId, u32) {
    for kept in queue.list(Query { queue: Some(name.to_owned()), limit: 100, ..Query::default() }).await.unwrap() {
        let (kept, payload) = queue.get(kept.id).await.unwrap().unwrap();
        if key(&payload) == wanted {
            return (kept.id, kept.leases);
        }
    }
    panic!("{wanted} is not in {name}");
}

/// A crash after each step of a life: what was acknowledged is there, once, and what was leased can be leased again.
async fn every_step_survives_a_crash<B: Backend>() {
    for crash_after in 0..9 {
        let dir = tempfile::tempdir().unwrap();
        let ports = B::open(dir.path());
        let mut held = BTreeMap::new();
        let mut expected = (Vec::new(), Vec::new());
        for n in 0..=crash_after {
            expected = step(&*ports.events, n, &mut held).await;
        }
        let crashed = B::crash(dir.path());
        drop(ports);
        let ports = B::open(crashed.path());
        let queue = &*ports.events;
        assert_eq!((all(queue, None).await, all(queue, Some("dead")).await), expected, "step {crash_after}");
        let interrupted = match crash_after {
            1 | 2 => 2,
            3 | 5 => 1,
            _ => 0,
        };
        assert_eq!(queue.depth().await.unwrap().interrupted, interrupted, "step {crash_after}");
        let mut leased = keys(&queue.lease(wish(9)).await.unwrap());
        leased.sort_unstable();
        assert_eq!(leased, expected.0, "step {crash_after}: all can run");
        for lease in held.values().filter(|lease| !leased.contains(&key(&lease.payload))) {
            assert!(!done(queue, lease.lease).await, "a right of before the crash");
        }
    }
}

/// Small, seeded, good enough for choosing among operations.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// What a history has seen. Every key is in exactly one of the queue, `done` and the buried.
#[derive(Default)]
struct History {
    fresh: u64,
    now: i64,
    acknowledged: BTreeSet<u64>,
    run: BTreeSet<u64>,
    done: BTreeSet<u64>,
    held: Vec<Leased>,
}

impl History {
    async fn operate(&mut self, queue: &dyn EventQueue, dice: &mut Dice) {
        match dice.roll(10) {
            0..=2 => {
                let count = 1 + dice.roll(3) as u64;
                let events = (self.fresh..self.fresh + count).map(|key| event(["x", "y", "z"][dice.roll(3)], key));
                let events: Vec<_> = events.collect();
                if queue.enqueue(events, at(self.now)).await.is_ok() {
                    self.acknowledged.extend(self.fresh..self.fresh + count);
                }
                self.fresh += count;
            }
            3..=5 => {
                let wish = Wish { places: 1 + dice.roll(9), most: 1 + dice.roll(4), ..wish(self.now) };
                let batch = queue.lease(wish).await.unwrap();
                self.run.extend(keys(&batch));
                self.held.extend(batch.events);
            }
            6..=8 if !self.held.is_empty() => {
                let event = self.held.remove(dice.roll(self.held.len()));
                let mut then = Vec::new();
                let settlement = match dice.roll(4) {
                    0 => Settlement::Retry { due: at(self.now + dice.roll(90) as i64), meta: Bytes::new() },
                    1 => Settlement::Bury { queue: "dead".to_owned(), reason: "why".to_owned(), meta: Bytes::new() },
                    2 => {
                        then = vec![event_or_buried(dice, self.fresh)];
                        self.fresh += 1;
                        Settlement::Done { then: then.clone() }
                    }
                    _ => Settlement::Done { then: Vec::new() },
                };
                let is_done = matches!(settlement, Settlement::Done { .. });
                if queue.settle(event.lease, settlement, at(self.now)).await.unwrap() && is_done {
                    assert!(self.done.insert(key(&event.payload)), "done twice");
                    self.acknowledged.extend(then.iter().map(|event| key(&event.payload)));
                }
            }
            _ => self.now += dice.roll(40) as i64,
        }
    }

    /// Every acknowledged event is done, or there, once; and what is done has run.
    async fn check(&self, queue: &dyn EventQueue, seed: u64) {
        let (pending, dead) = (all(queue, None).await, all(queue, Some("dead")).await);
        let mut places: Vec<u64> = pending.iter().chain(&dead).chain(&self.done).copied().collect();
        places.sort_unstable();
        assert_eq!(
            places,
            self.acknowledged.iter().copied().collect::<Vec<_>>(),
            "seed {seed}: lost, or in two places"
        );
        assert!(self.done.is_subset(&self.run), "seed {seed}: done without a run");
    }
}

async fn what_is_buried_expires_by_age_and_number<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let queue = &*ports.events;
    let ids = queue.enqueue((1..=3).map(|key| event("x", key)).collect(), at(0)).await.unwrap();
    for (event, when) in queue.lease(wish(0)).await.unwrap().events.iter().zip([1, 5, 9]) {
        let bury = Settlement::Bury { queue: "dead".to_owned(), reason: "why".to_owned(), meta: Bytes::new() };
        assert!(queue.settle(event.lease, bury, at(when)).await.unwrap());
    }
    queue.enqueue(vec![buried("other", 4), event("x", 5)], at(0)).await.unwrap();
    // A retried one is buried no more, whatever its age.
    assert!(queue.revise(ids[0], at(1), at(0), Bytes::new()).await.unwrap());
    assert_eq!(queue.expire(at(0), 100, 9).await.unwrap(), 0);
    assert_eq!(queue.expire(at(6), 100, 9).await.unwrap(), 2, "2, since 5 s; 4, since its beginning");
    assert_eq!(all(queue, Some("dead")).await, [3]);
    queue.enqueue((6..=9).map(|key| buried("dead", key)).collect(), at(20)).await.unwrap();
    assert_eq!(queue.expire(at(0), 2, 2).await.unwrap(), 2);
    assert_eq!(queue.expire(at(0), 2, 2).await.unwrap(), 1);
    assert_eq!(queue.expire(at(0), 2, 2).await.unwrap(), 0);
    assert_eq!(all(queue, Some("dead")).await, [8, 9]);
    assert_eq!(all(queue, None).await, [1, 5]);
    assert_eq!(queue.depth().await.unwrap().buried, 2);
}

fn event_or_buried(dice: &mut Dice, key: u64) -> NewEvent {
    if dice.roll(2) == 0 { event("x", key) } else { buried("dead", key) }
}

async fn no_history_loses_or_doubles_an_event<B: Backend>() {
    for seed in 1..=15 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut dir = tempfile::tempdir().unwrap();
        let mut ports = B::open_bounded(dir.path(), Bounds { events: 60, bytes: 1 << 20 }, Default::default());
        let mut history = History::default();
        for _ in 0..60 {
            if dice.roll(15) == 0 {
                let crashed = B::crash(dir.path());
                drop(ports);
                dir = crashed;
                ports = B::open_bounded(dir.path(), Bounds { events: 60, bytes: 1 << 20 }, Default::default());
                history.check(&*ports.events, seed).await;
            }
            history.operate(&*ports.events, &mut dice).await;
        }
        history.check(&*ports.events, seed).await;
        history.held.clear();
        // In the end all of them run.
        for _ in 0..100 {
            history.now += 100;
            for event in ports.events.lease(Wish { places: 9, ..wish(history.now) }).await.unwrap().events {
                history.run.insert(key(&event.payload));
                assert!(done(&*ports.events, event.lease).await);
                history.done.insert(key(&event.payload));
            }
        }
        history.check(&*ports.events, seed).await;
        assert_eq!(all(&*ports.events, None).await, [0; 0], "seed {seed}");
    }
}

crate::each_backend!(
    events_go_through_their_states,
    what_follows_comes_in_the_same_commit,
    a_lapsed_lease_is_somebody_elses,
    events_are_leased_by_latest_start_and_lane,
    beyond_the_bounds_nothing_is_kept,
    a_megabyte_comes_back_as_it_was,
    whoever_waits_is_told,
    pages_show_every_event_once,
    every_step_survives_a_crash,
    what_is_buried_expires_by_age_and_number,
    no_history_loses_or_doubles_an_event,
);

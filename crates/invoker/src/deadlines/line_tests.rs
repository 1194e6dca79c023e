//! The line's own rules, and the line against a model that looks at everything each time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CALM: Capacity = Capacity { free: 100, is_short: false };
const SHORT: Capacity = Capacity { free: 100, is_short: true };

fn join(line: &mut Line, id: u64, lane: &str, now: i64, latest: i64) {
    line.join(Joining { id, account: "a", lane, now, latest }).unwrap();
}

fn next(line: &mut Line, now: i64, capacity: Capacity) -> Option<u64> {
    line.next(now, capacity, |_| Room::Shared)
}

#[test]
fn who_must_start_first_is_first() {
    let mut line = Line::new(100);
    for (id, latest) in [(1, 30), (2, 10), (3, 20)] {
        join(&mut line, id, &format!("f{id}"), 0, latest);
    }
    assert_eq!([0; 4].map(|_| next(&mut line, 0, CALM)), [Some(2), Some(3), Some(1), None]);
}

#[test]
fn what_can_wait_does_so_while_capacity_is_short_and_not_longer() {
    let mut line = Line::new(100);
    join(&mut line, 1, "f", 0, 50);
    join(&mut line, 2, "g", 0, 0);
    assert_eq!(next(&mut line, 0, SHORT), Some(2));
    assert_eq!(next(&mut line, 0, SHORT), None);
    assert_eq!(line.wake_at(0), Some(50));
    assert_eq!(next(&mut line, 49, SHORT), None);
    assert_eq!(next(&mut line, 50, SHORT), Some(1), "its latest start has come");
    join(&mut line, 3, "f", 50, 99);
    assert_eq!(next(&mut line, 51, CALM), Some(3), "there is time for it");
    assert_eq!((line.waiting(), line.wake_at(51)), (0, None));
}

#[test]
fn whoever_waits_for_a_call_makes_it_urgent() {
    let mut line = Line::new(100);
    join(&mut line, 1, "f", 0, 500);
    join(&mut line, 2, "f", 0, 400);
    assert_eq!(next(&mut line, 10, SHORT), None);
    assert!(line.hasten(1, 10));
    assert!(!line.hasten(1, 10), "once");
    assert_eq!(next(&mut line, 10, SHORT), Some(1));
    assert!(!line.hasten(1, 5), "it runs");
    assert_eq!(next(&mut line, 10, SHORT), None);
}

/// Each call starts another of the same function and waits for it, deeper than there are places.
#[test]
fn a_chain_of_callers_never_keeps_what_it_waits_for_from_starting() {
    for places in 1..4 {
        let (mut line, mut running) = (Line::new(1_000), 0);
        for depth in 0..100 {
            join(&mut line, depth, "chain", 0, 1_000_000);
            line.hasten(depth, 0);
            let capacity = Capacity { free: places - running, is_short: true };
            assert_eq!(next(&mut line, 0, capacity), Some(depth), "{places} places");
            running += 1;
            assert!(running <= places);
            // It waits in its turn.
            line.left(depth);
            running -= 1;
        }
        for depth in (0..100).rev() {
            line.entered(depth);
            line.done(depth);
        }
        assert_eq!((line.waiting(), line.order.leased()), (0, 0));
    }
}

#[test]
fn a_flood_neither_stands_before_a_newcomer_nor_takes_the_whole_line() {
    let mut line = Line::new(100);
    for id in 0..50 {
        join(&mut line, id, "flood", 0, 0);
    }
    assert_eq!(line.join(Joining { id: 50, account: "a", lane: "flood", now: 0, latest: 0 }), Err(Full));
    let (mut free, mut started) = (16, 0);
    while next(&mut line, 0, Capacity { free, is_short: false }).is_some() {
        (free, started) = (free - 1, started + 1);
    }
    assert_eq!(started, 16, "nobody else wants them");
    join(&mut line, 51, "newcomer", 1, 1);
    assert_eq!(next(&mut line, 1, Capacity { free, is_short: false }), None);
    line.done(0);
    free += 1;
    assert_eq!(
        next(&mut line, 1, Capacity { free, is_short: false }),
        Some(51),
        "the next, before 34 that came earlier"
    );
}

#[test]
fn a_function_with_a_pool_of_its_own_has_all_of_that_and_none_of_the_others() {
    let mut line = Line::new(100);
    (0..10).for_each(|id| join(&mut line, id, "own", 0, 0));
    join(&mut line, 10, "other", 0, 1);
    let full = Capacity { free: 0, is_short: false };
    let mut left = 4;
    let mut room = |lane: &str| match lane {
        "own" if left == 0 => Room::None,
        "own" => {
            left -= 1;
            Room::Own
        }
        _ => Room::Shared,
    };
    let started: Vec<_> = std::iter::from_fn(|| line.next(0, full, &mut room)).collect();
    assert_eq!(started, [0, 1, 2, 3], "as many as its pool has, though no shared place is free");
    assert_eq!(line.order.leased(), 0);
    let one = Capacity { free: 1, is_short: false };
    assert_eq!(line.next(0, one, &mut room), Some(10));
}

#[test]
fn who_finds_no_place_waits_again_and_time_alone_wakes_it() {
    let mut line = Line::new(100);
    join(&mut line, 1, "f", 0, 0);
    assert_eq!(next(&mut line, 0, CALM), Some(1));
    line.put_off(1, 30, 0);
    assert_eq!((next(&mut line, 29, CALM), line.wake_at(29), line.waiting()), (None, Some(30), 1));
    assert_eq!(next(&mut line, 30, CALM), Some(1));
}

#[derive(Debug, Clone)]
enum Step {
    Join { lane: u8, slack: i64 },
    Next { free: usize, is_short: bool, own: bool },
    Hasten(usize),
    PutOff(usize, i64),
    Left(usize),
    Entered(usize),
    Done(usize),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, 0..40_i64).prop_map(|(lane, slack)| Step::Join { lane, slack }),
        5 => (0..6_usize, any::<bool>(), any::<bool>()).prop_map(|(free, is_short, own)| Step::Next { free, is_short, own }),
        1 => any::<usize>().prop_map(Step::Hasten),
        1 => (any::<usize>(), 0..20_i64).prop_map(|(which, after)| Step::PutOff(which, after)),
        2 => any::<usize>().prop_map(Step::Left),
        1 => any::<usize>().prop_map(Step::Entered),
        1 => any::<usize>().prop_map(Step::Done),
        2 => (0..20_i64).prop_map(Step::Pass),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Waits { due: i64 },
    Runs,
    Away,
}

#[derive(Debug, Clone)]
struct Model {
    lane: u8,
    latest: i64,
    at: Where,
}

/// Whether lane 3 has a pool of its own.
fn room_of(lane: u8, own: bool) -> Room {
    if lane == 3 && own { Room::Own } else { Room::Shared }
}

fn expected(model: &BTreeMap<u64, Model>, now: i64, free: usize, is_short: bool, own: bool) -> Option<u64> {
    let held = |lane: u8| model.values().filter(|call| call.at == Where::Runs && call.lane == lane).count();
    let of_account: usize = (0..4).map(held).sum();
    let has_room = |call: &Model| room_of(call.lane, own) == Room::Own || free > 0;
    // 0: within its share, 1: its account is not, 2: itself is not.
    let beyond = |call: &Model| match room_of(call.lane, own) {
        Room::Own => 0,
        _ if held(call.lane) >= free => 2,
        _ => u8::from(of_account >= 3 * free),
    };
    (model.iter())
        .filter(|(_, call)| matches!(call.at, Where::Waits { due } if due <= now))
        .filter(|(_, call)| has_room(call) && (!is_short || call.latest <= now))
        .min_by_key(|(id, call)| (beyond(call), call.latest, **id))
        .map(|(id, _)| *id)
}

proptest! {
    #[test]
    fn the_line_is_that_of_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut line, mut model, mut now, mut fresh) = (Line::new(1_000), BTreeMap::<u64, Model>::new(), 0, 0);
        let pick = |model: &BTreeMap<u64, Model>, which: usize| {
            (!model.is_empty()).then(|| *model.keys().nth(which % model.len()).unwrap())
        };
        for step in steps {
            match step {
                Step::Join { lane, slack } => {
                    join(&mut line, fresh, &lane.to_string(), now, now + slack);
                    model.insert(fresh, Model { lane, latest: now + slack, at: Where::Waits { due: now } });
                    fresh += 1;
                }
                Step::Next { free, is_short, own } => {
                    let expected = expected(&model, now, free, is_short, own);
                    let room = |lane: &str| room_of(lane.parse().unwrap(), own);
                    prop_assert_eq!(line.next(now, Capacity { free, is_short }, room), expected);
                    if let Some(call) = expected.and_then(|id| model.get_mut(&id)) {
                        call.at = if room_of(call.lane, own) == Room::Own { Where::Away } else { Where::Runs };
                    }
                }
                Step::Hasten(which) => if let Some(id) = pick(&model, which) {
                    let call = model.get_mut(&id).unwrap();
                    let may = matches!(call.at, Where::Waits { .. }) && call.latest > now;
                    prop_assert_eq!(line.hasten(id, now), may);
                    if may {
                        call.latest = now;
                    }
                },
                Step::PutOff(which, after) => if let Some(id) = pick(&model, which) {
                    line.put_off(id, now + after, now + 3);
                    *model.get_mut(&id).unwrap() = Model { latest: now + 3, at: Where::Waits { due: now + after }, ..model[&id] };
                },
                Step::Left(which) => if let Some(id) = pick(&model, which) {
                    line.left(id);
                    let call = model.get_mut(&id).unwrap();
                    if call.at == Where::Runs {
                        call.at = Where::Away;
                    }
                },
                Step::Entered(which) => if let Some(id) = pick(&model, which) {
                    line.entered(id);
                    let call = model.get_mut(&id).unwrap();
                    if call.at == Where::Away {
                        call.at = Where::Runs;
                    }
                },
                Step::Done(which) => if let Some(id) = pick(&model, which) {
                    line.done(id);
                    model.remove(&id);
                },
                Step::Pass(time) => now += time,
            }
            let waiting = model.values().filter(|call| matches!(call.at, Where::Waits { .. })).count();
            prop_assert_eq!(line.waiting(), waiting as u64);
            prop_assert_eq!(line.order.leased(), model.values().filter(|call| call.at == Where::Runs).count());
        }
        // Nothing is lost: with room for all, all that waits starts, each once.
        let waiting: Vec<u64> = model.iter().filter(|(_, call)| matches!(call.at, Where::Waits { .. })).map(|(id, _)| *id).collect();
        let mut started: Vec<u64> = std::iter::from_fn(|| line.next(now + 1_000, Capacity { free: 10_000, is_short: false }, |_| Room::Shared)).collect();
        started.sort_unstable();
        prop_assert_eq!(started, waiting);
    }
}

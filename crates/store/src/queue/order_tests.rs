//! The order's own rules, and the order against a model that looks at everything each time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn take(order: &mut Order, now: i64, places: usize, most: usize) -> Vec<u64> {
    order.take(wish(now, places, most), |_| Room::Shared).into_iter().map(|(id, _)| id).collect()
}

fn wish(now: i64, places: usize, most: usize) -> Take {
    Take { now, until: now + 10, places, most, latest_by: None, own_places: false, shares: Shares::Bound }
}

#[test]
fn who_must_start_first_is_first_and_nobody_before_it_is_due() {
    let mut order = Order::new(Bounds::default());
    for (id, due, latest) in [(1, 0, 9), (2, 0, 3), (3, 5, 1), (4, 0, 5)] {
        order.insert(id, ("a", &format!("lane{id}")), (0, due, latest), 1, 0);
    }
    assert_eq!(take(&mut order, 0, 100, 100), [2, 4, 1]);
    assert_eq!(order.next(), Some(5));
    assert_eq!(take(&mut order, 5, 100, 100), [3]);
}

#[test]
fn a_flood_leaves_places_to_others() {
    let mut order = Order::new(Bounds::default());
    (0..100).for_each(|id| order.insert(id, ("a", "flood"), (0, 0, 0), 1, 0));
    assert_eq!(take(&mut order, 0, 16, 100).len(), 8, "half");
    order.insert(100, ("a", "late"), (0, 0, 9), 1, 0);
    order.insert(101, ("b", "later"), (0, 0, 10), 1, 0);
    assert_eq!(take(&mut order, 0, 16, 100), [100, 101]);
    (200..300).for_each(|id| order.insert(id, ("a", &format!("{id}")), (0, 0, 0), 1, 0));
    let taken = take(&mut order, 0, 16, 100).len();
    assert!(taken < 6, "an account does not get all: {taken}");
    order.insert(300, ("b", "last"), (0, 0, 99), 1, 0);
    assert_eq!(take(&mut order, 0, 16, 100), [300]);
}

#[test]
fn leases_run_out_and_late_holders_lose_only_to_the_next() {
    let mut order = Order::new(Bounds::default());
    order.insert(1, ("a", "x"), (0, 0, 0), 1, 0);
    assert_eq!(order.take(wish(0, 9, 9), |_| Room::Shared), [(1, 1)]);
    assert!(order.renew(1, 1, 20));
    assert_eq!(take(&mut order, 19, 9, 9), [0; 0]);
    assert!(order.is_right(1, 1));
    assert_eq!(order.take(wish(20, 9, 9), |_| Room::Shared), [(1, 2)]);
    assert!(!order.is_right(1, 1) && order.is_right(1, 2) && !order.renew(1, 1, 99));
}

#[test]
fn nobody_fills_the_queue_alone() {
    let mut order = Order::new(Bounds { events: 10, bytes: 1_000 });
    let mut id = 0;
    while order.admits("a", "x", 1, 10) {
        order.insert(id, ("a", "x"), (0, 0, 0), 10, 0);
        id += 1;
    }
    assert_eq!(id, 5);
    assert!(order.admits("a", "y", 1, 10));
    assert!(!order.admits("a", "y", 1, 951));
    (0..4).for_each(|_| order.bury(10));
    assert!(order.admits("a", "y", 1, 10));
    order.bury(10);
    assert!(!order.admits("a", "y", 1, 10));
    order.unbury(10);
    assert!(order.admits("a", "y", 1, 10));
}

#[test]
fn lanes_that_are_gone_leave_nothing() {
    let mut order = Order::new(Bounds::default());
    for id in 0..1_000 {
        order.insert(id, ("a", &format!("lane{id}")), (0, 0, 0), 1, 0);
        assert_eq!(take(&mut order, 0, 9, 9), [id]);
        assert!(order.remove(id));
    }
    assert_eq!((order.lanes.len(), order.lane_numbers.len(), order.counts()), (1, 0, (0, 0, 0, 0)));
}

#[derive(Debug, Clone)]
enum Step {
    Insert { lane: u8, due: i64, latest: i64 },
    Take { places: usize, most: usize },
    Renew(usize),
    PutOff(usize, i64),
    Remove(usize),
    Untake(usize),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, 0..50_i64, 0..9_i64).prop_map(|(lane, due, latest)| Step::Insert { lane, due, latest }),
        3 => (0..12_usize, 0..6_usize).prop_map(|(places, most)| Step::Take { places, most }),
        1 => any::<usize>().prop_map(Step::Renew),
        1 => (any::<usize>(), 0..50_i64).prop_map(|(which, after)| Step::PutOff(which, after)),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => any::<usize>().prop_map(Step::Untake),
        2 => (0..20_i64).prop_map(Step::Pass),
    ]
}

#[derive(Debug, Clone)]
struct Model {
    lane: u8,
    due: i64,
    latest: i64,
    until: Option<i64>,
}

/// What [`Order::take`] promises, computed the slow way.
fn expected(model: &BTreeMap<u64, Model>, now: i64, places: usize, most: usize) -> Vec<u64> {
    let mut model = model.clone();
    let mut taken = Vec::new();
    while taken.len() < most {
        let is_leased = |event: &&Model| event.until.is_some_and(|until| until > now);
        let leased = model.values().filter(is_leased).count();
        let free = places.saturating_sub(leased);
        let of_lane = |lane: u8| model.values().filter(is_leased).filter(|event| event.lane == lane).count();
        let of_account = |lane: u8| model.values().filter(is_leased).filter(|event| event.lane / 2 == lane / 2).count();
        let next = (model.iter())
            .filter(|(_, event)| !is_leased(event) && event.due <= now)
            .filter(|(_, event)| of_lane(event.lane) < free && of_account(event.lane) < 3 * free)
            .min_by_key(|(id, event)| (event.latest, **id))
            .map(|(id, _)| *id);
        let Some(id) = next.filter(|_| free > 0) else { break };
        model.get_mut(&id).unwrap().until = Some(now + 10);
        taken.push(id);
    }
    taken
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut order, mut model, mut now, mut fresh) = (Order::new(Bounds::default()), BTreeMap::new(), 0, 0);
        let pick = |model: &BTreeMap<u64, Model>, which: usize| {
            (!model.is_empty()).then(|| *model.keys().nth(which % model.len()).unwrap())
        };
        for step in steps {
            match step {
                Step::Insert { lane, due, latest } => {
                    let due = now + due;
                    order.insert(fresh, (&format!("{}", lane / 2), &format!("{lane}")), (now, due, latest), 3, 0);
                    model.insert(fresh, Model { lane, due, latest, until: None });
                    fresh += 1;
                }
                Step::Take { places, most } => {
                    let expected = expected(&model, now, places, most);
                    prop_assert_eq!(take(&mut order, now, places, most), expected.clone());
                    model.values_mut().filter(|event| event.until.is_some_and(|until| until <= now)).for_each(|event| event.until = None);
                    for id in expected {
                        model.get_mut(&id).unwrap().until = Some(now + 10);
                    }
                }
                Step::Renew(which) => if let Some(id) = pick(&model, which) {
                    let turn = order.entries[&id].right;
                    if order.is_leased(id) && order.renew(id, turn, now + 30) {
                        model.get_mut(&id).unwrap().until = Some(now + 30);
                    }
                },
                Step::PutOff(which, after) => if let Some(id) = pick(&model, which) {
                    order.put_off(id, now + after, 4, 2);
                    let event = model.get_mut(&id).unwrap();
                    (event.due, event.latest, event.until) = (now + after, 4, None);
                },
                Step::Remove(which) => if let Some(id) = pick(&model, which) {
                    prop_assert!(order.remove(id));
                    model.remove(&id);
                },
                Step::Untake(which) => if let Some(id) = pick(&model, which).filter(|id| order.is_leased(*id)) {
                    order.untake(id);
                    model.get_mut(&id).unwrap().until = None;
                },
                Step::Pass(time) => now += time,
            }
            let bytes: u64 = order.entries.values().map(|entry| entry.bytes).sum();
            prop_assert_eq!(order.bytes, bytes);
            prop_assert_eq!(order.lanes.iter().map(|lane| lane.events).sum::<u64>(), model.len() as u64);
            prop_assert_eq!(order.lanes.iter().map(|lane| lane.leased).sum::<usize>(), order.leases.len());
        }
    }
}

//! Random lives of instances against a model that knows only what each may do next.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::warming::pressure::PressureProbe;

fn config() -> PoolConfig {
    let pressure = PressureProbe(|| Pressure::Calm);
    PoolConfig { floor: 1, ceiling: 4, memory_mib: 60, idle: Duration::from_secs(60), pressure }
}

const KINDS: [Kind; 3] = [Kind::Shell, Kind::Python { minor: 12 }, Kind::Node { major: 20, memory_mib: 128 }];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Building,
    Waiting,
    Given,
    Ending,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    phase: Phase,
    commands: oneshot::Receiver<Command>,
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(usize),
    Plan { secs: u64, pressed: bool },
    Built(usize),
    Broken(usize),
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => (0_usize..3).prop_map(Step::Arrive),
        8 => (0_u64..90, proptest::bool::weighted(0.1)).prop_map(|(secs, pressed)| Step::Plan { secs, pressed }),
        8 => (0_usize..16).prop_map(Step::Built),
        1 => (0_usize..16).prop_map(Step::Broken),
        6 => (0_usize..16).prop_map(Step::Forget),
    ];
    proptest::collection::vec(one, 1..150)
}

type Model = BTreeMap<InstanceId, Known>;

fn pick(model: &Model, index: usize, phases: &[Phase]) -> Option<InstanceId> {
    let fitting: Vec<_> = model.iter().filter(|(_, known)| phases.contains(&known.phase)).map(|(id, _)| *id).collect();
    (!fitting.is_empty()).then(|| fitting[index % fitting.len()])
}

/// What the books told instances since we last looked.
fn notice(model: &mut Model) {
    for known in model.values_mut() {
        match known.commands.try_recv() {
            Ok(Command::End) => {
                assert!(matches!(known.phase, Phase::Building | Phase::Waiting), "{:?} ended", known.phase);
                known.phase = Phase::Ending;
            }
            Ok(Command::Give(_)) => {
                assert_eq!(known.phase, Phase::Waiting);
                known.phase = Phase::Given;
            }
            Err(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn the_books_agree_with_the_model(steps in steps()) {
        let mut books = Books::new(config(), 7);
        let mut model = Model::new();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Arrive(kind) => {
                    let kind = &KINDS[kind];
                    books.arrived(kind, now);
                    let there = model.values().any(|known| known.kind == *kind && known.phase == Phase::Waiting);
                    let given = books.take(kind, now);
                    prop_assert_eq!(given.is_some(), there, "one that waits is given");
                    let before = model.values().filter(|known| known.phase == Phase::Given).count();
                    notice(&mut model);
                    let after = model.values().filter(|known| known.phase == Phase::Given).count();
                    prop_assert_eq!(after, before + usize::from(there), "exactly one");
                }
                Step::Plan { secs, pressed } => {
                    now += Duration::from_secs(secs);
                    let pressure = if pressed { Pressure::High } else { Pressure::Calm };
                    let waiting = model.values().filter(|known| known.phase == Phase::Waiting).count();
                    let missing = books.plan(now, pressure);
                    notice(&mut model);
                    let left = model.values().filter(|known| known.phase == Phase::Waiting).count();
                    prop_assert!(!pressed || (missing.is_empty() && (left < waiting || waiting == 0)));
                    for kind in missing {
                        let (id, commands) = books.begin(&kind, now);
                        model.insert(id, Known { kind, phase: Phase::Building, commands });
                    }
                    let building = model.values().filter(|known| known.phase == Phase::Building).count();
                    prop_assert!(building <= BUILDS);
                }
                Step::Built(index) => if let Some(id) = pick(&model, index, &[Phase::Building]) {
                    books.tell(id, Event::Built, now);
                    model.get_mut(&id).unwrap().phase = Phase::Waiting;
                }
                Step::Broken(index) => if let Some(id) = pick(&model, index, &[Phase::Building, Phase::Waiting, Phase::Given]) {
                    books.tell(id, Event::Broken, now);
                    let known = model.get_mut(&id).unwrap();
                    known.phase = Phase::Ending;
                    books.failed(&known.kind, now);
                }
                Step::Forget(index) => if let Some(id) = pick(&model, index, &[Phase::Ending, Phase::Given]) {
                    books.forget(id);
                    model.remove(&id);
                }
            }
            prop_assert_eq!(books.entries.len(), model.len());
            for (id, known) in &model {
                let name = format!("{:?}", known.phase).to_lowercase();
                prop_assert_eq!(books.entries[id].state.name(), name);
            }
            let targets = books.kinds.iter().map(|(kind, demand)| kind.cost_mib() * demand.target as u64);
            prop_assert!(targets.sum::<u64>() <= config().memory_mib, "the pool's memory is a bound");
            prop_assert!(books.kinds.values().all(|demand| demand.target <= config().ceiling));
        }
        books.close(now);
        notice(&mut model);
        prop_assert!(model.values().all(|known| matches!(known.phase, Phase::Ending | Phase::Given)));
        prop_assert!(books.plan(now, Pressure::Calm).is_empty());
    }
}

/// Builds whatever is missing until nothing is.
fn fill(books: &mut Books, now: Duration) -> Vec<(InstanceId, oneshot::Receiver<Command>)> {
    let mut all = Vec::new();
    loop {
        let missing = books.plan(now, Pressure::Calm);
        if missing.is_empty() {
            return all;
        }
        for kind in missing {
            let (id, commands) = books.begin(&kind, now);
            books.tell(id, Event::Built, now);
            all.push((id, commands));
        }
    }
}

#[test]
fn a_kind_in_use_keeps_the_floor_and_an_unknown_one_nothing() {
    let mut books = Books::new(config(), 7);
    assert_eq!(fill(&mut books, Duration::ZERO).len(), 0);
    books.used(&KINDS[1], Duration::ZERO);
    assert_eq!(fill(&mut books, Duration::ZERO).len(), 1);
    let later = USED_FOR + Duration::from_secs(1);
    books.plan(later, Pressure::Calm);
    assert!(books.entries.values().all(|entry| entry.state == State::Ending(Why::Idle)), "nobody uses it any more");
}

#[test]
fn a_burst_fills_the_pool_to_its_bounds_and_idleness_empties_it() {
    let mut books = Books::new(config(), 7);
    let mut now = Duration::from_secs(1);
    (0..30).for_each(|_| KINDS.iter().for_each(|kind| books.arrived(kind, now)));
    fill(&mut books, now);
    let counts: Vec<_> = books.status().iter().map(|status| (status.kind.clone(), status.waiting)).collect();
    // One Node.js process leaves 12 MiB: another Python, then what shells take.
    assert_eq!(counts, [("python3.12".to_owned(), 2), ("nodejs20.x/128".to_owned(), 1), ("provided".to_owned(), 2)]);
    now += Duration::from_secs(3_600);
    books.plan(now, Pressure::Calm);
    assert_eq!(books.status().iter().map(|status| status.waiting).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn failures_put_the_next_attempt_off_longer_and_longer() {
    let mut books = Books::new(config(), 7);
    let (kind, mut now) = (&KINDS[0], Duration::ZERO);
    books.used(kind, now);
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(books.plan(now, Pressure::Calm), std::slice::from_ref(kind));
        let (id, _commands) = books.begin(kind, now);
        books.tell(id, Event::Broken, now);
        let wait = books.failed(kind, now);
        books.forget(id);
        assert_eq!(books.plan(now, Pressure::Calm), []);
        now += wait;
        waits.push(wait);
    }
    assert!(waits[0] < RETRY.0 * 2 && waits[11] > RETRY.1 / 2 && waits[11] < RETRY.1 * 2, "{waits:?}");
    let (id, _commands) = books.begin(kind, now);
    books.tell(id, Event::Built, now);
    books.plan(now + PROVEN, Pressure::Calm);
    assert_eq!(books.kinds[kind].failures, 0, "one that lasts is a new beginning");
}

//! Random lives of containers against a model that knows only what each may do next.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};

use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::{AccountId, Digest, FunctionArn, Region, Version};
use proptest::prelude::*;

use super::*;
use crate::affinity::{Outcome, Value};

pub(crate) fn version(generation: u128, memory_mib: u32) -> FunctionVersion {
    FunctionVersion {
        arn: FunctionArn { region: Region::default(), account: AccountId::default(), name: "f".parse().unwrap() },
        version: Version::Latest,
        generation: Uuid::from_u128(generation),
        runtime: Runtime::Provided(Provided::Al2023),
        handler: None,
        code: CodeRef { digest: Digest::from([0; 32]), zipped_bytes: 0 },
        layers: Vec::new(),
        environment: BTreeMap::default(),
        timeout: Duration::from_secs(3),
        memory_mib,
        ephemeral_mib: 512,
        network: Network::None,
        logging: Logging {
            group: "g".to_owned(),
            format: LogFormat::Text,
            application_level: None,
            system_level: None,
        },
        tracing: TracingMode::PassThrough,
        snap_start: false,
        per_tenant: false,
    }
}

fn lane(version: &FunctionVersion) -> Lane {
    Lane::of(version, None)
}

/// On a machine with two processors that have time to spare.
fn pool(room: Room) -> Pool {
    Pool::new(room, Arc::default(), Processors::told(2, false))
}

fn begin_one(
    pool: &mut Pool,
    version: &FunctionVersion,
    purpose: Purpose,
) -> Option<(ContainerId, mpsc::Receiver<Command>)> {
    pool.begin(version, &lane(version), purpose)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Starting,
    Busy,
    Finishing,
    Idle,
    Ending,
}

/// What the model knows of one container.
#[derive(Debug)]
struct Known {
    generation: u128,
    memory: u64,
    phase: Phase,
    condemned: bool,
    /// Where it is frozen: what it uses, if it is beside the bounds.
    frozen: Option<Option<u64>>,
    idle_since: usize,
    commands: mpsc::Receiver<Command>,
}

impl Known {
    fn is_apart(&self) -> bool {
        matches!(self.frozen, Some(Some(_)))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Call(u128),
    Advance(usize),
    Break(usize),
    Freeze(usize, u64),
    Thaw(usize),
    Retire(u128),
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        5 => (0_u128..3).prop_map(Step::Call),
        8 => (0_usize..16).prop_map(Step::Advance),
        1 => (0_usize..16).prop_map(Step::Break),
        4 => (0_usize..16, 0_u64..600).prop_map(|(index, mib)| Step::Freeze(index, mib << 20)),
        2 => (0_usize..16).prop_map(Step::Thaw),
        1 => (0_u128..3).prop_map(Step::Retire),
        3 => (0_usize..16).prop_map(Step::Forget),
    ];
    proptest::collection::vec(one, 1..120)
}

const ROOM: Room = Room { containers: 5, memory_mib: 1_000, scaling: 1_000, frozen: 2, affinity: BOUNDS };
const BOUNDS: Bounds =
    Bounds { idle: Duration::from_secs(600), keep: Duration::from_secs(3_600), wait: Duration::from_secs(1) };
const SIZES: [u32; 3] = [128, 256, 400];

fn pick(model: &BTreeMap<ContainerId, Known>, index: usize, phases: &[Phase]) -> Option<ContainerId> {
    let fitting: Vec<_> = model.iter().filter(|(_, known)| phases.contains(&known.phase)).map(|(id, _)| *id).collect();
    (!fitting.is_empty()).then(|| fitting[index % fitting.len()])
}

/// Commands to end that the pool sent since we last looked.
fn notice_ends(model: &mut BTreeMap<ContainerId, Known>) {
    for known in model.values_mut() {
        while let Ok(command) = known.commands.try_recv() {
            assert!(matches!(command, Command::End(_)));
            assert!(matches!(known.phase, Phase::Idle | Phase::Finishing | Phase::Busy), "{:?} ended", known.phase);
            known.phase = Phase::Ending;
        }
    }
}

fn begin(pool: &mut Pool, model: &mut BTreeMap<ContainerId, Known>, generation: u128, size: u32) {
    let memory = u64::from(size);
    let Some((id, commands)) = begin_one(pool, &version(generation, size), Purpose::Call) else {
        let held =
            model.values().filter(|known| !matches!(known.phase, Phase::Idle | Phase::Ending) && !known.is_apart());
        let (count, held) = held.fold((0, 0), |(count, held), known| (count + 1, held + known.memory));
        assert!(count >= ROOM.containers || held + memory > ROOM.memory_mib, "refused with room to make");
        return;
    };
    notice_ends(model);
    let (phase, condemned, frozen) = (Phase::Starting, false, None);
    let known = Known { generation, memory, phase, condemned, frozen, idle_since: 0, commands };
    model.insert(id, known);
    let (count, memory) = counted(model);
    assert!(count <= ROOM.containers && memory <= ROOM.memory_mib, "a new one goes beyond no bound");
}

/// What the node's bounds are for.
fn counted(model: &BTreeMap<ContainerId, Known>) -> (usize, u64) {
    let counted = model.values().filter(|known| known.phase != Phase::Ending && !known.is_apart());
    counted.fold((0, 0), |(count, memory), known| (count + 1, memory + known.memory))
}

/// Freezes a container that has a call: beside the bounds as long as few are, and use little.
fn freeze(pool: &mut Pool, model: &mut BTreeMap<ContainerId, Known>, id: ContainerId, bytes: u64) {
    let apart = model.values().filter_map(|known| known.frozen.flatten());
    let (count, together) = apart.fold((0, bytes), |(count, together), bytes| (count + 1, together + bytes));
    let fits = count < ROOM.frozen && together <= ROOM.memory_mib << 20;
    let known = model.get_mut(&id).unwrap();
    assert_eq!(pool.freeze(id, bytes), known.frozen.is_none(), "only once");
    known.frozen.get_or_insert(fits.then_some(bytes));
}

fn call(pool: &mut Pool, model: &mut BTreeMap<ContainerId, Known>, generation: u128) {
    let size = SIZES[generation as usize];
    let newest = model
        .iter()
        .filter(|(_, known)| known.phase == Phase::Idle && known.generation == generation)
        .max_by_key(|(_, known)| known.idle_since)
        .map(|(id, _)| *id);
    match pool.place(&lane(&version(generation, size)), Patience::None) {
        Placement::Warm(handle) => {
            assert_eq!(Some(handle.id), newest, "the most recently used one is taken");
            model.get_mut(&handle.id).unwrap().phase = Phase::Busy;
        }
        Placement::Fresh => {
            assert_eq!(newest, None, "no new one while a warm one is idle");
            begin(pool, model, generation, size);
        }
        other @ (Placement::Soon(_) | Placement::Crowd(_) | Placement::Home(..) | Placement::Closed) => {
            panic!("{other:?}")
        }
    }
}

proptest! {
    #[test]
    fn the_books_agree_with_the_model(steps in steps()) {
        let mut pool = pool(ROOM);
        let mut model: BTreeMap<ContainerId, Known> = BTreeMap::new();
        let mut moment = 0;
        let mut came_back = 0;
        for step in steps {
            match step {
                Step::Call(generation) => call(&mut pool, &mut model, generation),
                Step::Freeze(index, bytes) => {
                    if let Some(id) = pick(&model, index, &[Phase::Busy, Phase::Finishing]) {
                        freeze(&mut pool, &mut model, id, bytes);
                    }
                    if let Some(id) = pick(&model, index, &[Phase::Starting, Phase::Idle, Phase::Ending]) {
                        prop_assert!(!pool.freeze(id, bytes), "it has no call");
                    }
                }
                Step::Thaw(index) => {
                    if let Some(id) = pick(&model, index, &[Phase::Busy, Phase::Finishing]) {
                        pool.thaw(id);
                        let came = model.get_mut(&id).unwrap().frozen.take();
                        came_back += usize::from(came.flatten().is_some());
                    }
                }
                Step::Advance(index) => {
                    if let Some(id) = pick(&model, index, &[Phase::Starting, Phase::Busy, Phase::Finishing]) {
                        let known = model.get_mut(&id).unwrap();
                        match known.phase {
                            Phase::Starting => { pool.tell(id, Event::Started); known.phase = Phase::Busy; }
                            Phase::Busy => { pool.tell(id, Event::Answered); known.phase = Phase::Finishing; }
                            _ => {
                                moment += 1;
                                pool.finished(id);
                                known.idle_since = moment;
                                if !known.condemned { known.phase = Phase::Idle; }
                            }
                        }
                    }
                }
                Step::Break(index) => {
                    let phases = [Phase::Starting, Phase::Busy, Phase::Finishing, Phase::Idle];
                    if let Some(id) = pick(&model, index, &phases) {
                        pool.tell(id, Event::Broken(Why::Failed));
                        model.get_mut(&id).unwrap().phase = Phase::Ending;
                    }
                }
                Step::Retire(generation) => {
                    pool.retire(Uuid::from_u128(generation));
                    model.values_mut().filter(|known| known.generation == generation).for_each(|known| known.condemned = true);
                }
                Step::Forget(index) => {
                    if let Some(id) = pick(&model, index, &[Phase::Ending]) {
                        pool.forget(id);
                        model.remove(&id);
                    }
                }
            }
            notice_ends(&mut model);
            for known in model.values_mut().filter(|known| !matches!(known.phase, Phase::Busy | Phase::Finishing)) {
                // Whoever is over is not frozen, whether or not that was said before.
                came_back += usize::from(known.is_apart() && known.phase == Phase::Idle);
                known.frozen = None;
            }
            prop_assert_eq!(pool.containers().len(), model.len());
            prop_assert_eq!(pool.counted(), model.values().filter(|known| !known.is_apart()).count());
            let promised = model.values().filter(|known| !known.is_apart()).map(|known| known.memory);
            prop_assert_eq!(pool.memory_mib(), promised.sum::<u64>());
            for status in pool.containers() {
                let known = &model[&status.id];
                let phase = format!("{:?}", known.phase).to_lowercase();
                prop_assert_eq!(status.state, if known.frozen.is_some() { "frozen" } else { &phase });
            }
            let (count, memory) = counted(&model);
            let largest = u64::from(SIZES[2]);
            prop_assert!(count <= ROOM.containers + came_back, "only who comes back goes beyond a bound");
            prop_assert!(memory <= ROOM.memory_mib + came_back as u64 * largest);
        }
        pool.close();
        prop_assert!(matches!(pool.place(&lane(&version(0, 128)), Patience::Some), Placement::Closed));
    }
}

#[test]
fn a_call_waits_for_a_container_that_is_about_to_be_free() {
    let mut pool = pool(ROOM);
    let function = version(0, 128);
    let (id, _commands) = begin_one(&mut pool, &function, Purpose::Call).unwrap();
    pool.tell(id, Event::Started);
    pool.tell(id, Event::Answered);
    let Placement::Soon(mut soon) = pool.place(&lane(&function), Patience::Some) else { panic!() };
    assert!(matches!(pool.place(&lane(&function), Patience::Some), Placement::Fresh), "one waits for one");
    pool.finished(id);
    assert_eq!(soon.try_recv().unwrap().id, id);
}

#[test]
fn a_waiter_that_left_does_not_hold_the_container() {
    let mut pool = pool(ROOM);
    let function = version(0, 128);
    let (id, _commands) = begin_one(&mut pool, &function, Purpose::Call).unwrap();
    pool.tell(id, Event::Started);
    pool.tell(id, Event::Answered);
    drop(pool.place(&lane(&function), Patience::Some));
    pool.finished(id);
    assert!(matches!(pool.place(&lane(&function), Patience::Some), Placement::Warm(handle) if handle.id == id));
}

#[test]
fn a_queued_call_takes_what_becomes_free() {
    let mut pool = pool(ROOM);
    let function = version(0, 128);
    let mut queued = pool.queue(&lane(&function));
    let (id, _commands) = begin_one(&mut pool, &function, Purpose::Call).unwrap();
    pool.tell(id, Event::Started);
    pool.finished(id);
    assert_eq!(queued.try_recv().unwrap().id, id);
    pool.tell(id, Event::Broken(Why::Failed));
    pool.forget(id);
    assert!(pool.lanes.is_empty());
}

#[test]
fn provisioned_containers_stay_when_others_go() {
    let mut pool = pool(ROOM);
    let (function, other) = (version(0, 128), version(1, 256));
    let begin = |pool: &mut Pool, purpose| {
        let (id, commands) = begin_one(pool, &function, purpose).unwrap();
        match purpose {
            Purpose::Call => {
                pool.tell(id, Event::Started);
                pool.finished(id);
            }
            Purpose::Provisioned | Purpose::Snapshot => pool.ready(id),
        }
        (id, commands)
    };
    let (kept, mut told) = begin(&mut pool, Purpose::Provisioned);
    let (ordinary, mut ordinary_told) = begin(&mut pool, Purpose::Call);
    assert_eq!(pool.provisioned(function.generation), (1, 1));
    pool.idled(kept);
    assert!(told.try_recv().is_err(), "idleness is what it is for");
    // Four more fill the node; only the ordinary one makes room.
    let begun: Vec<_> = (0..4).map(|_| begin_one(&mut pool, &other, Purpose::Call)).collect();
    assert_eq!(begun.iter().flatten().count(), 3, "memory is the bound");
    assert!(matches!(ordinary_told.try_recv(), Ok(Command::End(Why::Idle))));
    pool.forget(ordinary);
    assert_eq!(pool.relieve(), 0);
    assert!(matches!(pool.place(&lane(&function), Patience::None), Placement::Warm(handle) if handle.id == kept));
    assert_eq!(pool.provisioned(function.generation), (1, 1), "a busy one counts");
    pool.release(|_| 0);
    assert!(told.try_recv().is_err(), "a call is in it");
    pool.finished(kept);
    pool.idled(kept);
    assert!(matches!(told.try_recv(), Ok(Command::End(Why::Idle))), "it is an ordinary one now");
    assert_eq!(pool.provisioned(function.generation), (0, 0));
}

#[test]
fn one_version_grows_only_so_fast() {
    let room = Room { scaling: 2, ..ROOM };
    let mut pool = pool(room);
    let (fast, other) = (version(1, 100), version(2, 100));
    let begun: Vec<_> = (0..3).map(|_| begin_one(&mut pool, &fast, Purpose::Call).is_some()).collect();
    assert_eq!(begun, [true, true, false]);
    assert!(begin_one(&mut pool, &fast, Purpose::Provisioned).is_some(), "what is kept ahead is nobody's burst");
    assert!(begin_one(&mut pool, &other, Purpose::Call).is_some());
}

#[test]
fn a_version_that_may_not_grow_takes_no_room_from_others() {
    let room = Room { scaling: 1, containers: 2, ..ROOM };
    let mut pool = pool(room);
    let (fast, other) = (version(1, 100), version(2, 100));
    let (idle, mut commands) = begin_one(&mut pool, &other, Purpose::Call).unwrap();
    pool.tell(idle, Event::Started);
    pool.finished(idle);
    assert!(begin_one(&mut pool, &fast, Purpose::Call).is_some());
    assert!(begin_one(&mut pool, &fast, Purpose::Call).is_none(), "its rate is used up");
    assert!(commands.try_recv().is_err(), "the other's idle container was ended for nothing");
}

#[test]
fn tenants_never_share_a_container() {
    let mut pool = pool(ROOM);
    let function = version(1, 100);
    let [ada, bob] = ["ada", "bob"].map(|tenant| Lane::of(&function, Some(&Arc::from(tenant))));
    let (id, mut commands) = pool.begin(&function, &ada, Purpose::Call).unwrap();
    let mut bob_waits = pool.queue(&bob);
    pool.tell(id, Event::Started);
    pool.finished(id);
    assert!(bob_waits.try_recv().is_err(), "what Ada's call leaves is Ada's");
    assert!(matches!(pool.place(&bob, Patience::Some), Placement::Fresh));
    assert!(matches!(pool.place(&lane(&function), Patience::Some), Placement::Fresh));
    assert!(matches!(pool.place(&ada, Patience::Some), Placement::Warm(handle) if handle.id == id));
    pool.finished(id);
    pool.retire(function.generation);
    assert!(matches!(commands.try_recv(), Ok(Command::End(Why::Retired))), "a version's end is all its tenants'");
}

/// A container of the lane that is idle, with what it was told.
fn idle_one(pool: &mut Pool, version: &FunctionVersion) -> (ContainerId, mpsc::Receiver<Command>) {
    let (id, commands) = begin_one(pool, version, Purpose::Call).unwrap();
    pool.tell(id, Event::Started);
    pool.finished(id);
    (id, commands)
}

/// A call with this value: where it went, and what it found there.
fn call_with(pool: &mut Pool, version: &FunctionVersion, text: &str) -> (ContainerId, Outcome) {
    let value = Value::of(text.as_bytes());
    let Placement::Warm(handle) = pool.place_with(&lane(version), value, Patience::None) else { panic!() };
    let outcome = pool.seat(&lane(version), value, handle.id);
    (handle.id, outcome)
}

#[test]
fn a_call_waits_for_the_container_that_has_its_value() {
    let mut pool = pool(ROOM);
    let function = version(0, 128);
    let (a, _commands) = idle_one(&mut pool, &function);
    let (b, _commands_of_b) = idle_one(&mut pool, &function);
    let (home, outcome) = call_with(&mut pool, &function, "ada");
    let other = if home == a { b } else { a };
    assert_eq!(outcome, Outcome::Miss);
    let value = Value::of(b"ada");
    let wait = |pool: &mut Pool| match pool.place_with(&lane(&function), value, Patience::Some) {
        Placement::Home(receiver, within) => (receiver, within),
        other => panic!("{other:?}"),
    };
    let (mut first, within) = wait(&mut pool);
    assert!(within >= SOON && within <= BOUNDS.wait, "{within:?}");
    let (gone, _) = wait(&mut pool);
    drop(gone);
    let mut any = pool.queue(&lane(&function));
    pool.finished(home);
    assert_eq!(first.try_recv().unwrap().id, home);
    assert_eq!(pool.seat(&lane(&function), value, home), Outcome::Hit);
    assert_eq!(call_with(&mut pool, &function, "ada"), (other, Outcome::Spill), "without patience");
    // Who waits for any container gets its turn, too.
    let (mut late, _) = wait(&mut pool);
    pool.finished(home);
    assert_eq!(any.try_recv().unwrap().id, home);
    pool.tell(home, Event::Broken(Why::Failed));
    assert!(matches!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "it hears of the end at once");
    pool.finished(other);
    assert_eq!(call_with(&mut pool, &function, "ada"), (other, Outcome::Miss), "cold, in its new home");
    assert_eq!(pool.seat(&lane(&function), value, home), Outcome::Miss, "what ends is no home");
    pool.forget(home);
    let [status] = pool.affinity().try_into().unwrap();
    assert_eq!((status.values, status.containers, status.hits, status.misses, status.spills), (1, 1, 1, 2, 1));
}

#[test]
fn only_so_many_wait_for_one_container() {
    let mut pool = pool(ROOM);
    let function = version(0, 128);
    let (home, _commands) = idle_one(&mut pool, &function);
    assert_eq!(call_with(&mut pool, &function, "ada").0, home);
    let value = Value::of(b"ada");
    let placed: Vec<_> = (0..10).map(|_| pool.place_with(&lane(&function), value, Patience::Some)).collect();
    assert_eq!(placed.iter().filter(|placed| matches!(placed, Placement::Home(..))).count(), 8);
    assert!(matches!(placed.last(), Some(Placement::Fresh)));
}

#[test]
fn containers_go_by_worth_and_stay_for_what_they_hold() {
    let mut pool = pool(Room { containers: 3, ..ROOM });
    let (function, plain) = (version(0, 128), version(1, 128));
    // Both are there before either has a value.
    let (a, mut told_a) = idle_one(&mut pool, &function);
    let (b, mut told_b) = idle_one(&mut pool, &function);
    let mut homes = Vec::new();
    for text in ["one", "two", "three"] {
        let (id, outcome) = call_with(&mut pool, &function, text);
        homes.push(id);
        pool.served(id, outcome, Some(Duration::from_secs(1)), 1 << 26);
        pool.finished(id);
    }
    let (id, outcome) = call_with(&mut pool, &function, "one");
    assert_eq!(outcome, Outcome::Hit);
    pool.served(id, outcome, Some(Duration::from_millis(10)), 1 << 26);
    pool.finished(id);
    let (c, mut told_c) = idle_one(&mut pool, &plain);
    let held = |id| homes.iter().filter(|home| **home == id).count();
    assert_eq!(held(a) + held(b), 3, "a quarter more than the mean: two and one");
    let (more, fewer) = if held(a) > held(b) { (a, b) } else { (b, a) };
    // All three were idle for long.
    for id in [a, b, c] {
        pool.idled(id);
    }
    assert!(matches!(told_c.try_recv(), Ok(Command::End(Why::Idle))), "it holds nothing");
    assert!(told_a.try_recv().is_err() && told_b.try_recv().is_err());
    pool.forget(c);
    let told = |id, told_a: &mut mpsc::Receiver<Command>, told_b: &mut mpsc::Receiver<Command>| {
        let told = if id == a { told_a } else { told_b };
        matches!(told.try_recv(), Ok(Command::End(Why::Idle)))
    };
    // The most recently used goes before them where it holds nothing; then the one with fewer values for as many bytes.
    let (_, mut told_plain) = idle_one(&mut pool, &plain);
    assert_eq!(pool.relieve(), 1);
    assert!(matches!(told_plain.try_recv(), Ok(Command::End(Why::Idle))));
    assert_eq!(pool.relieve(), 1);
    assert!(told(fewer, &mut told_a, &mut told_b) && !told(more, &mut told_a, &mut told_b));
}

#[test]
fn tenants_keep_their_values_apart() {
    let mut pool = pool(ROOM);
    let function = version(1, 100);
    let [ada, bob] = ["ada", "bob"].map(|tenant| Lane::of(&function, Some(&Arc::from(tenant))));
    let (id, _commands) = pool.begin(&function, &ada, Purpose::Call).unwrap();
    pool.tell(id, Event::Started);
    let value = Value::of(b"same");
    assert_eq!(pool.seat(&ada, value, id), Outcome::Miss);
    pool.finished(id);
    assert!(matches!(pool.place_with(&bob, value, Patience::Some), Placement::Fresh));
    assert!(matches!(pool.place_with(&ada, value, Patience::Some), Placement::Warm(handle) if handle.id == id));
}

#[derive(Debug, Clone)]
enum ValueStep {
    /// A call with this value, which may wait for its home or not.
    Call(u8, bool),
    Finish(usize),
    Break(usize),
    Forget(usize),
    /// Whoever waits longest gives up.
    Leave,
}

fn value_steps() -> impl Strategy<Value = Vec<ValueStep>> {
    let one = prop_oneof![
        8 => (0_u8..20, any::<bool>()).prop_map(|(value, waits)| ValueStep::Call(value, waits)),
        8 => (0_usize..8).prop_map(ValueStep::Finish),
        1 => (0_usize..8).prop_map(ValueStep::Break),
        2 => (0_usize..8).prop_map(ValueStep::Forget),
        1 => Just(ValueStep::Leave),
    ];
    proptest::collection::vec(one, 1..200)
}

proptest! {
    /// Homes are live containers, calls run one at a time in a container, and whoever waits for a home gets it or hears that it is gone.
    #[test]
    fn values_are_at_home_in_live_containers(steps in value_steps()) {
        let mut pool = pool(ROOM);
        let function = version(0, 100);
        let lane = lane(&function);
        // The model: who runs a call, who ends, who waits for whom, and where each value is.
        let (mut busy, mut ending): (Vec<ContainerId>, Vec<ContainerId>) = Default::default();
        let mut waiting: VecDeque<(Value, ContainerId, oneshot::Receiver<Handle>)> = VecDeque::new();
        let mut homes: BTreeMap<Value, ContainerId> = BTreeMap::new();
        let mut commands = Vec::new();
        for step in steps {
            let pick = |from: &[ContainerId], index: usize| (!from.is_empty()).then(|| from[index % from.len()]);
            match step {
                ValueStep::Call(number, waits) => {
                    let value = Value::of(&[number]);
                    let patience = if waits { Patience::Some } else { Patience::None };
                    let id = match pool.place_with(&lane, value, patience) {
                        Placement::Warm(handle) => Some(handle.id),
                        Placement::Home(receiver, _) => {
                            let home = homes[&value];
                            prop_assert!(waits && busy.contains(&home));
                            waiting.push_back((value, home, receiver));
                            None
                        }
                        Placement::Fresh => begin_one(&mut pool, &function, Purpose::Call).map(|(id, told)| {
                            commands.push(told);
                            pool.tell(id, Event::Started);
                            id
                        }),
                        other @ (Placement::Soon(_) | Placement::Crowd(_) | Placement::Closed) => panic!("{other:?}"),
                    };
                    if let Some(id) = id {
                        prop_assert!(!busy.contains(&id) && !ending.contains(&id));
                        busy.push(id);
                        let outcome = pool.seat(&lane, value, id);
                        let home = homes.get(&value).copied();
                        prop_assert_eq!(outcome == Outcome::Hit, home == Some(id));
                        prop_assert_eq!(outcome == Outcome::Miss, home.is_none());
                    }
                }
                ValueStep::Finish(index) => {
                    if let Some(id) = pick(&busy, index) {
                        busy.retain(|other| *other != id);
                        pool.served(id, Outcome::Hit, Some(Duration::from_millis(1)), 1);
                        pool.finished(id);
                    }
                }
                ValueStep::Break(index) => {
                    if let Some(id) = pick(&busy, index) {
                        busy.retain(|other| *other != id);
                        ending.push(id);
                        pool.tell(id, Event::Broken(Why::Failed));
                    }
                }
                ValueStep::Forget(index) => {
                    if let Some(id) = pick(&ending, index) {
                        ending.retain(|other| *other != id);
                        pool.forget(id);
                    }
                }
                ValueStep::Leave => drop(waiting.pop_front()),
            }
            // Who was given its home runs there; whose home is gone was told.
            for (value, home, mut receiver) in std::mem::take(&mut waiting) {
                match receiver.try_recv() {
                    Ok(handle) => {
                        prop_assert!(handle.id == home && !busy.contains(&home));
                        busy.push(home);
                        pool.seat(&lane, value, home);
                    }
                    Err(oneshot::error::TryRecvError::Empty) => {
                        prop_assert!(busy.contains(&home), "it would wait for ever");
                        waiting.push_back((value, home, receiver));
                    }
                    Err(oneshot::error::TryRecvError::Closed) => prop_assert!(!busy.contains(&home)),
                }
            }
            let Some(books) = pool.lanes.get(&lane) else { homes.clear(); continue };
            homes = (0..20).map(|number| Value::of(&[number])).filter_map(|value| Some((value, books.homes.of(value)?))).collect();
            for home in homes.values() {
                prop_assert!(pool.entries.contains_key(home) && !ending.contains(home), "a home is alive");
            }
            prop_assert_eq!(homes.len(), books.homes.counts().0);
        }
    }
}

#[test]
fn who_is_frozen_makes_room_and_takes_it_again_without_asking() {
    let room_made = Arc::new(Notify::new());
    let mut pool =
        Pool::new(Room { containers: 1, frozen: 1, ..ROOM }, Arc::clone(&room_made), Processors::told(2, false));
    let function = version(0, 600);
    let begin = |pool: &mut Pool| {
        let (id, commands) = begin_one(pool, &function, Purpose::Call)?;
        pool.tell(id, Event::Started);
        Some((id, commands))
    };
    let (a, _told_a) = begin(&mut pool).unwrap();
    assert!(begin(&mut pool).is_none());
    assert!(pool.freeze(a, 10 << 20));
    assert_eq!((pool.counted(), pool.memory_mib()), (0, 0));
    assert!(futures_util::FutureExt::now_or_never(room_made.notified()).is_some(), "who waits for room is told");
    let (b, _told_b) = begin(&mut pool).unwrap();
    assert!(pool.freeze(b, 0));
    assert!(begin(&mut pool).is_none(), "one too many is frozen, and counts like others");
    assert_eq!(pool.containers().iter().filter(|status| status.state == "frozen").count(), 2);
    pool.thaw(a);
    assert_eq!((pool.counted(), pool.memory_mib()), (2, 1_200), "beyond both bounds");
    assert!(begin(&mut pool).is_none());
    pool.finished(a);
    pool.forget(b);
    assert_eq!((pool.counted(), pool.memory_mib()), (1, 600));
}

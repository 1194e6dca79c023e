//! Random interleavings of the runtime, extensions and the node, against a model that only counts.

use proptest::prelude::*;

use super::*;

/// The same for all: that an earlier one had another is tried with ids that no invocation has.
const INVOCATION: Uuid = Uuid::from_u128(u128::MAX);

/// What a client or the node tries.
#[derive(Debug, Clone)]
enum Op {
    Next,
    Begin {
        right_id: bool,
        claim: Claim,
        kind: AnswerKind,
    },
    End,
    InitError,
    Register {
        name: u8,
        invoke: bool,
        shutdown: bool,
    },
    ExtensionNext(u8),
    ExtensionError(u8, Failing),
    /// The connection of an open poll goes away.
    Hang(u8),
    Invoke,
    Shutdown,
}

/// What an answer says of which invocation of its request it is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Claim {
    Nothing,
    Right,
    Wrong,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![Just(AnswerKind::Response), Just(AnswerKind::Error)];
    let claim = prop_oneof![4 => Just(Claim::Nothing), 4 => Just(Claim::Right), 1 => Just(Claim::Wrong)];
    let failing = prop_oneof![Just(Failing::Init), Just(Failing::Exit)];
    prop_oneof![
        20 => Just(Op::Next),
        20 => (prop::bool::weighted(0.9), claim, kind)
            .prop_map(|(right_id, claim, kind)| Op::Begin { right_id, claim, kind }),
        20 => Just(Op::End),
        1 => Just(Op::InitError),
        20 => (0..14u8, any::<bool>(), any::<bool>())
            .prop_map(|(name, invoke, shutdown)| Op::Register { name, invoke, shutdown }),
        40 => (0..4u8).prop_map(Op::ExtensionNext),
        1 => (0..4u8, failing).prop_map(|(extension, failing)| Op::ExtensionError(extension, failing)),
        10 => any::<u8>().prop_map(Op::Hang),
        20 => Just(Op::Invoke),
        1 => Just(Op::Shutdown),
    ]
}

/// Whose a poll is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Runtime,
    Extension(Uuid),
}

/// The whole of the model: who polls, who owes an answer or a `next`, and what has been said so far.
#[derive(Debug, Default)]
struct Model {
    polls: Vec<(PollId, Whose)>,
    registered: Vec<(Uuid, Vec<Lifecycle>)>,
    asked: Vec<Uuid>,
    failed: Vec<Uuid>,
    /// Extensions that an `INVOKE` is delivered or owed to and that have not asked since.
    at_work: Vec<Uuid>,
    told: Vec<Uuid>,
    ready: bool,
    init_failed: bool,
    runtime_asked: bool,
    ending: bool,
    current: Option<RequestId>,
    began: u32,
    ended: u32,
    runtime_done: bool,
}

impl Model {
    /// Checks an effect against what may happen now, and takes it in.
    fn see(&mut self, effect: &Effect, launched: usize) {
        match effect {
            Effect::Deliver(poll) => {
                assert!(self.take_poll(*poll, Whose::Runtime), "delivered to a poll that is not the runtime's: {poll}");
                assert!(self.current.is_some() && self.began == 0, "delivered out of turn");
            }
            Effect::DeliverExtension(id, poll, event) => {
                assert!(self.take_poll(*poll, Whose::Extension(*id)), "delivered to a poll of another");
                let wants = self.registered.iter().any(|(known, events)| known == id && events.contains(event));
                assert!(wants, "delivered what it did not register for");
                assert!(!self.told.contains(id), "delivered after SHUTDOWN");
                match event {
                    Lifecycle::Invoke => assert!(self.at_work.contains(id)),
                    Lifecycle::Shutdown => {
                        assert!(self.ending);
                        self.told.push(*id);
                    }
                }
            }
            Effect::Launched => {}
            Effect::Asked => assert!(!std::mem::replace(&mut self.runtime_asked, true)),
            Effect::Ready => {
                assert!(!self.ready && !self.init_failed && self.runtime_asked);
                assert!(self.registered.iter().all(|(id, _)| self.asked.contains(id)), "ready without an extension");
                assert!(self.registered.len() >= launched, "ready without a launched extension");
                self.ready = true;
            }
            Effect::Failed(_) => {
                assert!(!self.ready && !self.init_failed, "failed after the init phase ended");
                self.init_failed = true;
            }
            Effect::Done => {
                assert!(self.current.is_some() && self.ended == 1 && !self.runtime_done);
                self.runtime_done = true;
            }
            Effect::Idle => {
                assert!(self.runtime_done && self.at_work.iter().all(|id| self.failed.contains(id)), "idle too early");
                self.current = None;
            }
            Effect::Told => {
                assert!(self.ending);
                let wants = |(_, events): &&(Uuid, Vec<Lifecycle>)| events.contains(&Lifecycle::Shutdown);
                let done = |(id, _): &(Uuid, Vec<Lifecycle>)| self.told.contains(id) || self.failed.contains(id);
                assert!(self.registered.iter().filter(wants).all(done), "an extension was not told");
            }
        }
    }

    fn take_poll(&mut self, poll: PollId, whose: Whose) -> bool {
        let before = self.polls.len();
        self.polls.retain(|open| *open != (poll, whose));
        self.polls.len() < before
    }
}

/// Puts one operation to both.
struct Pair {
    container: Container,
    model: Model,
    launched: usize,
    next_poll: PollId,
    ids: u128,
}

impl Pair {
    fn poll(&mut self, whose: Whose, input: impl FnOnce(PollId) -> Input) -> Result<(), Refusal> {
        let poll = self.next_poll;
        self.next_poll += 1;
        self.model.polls.push((poll, whose));
        let result = self.step(input(poll));
        if result.is_err() {
            self.model.polls.retain(|(open, _)| *open != poll);
        }
        result
    }

    fn step(&mut self, input: Input) -> Result<(), Refusal> {
        let before = self.container.clone();
        match self.container.step(input) {
            Ok(effects) => {
                for effect in effects {
                    self.model.see(&effect, self.launched);
                }
                Ok(())
            }
            Err(refusal) => {
                assert_eq!(self.container, before, "a refusal changed something");
                Err(refusal)
            }
        }
    }

    fn extension(&self, index: u8) -> Option<Uuid> {
        let known = &self.model.registered;
        (!known.is_empty()).then(|| known[usize::from(index) % known.len()].0)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Next => self.next(),
            Op::Begin { right_id, claim, kind } => {
                self.ids += 1;
                let other = RequestId::from(Uuid::from_u128(self.ids));
                let request = if right_id { self.model.current.or(Some(other)) } else { Some(other) };
                let invocation = match claim {
                    Claim::Nothing => None,
                    Claim::Right => Some(INVOCATION),
                    Claim::Wrong => Some(Uuid::from_u128(self.ids)),
                };
                let its_turn = self.model.current.is_some() && self.model.began == 0 && !self.model.ending;
                let allowed = its_turn && request == self.model.current && claim != Claim::Wrong;
                let result = self.step(Input::Begin { request, invocation, kind });
                assert_eq!(result.is_ok(), allowed, "{result:?}");
                self.model.began += u32::from(result.is_ok());
            }
            Op::End => {
                if let Some(request) = self.model.current.filter(|_| self.model.began == 1 && self.model.ended == 0) {
                    self.model.ended = 1;
                    self.step(Input::End(request)).unwrap();
                }
            }
            Op::InitError => {
                let allowed = !self.model.runtime_asked && !self.model.init_failed && !self.model.ending;
                assert_eq!(self.step(Input::InitError).is_ok(), allowed);
            }
            Op::Register { name, invoke, shutdown } => self.register(name, invoke, shutdown),
            Op::ExtensionNext(index) => self.extension_next(index),
            Op::ExtensionError(index, failing) => {
                if let Some(id) = self.extension(index) {
                    let asked = self.model.asked.contains(&id);
                    let result = self.step_failing(id, failing);
                    assert!(!(failing == Failing::Init && asked && result.is_ok()), "an init error after its start");
                    self.model.failed.extend(result.is_ok().then_some(id));
                }
            }
            Op::Hang(index) => {
                if !self.model.polls.is_empty() {
                    let (poll, _) = self.model.polls.remove(usize::from(index) % self.model.polls.len());
                    self.step(Input::PollGone(poll)).unwrap();
                }
            }
            Op::Invoke => self.invoke(),
            Op::Shutdown => {
                self.model.ending = true;
                self.step(Input::Shutdown).unwrap();
            }
        }
    }

    fn next(&mut self) {
        let answering = self.model.current.is_some() && self.model.began == 1 && self.model.ended == 0;
        let allowed = self.model.ending || !(answering || self.model.init_failed);
        let result = self.poll(Whose::Runtime, Input::Next);
        assert_eq!(result.is_ok(), allowed, "{result:?}");
    }

    /// A failing extension no longer counts before the effects of its failure are looked at.
    fn step_failing(&mut self, id: Uuid, failing: Failing) -> Result<(), Refusal> {
        self.model.failed.push(id);
        let result = self.step(Input::ExtensionError(id, failing));
        self.model.failed.pop();
        result
    }

    fn register(&mut self, name: u8, invoke: bool, shutdown: bool) {
        self.ids += 1;
        let id = Uuid::from_u128(self.ids);
        let mut events = Vec::new();
        events.extend(invoke.then_some(Lifecycle::Invoke));
        events.extend(shutdown.then_some(Lifecycle::Shutdown));
        self.model.registered.push((id, events.clone()));
        if self.step(Input::Register { name: format!("extension-{name}"), events, id }).is_err() {
            self.model.registered.pop();
        }
        assert!(self.container.extensions().len() <= MAX_EXTENSIONS);
    }

    fn extension_next(&mut self, index: u8) {
        let Some(id) = self.extension(index) else {
            let nobody = Uuid::from_u128(0);
            assert_eq!(
                self.poll(Whose::Extension(nobody), |poll| Input::ExtensionNext(nobody, poll)),
                Err(Refusal::UnknownExtension(nobody))
            );
            return;
        };
        let polling = self.model.polls.iter().any(|(_, whose)| *whose == Whose::Extension(id));
        let failed = self.model.failed.contains(&id);
        let told = self.model.told.contains(&id);
        // Asking is what ends its work, before the effects of that are looked at. What it is still owed comes first.
        let owed = self.container.extension(id).and_then(Extension::registration).map(|(_, stage)| stage.clone());
        let was_at_work = self.model.at_work.clone();
        if !polling && !failed && !matches!(owed, Some(Stage::Owed(Lifecycle::Invoke))) {
            self.model.at_work.retain(|other| *other != id);
        }
        let asked = self.model.asked.len();
        self.model.asked.push(id);
        let result = self.poll(Whose::Extension(id), |poll| Input::ExtensionNext(id, poll));
        if result.is_err() {
            self.model.at_work = was_at_work;
            self.model.asked.truncate(asked);
        }
        // After SHUTDOWN any number of polls may hang; before, one at a time.
        assert_eq!(result.is_ok(), (told || !polling) && !failed, "{result:?}");
    }

    fn invoke(&mut self) {
        self.ids += 1;
        let request = RequestId::from(Uuid::from_u128(self.ids));
        let allowed = self.model.ready && self.model.current.is_none() && !self.model.ending;
        if !allowed {
            assert_eq!(self.step(Input::Invoke(request, INVOCATION)), Err(Refusal::NotIdle));
            return;
        }
        let Model { registered, failed, .. } = &self.model;
        let wanted =
            registered.iter().filter(|(id, events)| events.contains(&Lifecycle::Invoke) && !failed.contains(id));
        self.model.at_work = wanted.map(|(id, _)| *id).collect();
        self.model.current = Some(request);
        (self.model.began, self.model.ended, self.model.runtime_done) = (0, 0, false);
        self.step(Input::Invoke(request, INVOCATION)).unwrap();
    }

    /// What must have been said by now has been.
    fn check(&self) {
        let Model { registered, asked, failed, at_work, .. } = &self.model;
        if self.model.ending || self.model.init_failed {
            return;
        }
        let started = self.container.extensions().iter().all(|extension| extension.activity != Activity::Launched);
        if self.model.runtime_asked && started && registered.iter().all(|(id, _)| asked.contains(id)) {
            assert!(self.model.ready, "everyone asked, and nobody was told");
        }
        if self.model.current.is_some() && self.model.runtime_done {
            assert!(at_work.iter().any(|id| !failed.contains(id)), "nobody is at work, and nobody was told");
        }
    }

    /// Whatever happened before: clients that behave from here on get the container to the end of its invocation.
    fn behave(&mut self) {
        if !self.model.ready || self.model.ending {
            return;
        }
        if self.model.current.is_none() {
            self.apply(Op::Invoke);
        }
        if self.model.began == 0 {
            self.apply(Op::Begin { right_id: true, claim: Claim::Right, kind: AnswerKind::Response });
        }
        self.apply(Op::End);
        self.apply(Op::Next);
        // Twice: once to be handed what it is owed, once to say that it is done with it.
        for _ in 0..2 {
            for index in 0..self.model.registered.len() {
                self.apply(Op::ExtensionNext(index as u8));
            }
        }
        assert_eq!(*self.container.phase(), Phase::Idle, "{:#?}", self.container);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_keeps_the_protocol(launched in 0..3u8, ops in prop::collection::vec(op(), 0..80)) {
        let mut pair = Pair { container: Container::new(), model: Model::default(), launched: launched.into(), next_poll: 0, ids: 0 };
        let names = (0..launched).map(|name| format!("extension-{name}")).collect();
        pair.step(Input::Expect(names)).unwrap();
        for op in ops {
            pair.apply(op);
            pair.check();
        }
        pair.behave();
    }
}

#[test]
fn an_event_that_finds_its_poll_gone_goes_to_the_next() {
    let request = RequestId::from(Uuid::from_u128(1));
    let mut container = Container::new();
    container.step(Input::Expect(Vec::new())).unwrap();
    container.step(Input::Next(0)).unwrap();
    container.step(Input::Next(1)).unwrap();
    assert_eq!(container.step(Input::Invoke(request, INVOCATION)), Ok(vec![Effect::Deliver(0)]));
    assert_eq!(container.step(Input::Undelivered), Ok(vec![Effect::Deliver(1)]));
    assert_eq!(container.step(Input::Undelivered), Ok(Vec::new()));
    assert_eq!(container.step(Input::Next(2)), Ok(vec![Effect::Deliver(2)]));
}

#[test]
fn an_extension_is_owed_the_event_that_found_its_poll_gone() {
    let id = Uuid::from_u128(7);
    let mut container = Container::new();
    container.step(Input::Expect(Vec::new())).unwrap();
    container.step(Input::Register { name: "a".to_owned(), events: vec![Lifecycle::Invoke], id }).unwrap();
    container.step(Input::ExtensionNext(id, 0)).unwrap();
    assert_eq!(container.step(Input::Next(1)), Ok(vec![Effect::Asked, Effect::Ready]));
    let invoked = container.step(Input::Invoke(RequestId::from(Uuid::from_u128(1)), INVOCATION)).unwrap();
    assert!(invoked.contains(&Effect::DeliverExtension(id, 0, Lifecycle::Invoke)));
    container.step(Input::ExtensionUndelivered(id)).unwrap();
    assert_eq!(
        container.step(Input::ExtensionNext(id, 2)),
        Ok(vec![Effect::DeliverExtension(id, 2, Lifecycle::Invoke)])
    );
}

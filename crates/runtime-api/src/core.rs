//! The driver of the protocol's state machine: one lock around it, the open polls, and whoever waits for an outcome.
//!
//! A mutex and no task of its own: a step takes well under a microsecond and never waits, while a queue to an owning task would put two
//! more task switches into every warm invocation. The lock is never held across an `await`. Under it, only oneshot channels are sent
//! to, whose capacity is theirs alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::{Clock, RequestId};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::answer::Done;
use crate::call::{
    ExtensionInfo, Identity, InFlight, Init, InitError, Invoke, Lifecycle, Response, ResponseMode, ShutdownReason,
};
use crate::event::PlatformEvent;
use crate::machine::{AnswerKind, Container, Effect, Extension, Failing, Input, PollId, Refusal};
use crate::services::{Caller, Services};
use crate::snapshot::Sink;
use crate::telemetry::Hub;

/// What a long poll is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// An invocation, and what tells it from an earlier one with the same request id.
    Invoke(Arc<Invoke>, Uuid),
    /// The end.
    Shutdown(ShutdownReason, Timestamp),
}

/// How far the init phase is, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every external extension registered.
    pub launched: bool,
    /// How it ended, once it has.
    pub ended: Option<Init>,
}

/// Everything that the connections of one container share.
pub(crate) struct Core {
    pub identity: Identity,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Arc<Hub>,
    /// What answers requests of SDKs; none: nothing does.
    pub services: Option<Arc<dyn Services>>,
    state: Mutex<State>,
    init: watch::Sender<Progress>,
    told: watch::Sender<bool>,
    snapshot: Mutex<Option<Sink>>,
}

struct State {
    container: Container,
    /// Senders of the open polls, by the number that the machine knows. As many as there are connections, at most.
    polls: Vec<(PollId, oneshot::Sender<Event>)>,
    next_poll: PollId,
    current: Option<Current>,
    shutdown: Option<(ShutdownReason, Timestamp)>,
    /// The reported error of each extension that failed.
    errors: Vec<(Uuid, String)>,
}

/// The invocation under way.
struct Current {
    invoke: Arc<Invoke>,
    invocation: Uuid,
    response: Option<oneshot::Sender<Response>>,
    done: Option<oneshot::Sender<Done>>,
    idle: Option<oneshot::Sender<()>>,
    delivered: Option<Instant>,
    answered: Done,
}

impl Core {
    pub fn new(
        identity: Identity,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Hub>,
        services: Option<Arc<dyn Services>>,
    ) -> Self {
        let state = State {
            container: Container::new(),
            polls: Vec::new(),
            next_poll: 0,
            current: None,
            shutdown: None,
            errors: Vec::new(),
        };
        Self {
            identity,
            clock,
            telemetry,
            services,
            state: Mutex::new(state),
            init: watch::Sender::new(Progress { launched: false, ended: None }),
            told: watch::Sender::new(false),
            snapshot: Mutex::default(),
        }
    }

    /// A panic under the lock would leave a state that is at worst out of step with its polls; the container is thrown away soon enough.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the runtime's snapshot goes.
    pub fn keep_snapshot(&self, sink: Sink) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    /// Given out once; none where no snapshot was asked for.
    pub fn take_sink(&self) -> Option<Sink> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Who asks, as of now.
    pub fn caller(&self) -> Caller {
        let invoke = self.lock().current.as_ref().map(|current| Arc::clone(&current.invoke));
        Caller { identity: self.identity.clone(), invoke }
    }

    /// Whether the container exists for its snapshot.
    pub fn makes_snapshot(&self) -> bool {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub fn expect(&self, names: Vec<String>) {
        // Expecting is never refused.
        let _ = self.take(&mut self.lock(), Input::Expect(names), None);
    }

    /// Opens a poll of the runtime.
    pub fn next(self: &Arc<Self>) -> Result<Poll, Refusal> {
        self.poll(None, Input::Next)
    }

    /// Opens a poll of an extension.
    pub fn extension_next(self: &Arc<Self>, id: Uuid) -> Result<Poll, Refusal> {
        self.poll(Some(id), |poll| Input::ExtensionNext(id, poll))
    }

    fn poll(self: &Arc<Self>, extension: Option<Uuid>, input: impl FnOnce(PollId) -> Input) -> Result<Poll, Refusal> {
        let (sender, event) = oneshot::channel();
        let mut state = self.lock();
        let id = state.next_poll;
        state.next_poll += 1;
        state.polls.push((id, sender));
        if let Err(refusal) = self.take(&mut state, input(id), None) {
            state.polls.retain(|(poll, _)| *poll != id);
            return Err(refusal);
        }
        drop(state);
        Ok(Poll { core: Arc::clone(self), id, extension, event: Some(event) })
    }

    /// Begins an answer to the invocation under way.
    pub fn begin(
        self: &Arc<Self>,
        request: Option<RequestId>,
        invocation: Option<Uuid>,
        kind: AnswerKind,
    ) -> Result<Answer, Refusal> {
        let mut state = self.lock();
        self.take(&mut state, Input::Begin { request, invocation, kind }, None)?;
        let current = state.current.as_mut().ok_or(Refusal::RequestId)?;
        let now = Instant::now();
        current.answered.latency = current.delivered.map(|at| now - at);
        Ok(Answer {
            request: current.invoke.request_id,
            mode: current.invoke.mode,
            response: current.response.take(),
            began: now,
            ended: false,
            core: Arc::clone(self),
        })
    }

    pub fn init_error(&self, error_type: Option<String>, body: Bytes) -> Result<(), Refusal> {
        let error = InitError { error_type, body, extension: None };
        self.take(&mut self.lock(), Input::InitError, Some(error))
    }

    pub fn register(&self, name: String, events: Vec<Lifecycle>) -> Result<Uuid, Refusal> {
        let id = Uuid::new_v4();
        self.take(&mut self.lock(), Input::Register { name, events, id }, None)?;
        Ok(id)
    }

    pub fn extension_error(&self, id: Uuid, failing: Failing, error_type: String, body: Bytes) -> Result<(), Refusal> {
        let mut state = self.lock();
        let known = state.errors.len();
        if !state.errors.iter().any(|(known, _)| *known == id) {
            state.errors.push((id, error_type.clone()));
        }
        let error = InitError { error_type: Some(error_type), body, extension: None };
        let taken = self.take(&mut state, Input::ExtensionError(id, failing), Some(error));
        if taken.is_err() {
            state.errors.truncate(known);
        }
        taken
    }

    /// The name of the extension with this identifier.
    pub fn extension_name(&self, id: Uuid) -> Option<String> {
        self.lock().container.extension(id).map(|extension| extension.name.clone())
    }

    pub fn invoke(&self, invoke: Invoke) -> InFlight {
        let (response, on_response) = oneshot::channel();
        let (done, on_done) = oneshot::channel();
        let (idle, on_idle) = oneshot::channel();
        let request = invoke.request_id;
        let invocation = Uuid::new_v4();
        let current = Current {
            invoke: Arc::new(invoke),
            invocation,
            response: Some(response),
            done: Some(done),
            idle: Some(idle),
            delivered: None,
            answered: Done::default(),
        };
        let mut state = self.lock();
        let before = state.current.replace(current);
        if self.take(&mut state, Input::Invoke(request, invocation), None).is_err() {
            // Dropping the senders tells the caller.
            state.current = before;
        }
        InFlight { response: on_response, done: on_done, idle: on_idle }
    }

    pub fn shutdown(&self, reason: ShutdownReason, deadline: Timestamp) -> watch::Receiver<bool> {
        let mut state = self.lock();
        state.shutdown.get_or_insert((reason, deadline));
        // Shutting down is never refused.
        let _ = self.take(&mut state, Input::Shutdown, None);
        // Whoever waits for the invocation under way learns that nothing will come.
        state.current = None;
        self.told.subscribe()
    }

    pub fn init(&self) -> watch::Receiver<Progress> {
        self.init.subscribe()
    }

    pub fn extensions(&self) -> Vec<ExtensionInfo> {
        self.lock().extensions()
    }

    /// One step of the machine and all that follows from it.
    fn take(&self, state: &mut State, input: Input, error: Option<InitError>) -> Result<(), Refusal> {
        let mut effects = std::collections::VecDeque::from(state.container.step(input)?);
        while let Some(effect) = effects.pop_front() {
            if let Some(undone) = self.perform(state, effect, error.as_ref())
                && let Ok(more) = state.container.step(undone)
            {
                effects.extend(more);
            }
        }
        Ok(())
    }

    /// Performs an effect; gives the input that says so where an event found its poll gone.
    fn perform(&self, state: &mut State, effect: Effect, error: Option<&InitError>) -> Option<Input> {
        match effect {
            Effect::Deliver(poll) => {
                let event = state.current.as_ref()?.event();
                if !state.answer(poll, event) {
                    return Some(Input::Undelivered);
                }
                if let Some(current) = &mut state.current {
                    current.delivered = Some(Instant::now());
                }
            }
            Effect::DeliverExtension(id, poll, event) => {
                let event = match event {
                    Lifecycle::Invoke => state.current.as_ref()?.event(),
                    Lifecycle::Shutdown => {
                        let (reason, deadline) = state.shutdown?;
                        Event::Shutdown(reason, deadline)
                    }
                };
                if !state.answer(poll, event) {
                    return Some(Input::ExtensionUndelivered(id));
                }
            }
            Effect::Launched => drop(self.init.send_if_modified(|init| !std::mem::replace(&mut init.launched, true))),
            // Subscriptions are open a little longer than registration: until the last extension has asked for an event.
            Effect::Asked => {}
            Effect::Ready => self.end_init(state, Init::Ready),
            Effect::Failed(extension) => {
                let error = error.cloned().unwrap_or_default();
                self.end_init(state, Init::Error(InitError { extension, ..error }));
            }
            Effect::Done => {
                let current = state.current.as_mut()?;
                if let Some(done) = current.done.take() {
                    // A caller that does not wait for it is none of our business; the same for the two below.
                    let _ = done.send(current.answered);
                }
            }
            Effect::Idle => {
                // The event is let go of here: nobody can ask for it any more.
                let _ = state.current.take()?.idle?.send(());
            }
            Effect::Told => drop(self.told.send_replace(true)),
        }
        None
    }

    fn end_init(&self, state: &State, how: Init) {
        for ExtensionInfo { name, events, error_type, .. } in state.extensions() {
            let word = if error_type.is_none() { "Ready" } else { "InitError" };
            let event = PlatformEvent::Extension { name, state: word.to_owned(), events, error_type };
            self.telemetry.platform(self.clock.now(), &event);
        }
        self.telemetry.close_subscriptions();
        self.init.send_modify(|init| {
            init.ended.get_or_insert(how);
        });
    }
}

impl Current {
    fn event(&self) -> Event {
        Event::Invoke(Arc::clone(&self.invoke), self.invocation)
    }
}

impl State {
    fn extensions(&self) -> Vec<ExtensionInfo> {
        let info = |extension: &Extension| {
            let (registration, _) = extension.registration()?;
            let error_type = self.errors.iter().find(|(id, _)| *id == registration.id).map(|(_, error)| error.clone());
            let Extension { name, kind, .. } = extension;
            Some(ExtensionInfo { name: name.clone(), kind: *kind, events: registration.events.clone(), error_type })
        };
        self.container.extensions().iter().filter_map(info).collect()
    }

    /// Answers a poll; false where nobody waits on it any more.
    fn answer(&mut self, poll: PollId, event: Event) -> bool {
        let Some(at) = self.polls.iter().position(|(id, _)| *id == poll) else { return false };
        self.polls.swap_remove(at).1.send(event).is_ok()
    }
}

/// An open poll. Dropped before its event came, it is taken back from the machine.
pub(crate) struct Poll {
    core: Arc<Core>,
    id: PollId,
    /// Whose it is; none: the runtime's.
    extension: Option<Uuid>,
    event: Option<oneshot::Receiver<Event>>,
}

impl Poll {
    /// Waits for the event. Never ends where none comes: the connection does, with its client or with the container.
    pub async fn event(mut self) -> Event {
        // Taken out only once it has come, so that a drop in mid-wait still takes the poll back.
        if let Some(event) = &mut self.event
            && let Ok(event) = event.await
        {
            self.event = None;
            return event;
        }
        std::future::pending().await
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let Some(event) = &mut self.event else { return };
        let mut state = self.core.lock();
        state.polls.retain(|(id, _)| *id != self.id);
        let input = match (event.try_recv(), self.extension) {
            (Err(_), _) => Input::PollGone(self.id),
            // The event came just as the connection went.
            (Ok(_), None) => Input::Undelivered,
            (Ok(_), Some(id)) => Input::ExtensionUndelivered(id),
        };
        // Taking back is never refused, unless the extension is unknown, which it is not.
        let _ = self.core.take(&mut state, input, None);
    }
}

/// An answer whose body is arriving. Dropped before its end, it ends as truncated.
pub(crate) struct Answer {
    core: Arc<Core>,
    request: RequestId,
    /// How the caller wants the response.
    pub mode: ResponseMode,
    response: Option<oneshot::Sender<Response>>,
    began: Instant,
    ended: bool,
}

impl Answer {
    /// Gives the caller what there is to give. Only the first one counts.
    pub fn respond(&mut self, response: Response) {
        if let Some(sender) = self.response.take() {
            // A caller that has gone away needs no answer.
            let _ = sender.send(response);
        }
    }

    /// Ends the answer, which was this large.
    pub fn end(mut self, produced_bytes: u64) {
        self.finish(produced_bytes);
    }

    fn finish(&mut self, produced_bytes: u64) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut state = self.core.lock();
        if let Some(current) = &mut state.current
            && current.invoke.request_id == self.request
        {
            current.answered.duration = self.began.elapsed();
            current.answered.produced_bytes = produced_bytes;
        }
        // Ending is never refused.
        let _ = self.core.take(&mut state, Input::End(self.request), None);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            self.respond(crate::answer::truncated());
            self.finish(0);
        }
    }
}

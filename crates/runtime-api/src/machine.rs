//! The protocol between a container's processes and their node, as a state machine that does no I/O.
//!
//! ```text
//!           runtime's first next          every extension's first next            invoke
//!   Init ───────────────────────▶ Settling ───────────────────────────▶ Idle ────────────▶ Busy
//!    │                               │                                   ▲                  │
//!    │ init/error, exit/error        │ init/error, exit/error            └──────────────────┘
//!    ▼                               ▼                        answered, and next asked by the runtime and by
//!   Failed ◀─────────────────────────┘                        every extension that registered for INVOKE
//!
//!   any of them ── shutdown ──▶ Ending
//!
//!   inside Busy:   Running ── response or error begins ──▶ Answering ── body ends ──▶ Answered ── next ──▶ Done
//!                   │   ▲
//!                   └───┘ next: the same event again
//!
//!   an extension:  Launched ── register ──▶ Registered ── next ──▶ Waiting ── event ──▶ Working ── next ──▶ Waiting
//!                  (external only)              │                      │                   │
//!                                               └── init/error, exit/error ────────────────┴──▶ Failed
//! ```
//!
//! [`Container::step`] takes one [`Input`] and gives either the [`Effect`]s to perform or a [`Refusal`], which changes nothing. Long polls
//! are known by number here; what answers them is the driver's (`core`). A poll whose connection went away before an event came for it is
//! taken back with [`Input::PollGone`], so an event is never given to nobody: the runtime's is given again to its next poll, an
//! extension's waits for its next poll (`Owed`).
//!
//! States, transitions and their names in error messages are those of the AWS Runtime Interface Emulator, so that clients which look at
//! them find what they know.

use lambent_model::RequestId;
use uuid::Uuid;

use crate::call::Lifecycle;

mod extension;

pub(crate) use extension::{Activity, Extension, Failing, Stage};

/// Extensions of one container, internal and external together.
pub const MAX_EXTENSIONS: usize = 10;

/// A long poll that is open.
pub(crate) type PollId = u64;

/// Where the container as a whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The runtime has not asked for an event yet. Extensions register.
    Init,
    /// The runtime has asked; some extension has not.
    Settling,
    /// The runtime or an extension reported that it cannot start.
    Failed,
    /// Ready for an invocation.
    Idle,
    /// Working on one.
    Busy {
        /// Which.
        request: RequestId,
        /// Tells it from an earlier one with the same request id, as a retry has.
        invocation: Uuid,
        /// How far the runtime is.
        progress: Progress,
    },
    /// Told to end.
    Ending,
}

/// How far the runtime is with an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was handed the event, or will be when it next asks.
    Running,
    /// The body of its answer is arriving.
    Answering(AnswerKind),
    /// It answered and has not asked for the next event.
    Answered,
    /// It asked for the next event; an extension is still at work.
    Done,
}

/// Which of the two endpoints an answer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// `…/response`.
    Response,
    /// `…/error`.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// External extensions are being launched.
    Expect(Vec<String>),
    /// The runtime asks for an event.
    Next(PollId),
    /// The head of an answer arrived.
    Begin {
        /// For this request; none: the path names no request id.
        request: Option<RequestId>,
        /// For this invocation of it, where the client says so.
        invocation: Option<Uuid>,
        /// To this endpoint.
        kind: AnswerKind,
    },
    /// The answer's body ended, well or not.
    End(RequestId),
    /// The runtime reports that it cannot start.
    InitError,
    /// An extension registers, and is to be known under this identifier.
    Register { name: String, events: Vec<Lifecycle>, id: Uuid },
    /// An extension asks for an event.
    ExtensionNext(Uuid, PollId),
    /// An extension reports that it failed.
    ExtensionError(Uuid, Failing),
    /// A poll's connection went away.
    PollGone(PollId),
    /// An event could not be handed to the runtime because the poll's connection had just gone.
    Undelivered,
    /// The same for an extension.
    ExtensionUndelivered(Uuid),
    /// The node has an invocation.
    Invoke(RequestId, Uuid),
    /// The node ends the container.
    Shutdown,
}

/// Something to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Answer this poll of the runtime with the current invocation.
    Deliver(PollId),
    /// Answer this poll of an extension with an event.
    DeliverExtension(Uuid, PollId, Lifecycle),
    /// All external extensions have registered.
    Launched,
    /// The runtime asked for its first event.
    Asked,
    /// The init phase ended well.
    Ready,
    /// The init phase failed because of the runtime, or of this extension.
    Failed(Option<String>),
    /// The runtime is done with the invocation.
    Done,
    /// So is every extension.
    Idle,
    /// Every extension that registered for it has been told of the shutdown.
    Told,
}

/// Why an input was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not the id of the invocation under way.
    RequestId,
    /// Of an earlier invocation with the same id.
    Stale,
    /// The runtime may not do that now.
    Runtime { from: &'static str, to: &'static str },
    /// The extension may not do that now.
    Extension { who: String, from: &'static str, to: &'static str },
    /// No extension has this identifier.
    UnknownExtension(Uuid),
    /// Another extension has this name.
    NameTaken,
    /// There are as many extensions as there may be.
    TooManyExtensions,
    /// The init phase is over.
    RegistrationClosed,
    /// An internal extension may not have this event.
    NotForInternal(Lifecycle),
    /// The container is not idle.
    NotIdle,
}

/// The result of a step.
pub(crate) type Step = Result<Vec<Effect>, Refusal>;

/// A container as seen from its Runtime API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    phase: Phase,
    /// Open polls of the runtime, oldest first. Bounded by the connections that are served at once.
    polls: Vec<PollId>,
    /// At most [`MAX_EXTENSIONS`], and as many external ones as the node launched.
    extensions: Vec<Extension>,
}

impl Container {
    /// A container of which nothing has been heard yet.
    pub fn new() -> Self {
        Self { phase: Phase::Init, polls: Vec::new(), extensions: Vec::new() }
    }

    /// Where it is.
    #[cfg(test)]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Takes in what happened; gives what to do, or why not.
    pub fn step(&mut self, input: Input) -> Step {
        match input {
            Input::Expect(names) => self.expect(names),
            Input::Next(poll) => self.next(poll),
            Input::Begin { request, invocation, kind } => self.begin(request, invocation, kind),
            Input::End(request) => self.end(request),
            Input::InitError => self.init_error(),
            Input::Register { name, events, id } => self.register(name, events, id),
            Input::ExtensionNext(id, poll) => self.extension_next(id, poll),
            Input::ExtensionError(id, failing) => self.extension_error(id, failing),
            Input::PollGone(poll) => self.poll_gone(poll),
            Input::Undelivered => Ok(self.deliver().into_iter().collect()),
            Input::ExtensionUndelivered(id) => self.extension_undelivered(id),
            Input::Invoke(request, invocation) => self.invoke(request, invocation),
            Input::Shutdown => Ok(self.shutdown()),
        }
    }

    fn next(&mut self, poll: PollId) -> Step {
        match &mut self.phase {
            Phase::Init => {
                self.phase = Phase::Settling;
                self.polls.push(poll);
                let mut effects = vec![Effect::Asked];
                effects.extend(self.settled());
                Ok(effects)
            }
            Phase::Busy { progress: Progress::Running, .. } => Ok(vec![Effect::Deliver(poll)]),
            Phase::Busy { progress: progress @ Progress::Answered, .. } => {
                *progress = Progress::Done;
                self.polls.push(poll);
                let mut effects = vec![Effect::Done];
                effects.extend(self.finished());
                Ok(effects)
            }
            Phase::Settling | Phase::Idle | Phase::Ending | Phase::Busy { progress: Progress::Done, .. } => {
                self.polls.push(poll);
                Ok(Vec::new())
            }
            Phase::Failed | Phase::Busy { progress: Progress::Answering(_), .. } => Err(self.runtime_refusal("Ready")),
        }
    }

    fn begin(&mut self, request: Option<RequestId>, claimed: Option<Uuid>, kind: AnswerKind) -> Step {
        let to = kind.state_name();
        match &mut self.phase {
            Phase::Busy { request: current, invocation, progress } if request == Some(*current) => match progress {
                _ if claimed.is_some_and(|claimed| claimed != *invocation) => Err(Refusal::Stale),
                Progress::Running => {
                    *progress = Progress::Answering(kind);
                    Ok(Vec::new())
                }
                Progress::Answering(_) | Progress::Answered | Progress::Done => Err(self.runtime_refusal(to)),
            },
            Phase::Init | Phase::Settling | Phase::Failed | Phase::Idle | Phase::Ending | Phase::Busy { .. } => {
                Err(Refusal::RequestId)
            }
        }
    }

    /// The end of an answer that began is never refused: a shutdown may have come in between.
    fn end(&mut self, request: RequestId) -> Step {
        match &mut self.phase {
            Phase::Busy { request: current, progress: progress @ Progress::Answering(_), .. }
                if *current == request =>
            {
                *progress = Progress::Answered;
            }
            Phase::Busy { .. } | Phase::Init | Phase::Settling | Phase::Failed | Phase::Idle | Phase::Ending => {}
        }
        Ok(Vec::new())
    }

    fn init_error(&mut self) -> Step {
        match self.phase {
            Phase::Init => {
                self.phase = Phase::Failed;
                Ok(vec![Effect::Failed(None)])
            }
            Phase::Settling | Phase::Failed | Phase::Idle | Phase::Busy { .. } | Phase::Ending => {
                Err(self.runtime_refusal("InitError"))
            }
        }
    }

    fn poll_gone(&mut self, poll: PollId) -> Step {
        self.polls.retain(|open| *open != poll);
        for stage in self.extensions.iter_mut().filter_map(Extension::stage_mut) {
            if *stage == Stage::Waiting(poll) {
                *stage = Stage::Adrift;
            }
        }
        Ok(Vec::new())
    }

    fn invoke(&mut self, request: RequestId, invocation: Uuid) -> Step {
        match self.phase {
            Phase::Idle => {}
            Phase::Init | Phase::Settling | Phase::Failed | Phase::Busy { .. } | Phase::Ending => {
                return Err(Refusal::NotIdle);
            }
        }
        self.phase = Phase::Busy { request, invocation, progress: Progress::Running };
        let mut effects: Vec<Effect> = self.deliver().into_iter().collect();
        for extension in &mut self.extensions {
            effects.extend(extension.hand(Lifecycle::Invoke));
        }
        Ok(effects)
    }

    fn shutdown(&mut self) -> Vec<Effect> {
        if self.phase == Phase::Ending {
            return self.told().into_iter().collect();
        }
        self.phase = Phase::Ending;
        let mut effects: Vec<Effect> = Vec::new();
        for extension in &mut self.extensions {
            effects.extend(extension.hand(Lifecycle::Shutdown));
        }
        effects.extend(self.told());
        effects
    }

    /// Hands the event to the oldest open poll; without one it waits for the next.
    fn deliver(&mut self) -> Option<Effect> {
        match self.phase {
            Phase::Busy { progress: Progress::Running, .. } if !self.polls.is_empty() => {
                Some(Effect::Deliver(self.polls.remove(0)))
            }
            Phase::Busy { .. } | Phase::Init | Phase::Settling | Phase::Failed | Phase::Idle | Phase::Ending => None,
        }
    }

    /// Ends the init phase when everyone has asked for an event.
    fn settled(&mut self) -> Option<Effect> {
        let asked = |extension: &Extension| matches!(&extension.activity, Activity::Registered(_, stage) if *stage != Stage::Starting);
        if self.phase != Phase::Settling || !self.extensions.iter().all(asked) {
            return None;
        }
        self.phase = Phase::Idle;
        Some(Effect::Ready)
    }

    /// Ends the invocation when everyone has asked for the next event.
    fn finished(&mut self) -> Option<Effect> {
        let at_work = |extension: &Extension| {
            matches!(
                extension.activity,
                Activity::Registered(_, Stage::Working(Lifecycle::Invoke) | Stage::Owed(Lifecycle::Invoke))
            )
        };
        match self.phase {
            Phase::Busy { progress: Progress::Done, .. } if !self.extensions.iter().any(at_work) => {
                self.phase = Phase::Idle;
                Some(Effect::Idle)
            }
            Phase::Busy { .. } | Phase::Init | Phase::Settling | Phase::Failed | Phase::Idle | Phase::Ending => None,
        }
    }

    fn runtime_refusal(&self, to: &'static str) -> Refusal {
        let from = match self.phase {
            Phase::Init => "Started",
            Phase::Failed => "InitError",
            Phase::Settling | Phase::Idle | Phase::Ending | Phase::Busy { progress: Progress::Done, .. } => "Ready",
            Phase::Busy { progress: Progress::Running, .. } => "Running",
            Phase::Busy { progress: Progress::Answering(kind), .. } => kind.state_name(),
            Phase::Busy { progress: Progress::Answered, .. } => "RuntimeResponseSentState",
        };
        Refusal::Runtime { from, to }
    }
}

impl AnswerKind {
    fn state_name(self) -> &'static str {
        match self {
            Self::Response => "InvocationResponse",
            Self::Error => "InvocationErrorResponse",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

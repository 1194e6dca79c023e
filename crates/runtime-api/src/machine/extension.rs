//! Extensions of a container: what each registered, what it is doing, and what that means for the container.

use uuid::Uuid;

use super::{Container, Effect, MAX_EXTENSIONS, Phase, PollId, Refusal, Step};
use crate::call::{ExtensionKind, Lifecycle};

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extension {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub kind: ExtensionKind,
    /// What it is doing.
    pub activity: Activity,
}

/// What an extension is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Its process was launched.
    Launched,
    /// It registered.
    Registered(Registration, Stage),
}

/// What an extension registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The identifier it was given.
    pub id: Uuid,
    /// The events it wants.
    pub events: Vec<Lifecycle>,
}

/// What a registered extension is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not asked for an event.
    Starting,
    /// It asked.
    Waiting(PollId),
    /// It asked, and its connection went away before an event came.
    Adrift,
    /// An event came while it was adrift.
    Owed(Lifecycle),
    /// It was handed an event and has not asked for the next.
    Working(Lifecycle),
    /// It reported an error that it cannot go on from.
    Failed(Failing),
}

/// When an extension failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// While it started.
    Init,
    /// Later, or it said nothing of when.
    Exit,
}

impl Extension {
    /// What it registered and what it is doing, once it has registered.
    pub fn registration(&self) -> Option<(&Registration, &Stage)> {
        match &self.activity {
            Activity::Launched => None,
            Activity::Registered(registration, stage) => Some((registration, stage)),
        }
    }

    pub(super) fn stage_mut(&mut self) -> Option<&mut Stage> {
        match &mut self.activity {
            Activity::Launched => None,
            Activity::Registered(_, stage) => Some(stage),
        }
    }

    fn wants(&self, event: Lifecycle) -> bool {
        self.registration().is_some_and(|(registration, _)| registration.events.contains(&event))
    }

    /// Hands it an event that it wants: now, or when it asks.
    pub(super) fn hand(&mut self, event: Lifecycle) -> Option<Effect> {
        if !self.wants(event) {
            return None;
        }
        let id = self.registration()?.0.id;
        let stage = self.stage_mut()?;
        match *stage {
            Stage::Waiting(poll) => {
                *stage = Stage::Working(event);
                Some(Effect::DeliverExtension(id, poll, event))
            }
            Stage::Adrift | Stage::Owed(_) => {
                *stage = Stage::Owed(event);
                None
            }
            Stage::Starting | Stage::Working(_) | Stage::Failed(_) => None,
        }
    }

    fn refusal(&self, to: &'static str) -> Refusal {
        let from = match &self.activity {
            Activity::Launched => "Started",
            Activity::Registered(_, stage) => match stage {
                Stage::Starting => "Registered",
                Stage::Waiting(_) | Stage::Adrift | Stage::Owed(_) => "Ready",
                Stage::Working(_) => "Running",
                Stage::Failed(failing) => failing.state_name(),
            },
        };
        // AWS names an extension by its name while it registers, by its identifier later.
        let who = match self.registration() {
            Some((registration, _)) if to != "Registered" => registration.id.to_string(),
            Some(_) | None => self.name.clone(),
        };
        Refusal::Extension { who, from, to }
    }
}

impl Failing {
    fn state_name(self) -> &'static str {
        match self {
            Self::Init => "InitError",
            Self::Exit => "ExitError",
        }
    }
}

impl Container {
    /// Its extensions.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The extension with this identifier.
    pub fn extension(&self, id: Uuid) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.registration().is_some_and(|(known, _)| known.id == id))
    }

    pub(super) fn expect(&mut self, names: Vec<String>) -> Step {
        self.extensions.extend(names.into_iter().map(|name| Extension {
            name,
            kind: ExtensionKind::External,
            activity: Activity::Launched,
        }));
        Ok(self.launched().into_iter().collect())
    }

    pub(super) fn register(&mut self, name: String, events: Vec<Lifecycle>, id: Uuid) -> Step {
        let open = match self.phase {
            Phase::Init => true,
            Phase::Settling | Phase::Failed | Phase::Idle | Phase::Busy { .. } | Phase::Ending => false,
        };
        let registered = Activity::Registered(Registration { id, events }, Stage::Starting);
        if let Some(known) = self.extensions.iter_mut().find(|extension| extension.name == name) {
            return match known.activity {
                Activity::Launched if open || self.phase == Phase::Settling => {
                    known.activity = registered;
                    Ok(self.launched().into_iter().collect())
                }
                Activity::Launched => Err(Refusal::RegistrationClosed),
                Activity::Registered(..) if known.kind == ExtensionKind::External => Err(known.refusal("Registered")),
                Activity::Registered(..) if !open => Err(Refusal::RegistrationClosed),
                Activity::Registered(..) => Err(Refusal::NameTaken),
            };
        }
        if let Activity::Registered(Registration { events, .. }, _) = &registered
            && events.contains(&Lifecycle::Shutdown)
        {
            return Err(Refusal::NotForInternal(Lifecycle::Shutdown));
        }
        if !open {
            return Err(Refusal::RegistrationClosed);
        }
        if self.extensions.len() >= MAX_EXTENSIONS {
            return Err(Refusal::TooManyExtensions);
        }
        self.extensions.push(Extension { name, kind: ExtensionKind::Internal, activity: registered });
        Ok(Vec::new())
    }

    pub(super) fn extension_next(&mut self, id: Uuid, poll: PollId) -> Step {
        let ending = self.phase == Phase::Ending;
        let extension = self.extension_mut(id)?;
        let wants_shutdown = ending && extension.wants(Lifecycle::Shutdown);
        let refusal = extension.refusal("Ready");
        let Some(stage) = extension.stage_mut() else { return Err(Refusal::UnknownExtension(id)) };
        match stage {
            Stage::Waiting(_) | Stage::Failed(_) => Err(refusal),
            // Nothing comes after SHUTDOWN.
            Stage::Working(Lifecycle::Shutdown) => Ok(Vec::new()),
            Stage::Starting | Stage::Adrift | Stage::Working(Lifecycle::Invoke) | Stage::Owed(_) if wants_shutdown => {
                *stage = Stage::Working(Lifecycle::Shutdown);
                let mut effects = vec![Effect::DeliverExtension(id, poll, Lifecycle::Shutdown)];
                effects.extend(self.told());
                Ok(effects)
            }
            Stage::Owed(event) => {
                let event = *event;
                *stage = Stage::Working(event);
                Ok(vec![Effect::DeliverExtension(id, poll, event)])
            }
            Stage::Starting | Stage::Adrift | Stage::Working(Lifecycle::Invoke) => {
                *stage = Stage::Waiting(poll);
                Ok(self.settled().into_iter().chain(self.finished()).collect())
            }
        }
    }

    pub(super) fn extension_error(&mut self, id: Uuid, failing: Failing) -> Step {
        let extension = self.extension_mut(id)?;
        let name = extension.name.clone();
        let refusal = extension.refusal(failing.state_name());
        let Some(stage) = extension.stage_mut() else { return Err(Refusal::UnknownExtension(id)) };
        match (failing, &*stage) {
            // Said again, it changes nothing.
            (said, Stage::Failed(before)) if said == *before => return Ok(Vec::new()),
            (Failing::Init, Stage::Starting) => *stage = Stage::Failed(failing),
            (
                Failing::Exit,
                Stage::Starting | Stage::Waiting(_) | Stage::Adrift | Stage::Owed(_) | Stage::Working(_),
            ) => {
                *stage = Stage::Failed(failing);
            }
            (Failing::Init | Failing::Exit, _) => return Err(refusal),
        }
        match self.phase {
            Phase::Init | Phase::Settling => {
                self.phase = Phase::Failed;
                Ok(vec![Effect::Failed(Some(name))])
            }
            Phase::Failed | Phase::Idle => Ok(Vec::new()),
            Phase::Busy { .. } => Ok(self.finished().into_iter().collect()),
            Phase::Ending => Ok(self.told().into_iter().collect()),
        }
    }

    pub(super) fn extension_undelivered(&mut self, id: Uuid) -> Step {
        if let Some(stage) = self.extension_mut(id)?.stage_mut()
            && let Stage::Working(event) = *stage
        {
            *stage = Stage::Owed(event);
        }
        Ok(Vec::new())
    }

    pub(super) fn launched(&self) -> Option<Effect> {
        let all = self.extensions.iter().all(|extension| extension.activity != Activity::Launched);
        let starting = matches!(self.phase, Phase::Init | Phase::Settling);
        (all && starting).then_some(Effect::Launched)
    }

    pub(super) fn told(&self) -> Option<Effect> {
        let all = self.extensions.iter().filter(|extension| extension.wants(Lifecycle::Shutdown)).all(|extension| {
            matches!(
                extension.activity,
                Activity::Registered(_, Stage::Working(Lifecycle::Shutdown) | Stage::Failed(_))
            )
        });
        (all && self.phase == Phase::Ending).then_some(Effect::Told)
    }

    fn extension_mut(&mut self, id: Uuid) -> Result<&mut Extension, Refusal> {
        self.extensions
            .iter_mut()
            .find(|extension| extension.registration().is_some_and(|(known, _)| known.id == id))
            .ok_or(Refusal::UnknownExtension(id))
    }
}

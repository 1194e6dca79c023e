//! The life of an instance that belongs to nobody.
//!
//! ```text
//!             Built               Take
//!  Building ─────────► Waiting ───────────► Given ── Gone ──► (a container's from here on)
//!     │                   │                   │
//!     │                   ├── End, Broken ────┤ Broken: it died while it was given
//!     └─ End, Broken ─────┴───────────────► Ending ── Gone ──► (forgotten)
//! ```
//!
//! Building makes a blank cell and starts what waits in it. Given, its owner is told to hand it over; what it becomes then is a container's
//! state ([`crate::container::state`]). There is no way back: what was given is never anybody else's. [`step`] is the whole truth; the
//! books perform its effects.

/// Why an instance ends without having been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It waited longer than the forecast asks for.
    Idle,
    /// The host is short of memory.
    Pressure,
    /// The node shuts down.
    Shutdown,
    /// It could not be made, or died.
    Failed,
}

/// Where it is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made.
    Building,
    /// Ready for whoever comes.
    Waiting,
    /// Told to hand itself over.
    Given,
    /// Being taken away.
    Ending(Why),
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is ready.
    Built,
    /// A container needs it.
    Take,
    /// It cannot be used.
    Broken,
    /// It is not wanted any more.
    End(Why),
}

/// What the books must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// Its task must hand it over.
    Give,
    /// Its task must end it.
    Stop,
}

/// A step that the table does not have: a fault of the books or of an instance's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {from:?} cannot be told {event:?}")]
pub(crate) struct Impossible {
    pub from: State,
    pub event: Event,
}

/// The new state, and what to do.
pub(crate) fn step(state: State, event: Event) -> Result<(State, Effect), Impossible> {
    use Effect::{Give, Nothing, Stop};
    use State::{Building, Ending, Given, Waiting};
    Ok(match (state, event) {
        (Building, Event::Built) => (Waiting, Nothing),
        (Waiting, Event::Take) => (Given, Give),
        // The task that says so ends it by itself.
        (Building | Waiting | Given, Event::Broken) => (Ending(Why::Failed), Nothing),
        (Building | Waiting, Event::End(why)) => (Ending(why), Stop),
        // Whoever it was given to ends it.
        (Given, Event::End(_)) => (Given, Nothing),
        // Told to end while it was being made.
        (Ending(why), Event::Built | Event::Broken | Event::End(_)) => (Ending(why), Nothing),
        (from @ (Building | Given | Ending(_)), Event::Take) | (from @ (Waiting | Given), Event::Built) => {
            return Err(Impossible { from, event });
        }
    })
}

impl State {
    /// Its name in metrics and in `status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Waiting => "waiting",
            Self::Given => "given",
            Self::Ending(_) => "ending",
        }
    }
}

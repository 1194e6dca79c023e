//! The life of a container.
//!
//! ```text
//!             Started                Taken          (Starting ── Ready ──► Idle, where no call waits)
//!  Starting ───────────┐   Idle ───────────────┐
//!     │                ▼    ▲                  ▼
//!     │               Busy ─┼───── Answered ─► Finishing
//!     │                │    └───── Finished ──────┘
//!     │                │                          │
//!     └──── Broken ────┴───── Broken, or End when the call is over ──┐
//!                               Idle ──── End, Broken ──────────► Ending ── Gone ──► (forgotten)
//! ```
//!
//! `Starting` (but for provisioned concurrency), `Busy` and `Finishing` hold a call; a container in one of them that is told to end does so when the call is over. `Idle` is
//! the only state from which calls are taken. [`step`] is the whole truth; the pool performs its effects.

/// Why a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// Idle for too long, or the longest when place was needed.
    Idle,
    /// Its version was replaced or deleted.
    Retired,
    /// The node shuts down.
    Shutdown,
    /// A call ran into its time-out.
    TimedOut,
    /// The runtime or an extension died, or never started.
    Failed,
}

/// What happens to a container when its call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits for the next call.
    Wait,
    /// It ends.
    End(Why),
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made, for a call that waits.
    Starting(Then),
    /// Working on a call.
    Busy(Then),
    /// The call was answered; the runtime or extensions are still at work.
    Finishing(Then),
    /// Waiting for a call. Holds when that began, as a count that grows with every such moment.
    Idle {
        /// Larger is more recent.
        since: u64,
    },
    /// Its processes are being ended.
    Ending(Why),
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Init is over, the call it was made for has begun.
    Started,
    /// Init is over, and no call waits for it; `at` orders such moments.
    Ready {
        /// For [`State::Idle`].
        at: u64,
    },
    /// A call was given to it.
    Taken,
    /// Its call was answered.
    Answered,
    /// Its call is over, all of it; `at` orders such moments.
    Finished {
        /// For [`State::Idle`].
        at: u64,
    },
    /// It cannot be used any more.
    Broken(Why),
    /// It is to end as soon as no call is in it.
    End(Why),
}

/// What the pool must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// It can take a call now.
    Offer,
    /// Its task must end it.
    Stop(Why),
}

/// A step that the table does not have: a fault of the pool or of a container's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from:?} cannot be told {event:?}")]
pub(crate) struct Impossible {
    pub from: State,
    pub event: Event,
}

/// The new state, and what to do.
pub(crate) fn step(state: State, event: Event) -> Result<(State, Effect), Impossible> {
    use Effect::{Nothing, Offer, Stop};
    use State::{Busy, Ending, Finishing, Idle, Starting};
    Ok(match (state, event) {
        (Starting(then), Event::Started) => (Busy(then), Nothing),
        (Starting(Then::Wait), Event::Ready { at }) => (Idle { since: at }, Offer),
        (Starting(Then::End(why)), Event::Ready { .. }) => (Ending(why), Stop(why)),
        (Idle { .. }, Event::Taken) => (Busy(Then::Wait), Nothing),
        (Busy(then), Event::Answered) => (Finishing(then), Nothing),

        (Busy(Then::Wait) | Finishing(Then::Wait), Event::Finished { at }) => (Idle { since: at }, Offer),
        (Busy(Then::End(why)) | Finishing(Then::End(why)), Event::Finished { .. }) => (Ending(why), Stop(why)),

        // The task that says so ends the container by itself.
        (Starting(_) | Busy(_) | Finishing(_) | Idle { .. }, Event::Broken(why)) => (Ending(why), Nothing),

        (Starting(then), Event::End(why)) => (Starting(sooner(then, why)), Nothing),
        (Busy(then), Event::End(why)) => (Busy(sooner(then, why)), Nothing),
        (Finishing(then), Event::End(why)) => (Finishing(sooner(then, why)), Nothing),
        (Idle { .. }, Event::End(why)) => (Ending(why), Stop(why)),
        (Ending(why), Event::End(_) | Event::Broken(_)) => (Ending(why), Nothing),

        (from @ Starting(_), Event::Taken | Event::Answered | Event::Finished { .. })
        | (from @ Busy(_), Event::Started | Event::Ready { .. } | Event::Taken)
        | (from @ Finishing(_), Event::Started | Event::Ready { .. } | Event::Taken | Event::Answered)
        | (from @ Idle { .. }, Event::Started | Event::Ready { .. } | Event::Answered | Event::Finished { .. })
        | (
            from @ Ending(_),
            Event::Started | Event::Ready { .. } | Event::Taken | Event::Answered | Event::Finished { .. },
        ) => {
            return Err(Impossible { from, event });
        }
    })
}

/// The first reason stays.
fn sooner(then: Then, why: Why) -> Then {
    match then {
        Then::Wait => Then::End(why),
        Then::End(first) => Then::End(first),
    }
}

impl State {
    /// Its name in metrics and in `status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Busy(_) => "busy",
            Self::Finishing(_) => "finishing",
            Self::Idle { .. } => "idle",
            Self::Ending(_) => "ending",
        }
    }
}

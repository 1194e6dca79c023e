//! The pause of a container whose code waits for calls of its own, and says that nothing else goes on in it.
//!
//! ```text
//!            Block                 Due                      Frozen
//!  Running ─────────► Blocked ───────────► Freezing(Stay) ───────────► Frozen
//!   ▲ ▲ ▲               │                  │    │                        │
//!   │ │ └── Unblock ────┘       Failed ────┘    │ Unblock                │ Unblock
//!   │ │                         (to Running)    ▼                        ▼
//!   │ └───────────── Failed ───────── Freezing(GoOn) ─── Frozen ──► Thawing
//!   └─────────────────────────── Thawed ─────────────────────────────────┘
//!                                                              Over, from anywhere ──► Over
//! ```
//!
//! Two sides step it, each with what it knows, and [`step`] is the whole truth. Whoever serves the requests that wait says [`Pause::block`] and
//! [`Pause::go_on`], and writes no answer before the container is [`Pause::running`]. The container's own task does what the state asks for
//! (`rest.rs`): it alone freezes and thaws. A request that is answered while the container freezes waits until that is done, and undone.
//!
//! What comes last counts: a request that begins to wait and says that nothing else goes on speaks for the whole container, and one that does
//! not, one that starts something, or any that ends says the opposite.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Of one invocation.
#[derive(Debug)]
pub struct Pause {
    state: watch::Sender<State>,
}

/// Where the pause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The code does something, for all that is known.
    Running,
    /// It waits, and nothing else goes on.
    Blocked {
        /// When that began.
        since: Instant,
    },
    /// Its processes are being stopped.
    Freezing(Then),
    /// They stand.
    Frozen,
    /// They are being let go on.
    Thawing {
        /// When that was asked for.
        since: Instant,
    },
    /// The invocation has ended.
    Over,
}

/// What follows when they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// They stay so.
    Stay,
    /// They go on at once: something is there for them.
    GoOn {
        /// When that was known.
        since: Instant,
    },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The code waits, and says that nothing else goes on.
    Block,
    /// There is something to do for it.
    Unblock,
    /// It has waited for long enough to be frozen.
    Due,
    /// Its processes stand.
    Frozen,
    /// They could not be stopped, and run.
    Failed,
    /// They run again.
    Thawed,
    /// The invocation has ended.
    Over,
}

/// The new state. What a side says too late changes nothing.
pub(crate) fn step(state: State, event: Event, now: Instant) -> State {
    use State::{Blocked, Freezing, Frozen, Over, Running, Thawing};
    match (state, event) {
        (_, Event::Over) | (Over, _) => Over,
        (Running, Event::Block) => Blocked { since: now },
        (Blocked { .. }, Event::Unblock) => Running,
        (Blocked { .. }, Event::Due) => Freezing(Then::Stay),
        (Freezing(Then::Stay), Event::Unblock) => Freezing(Then::GoOn { since: now }),
        (Freezing(Then::Stay), Event::Frozen) => Frozen,
        (Freezing(Then::GoOn { since }), Event::Frozen) => Thawing { since },
        (Freezing(_), Event::Failed) => Running,
        (Frozen, Event::Unblock) => Thawing { since: now },
        (Thawing { .. }, Event::Thawed) => Running,
        (
            state @ (Running | Blocked { .. } | Freezing(_) | Frozen | Thawing { .. }),
            Event::Block | Event::Unblock | Event::Due | Event::Frozen | Event::Failed | Event::Thawed,
        ) => state,
    }
}

impl State {
    /// Whether the container's processes run, or nobody has to care any more.
    fn runs(self) -> bool {
        match self {
            Self::Running | Self::Blocked { .. } | Self::Over => true,
            Self::Freezing(_) | Self::Frozen | Self::Thawing { .. } => false,
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Running) }
    }
}

impl Pause {
    /// The code waits, and nothing else goes on in its container.
    pub fn block(&self) {
        self.tell(Event::Block);
    }

    /// There is something to do.
    pub fn go_on(&self) {
        self.tell(Event::Unblock);
    }

    /// Returns when the container's processes run, or the invocation has ended.
    pub async fn running(&self) {
        // The sender is ours, so the channel is open.
        let _ = self.state.subscribe().wait_for(|state| state.runs()).await;
    }

    pub(crate) fn tell(&self, event: Event) {
        self.state.send_if_modified(|state| {
            let next = step(*state, event, Instant::now());
            std::mem::replace(state, next) != next
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

/// When a container that blocks since then is to be frozen.
pub(crate) fn due(since: Instant, after: Duration) -> Instant {
    since.checked_add(after).unwrap_or_else(|| since + Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let one = prop_oneof![
            3 => Just(Event::Block), 3 => Just(Event::Unblock), 3 => Just(Event::Due), 3 => Just(Event::Frozen),
            1 => Just(Event::Failed), 3 => Just(Event::Thawed),
        ];
        proptest::collection::vec(one, 0..40)
    }

    proptest! {
        /// The processes as the container's task leaves them: stopped by what it does for `Freezing`, let go on by what it does for `Thawing`.
        #[test]
        fn who_waits_for_it_to_run_never_finds_it_stopped(events in events()) {
            let now = Instant::now();
            let (mut state, mut stopped) = (State::Running, false);
            for event in events {
                // The task says only what it did, and does only what the state asks for.
                match (state, event) {
                    (State::Freezing(_), Event::Frozen) => stopped = true,
                    (State::Thawing { .. }, Event::Thawed) => stopped = false,
                    (_, Event::Frozen | Event::Thawed | Event::Failed) => continue,
                    (_, Event::Block | Event::Unblock | Event::Due | Event::Over) => {}
                }
                let before = state;
                state = step(state, event, now);
                prop_assert!(!(state.runs() && stopped), "{before:?} and {event:?} gave {state:?}");
                let stays = matches!(state, State::Blocked { .. } | State::Frozen | State::Freezing(Then::Stay));
                prop_assert!(event != Event::Unblock || !stays, "who has something to do is not let go on: {state:?}");
                prop_assert_eq!(step(state, Event::Over, now), State::Over);
            }
        }
    }

    #[test]
    fn the_first_moment_counts() {
        let (first, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let blocked = step(State::Running, Event::Block, first);
        assert_eq!(step(blocked, Event::Block, later), State::Blocked { since: first });
        let freezing = step(step(blocked, Event::Due, later), Event::Unblock, first);
        let thawing = step(step(freezing, Event::Unblock, later), Event::Frozen, later);
        assert_eq!(thawing, State::Thawing { since: first });
        assert_eq!(step(thawing, Event::Block, later), thawing, "what is asked for is done first");
    }

    #[tokio::test]
    async fn who_waits_is_let_go_by_the_end() {
        let pause = Pause::default();
        pause.running().await;
        pause.block();
        pause.running().await;
        pause.tell(Event::Due);
        let mut running = std::pin::pin!(pause.running());
        assert!(futures_util::poll!(&mut running).is_pending());
        pause.go_on();
        assert!(futures_util::poll!(&mut running).is_pending());
        pause.tell(Event::Over);
        running.await;
    }
}

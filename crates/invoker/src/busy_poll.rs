//! Looking for the next message instead of sleeping until it comes.
//!
//! A processor that sleeps is woken in 10 to 100 microseconds on a virtual machine, through its host; the node's own work for a warm call is
//! some 30. So while the answer of a call is expected, and for a moment after it, when a caller's next call comes if there is one, no
//! processor sleeps: a task keeps the node's thread looking, and on the others there are threads that only yield (`awake.rs`).
//!
//! Linux does the first for sockets under the name of busy polling (`net.core.busy_poll`, `Documentation/admin-guide/sysctl/net.rst`); here it
//! is the loop of the async runtime that looks, at all sockets at once. The second is what guest halt polling does
//! (`Documentation/virt/guest-halt-polling.rst`) where it is set and the guest's kernel has it.
//!
//! ```text
//! Asleep --a call begins or ends, few run--> Looking --nothing came within the window, or more calls run--> Asleep
//!                                               \--the kernel gave the processor to others--> Asleep, and stays so for a while
//! ```
//!
//! It costs the window, in time of the processors, for each call that stands alone, and nothing where calls crowd: then there is always work,
//! and a processor that looks would be taken from functions. Who yields takes next to nothing from whoever wants to run.

mod awake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use awake::{Awake, Look};

/// A thread that was away for so long gave its processor to somebody who computes: it is not spare, and who asks for it by yielding gets it
/// later than who is woken. What else the node does, such as writing logs, takes less.
const TAKEN: Duration = Duration::from_millis(1);
/// Looks in a row at which no call began or ended, before the other processors are kept awake: where calls crowd they are, and waking a thread
/// for it costs as much as a call.
const IN_VAIN: u32 = 8;
/// How long nothing looks after a thread's processor was taken.
const BACK_OFF: Duration = Duration::from_millis(50);

/// When to look, and until when.
#[derive(Debug)]
pub struct BusyPoll {
    window_nanos: u64,
    /// Calls that may run at once while a processor is kept looking.
    few: u32,
    taken_nanos: u64,
    begun: Instant,
    /// In nanoseconds since `begun`.
    until: AtomicU64,
    look: Arc<Look>,
    /// No looking before then, in nanoseconds since `begun`.
    not_before: AtomicU64,
    wake: Notify,
}

impl BusyPoll {
    /// Looks for `window` after each message while at most `few` calls run. A window of zero never looks.
    pub fn new(window: Duration, few: u32) -> Arc<Self> {
        Self::unless_away(window, few, TAKEN)
    }

    /// The same; `taken` is how long a thread must have been away that had its processor taken.
    fn unless_away(window: Duration, few: u32, taken: Duration) -> Arc<Self> {
        Arc::new(Self {
            window_nanos: nanos(window),
            few,
            taken_nanos: nanos(taken),
            begun: Instant::now(),
            until: AtomicU64::new(0),
            look: Arc::default(),
            not_before: AtomicU64::new(0),
            wake: Notify::new(),
        })
    }

    /// Never looks.
    pub fn off() -> Arc<Self> {
        Self::new(Duration::ZERO, 0)
    }

    /// A message is likely to come soon, with so many calls `running`.
    pub(crate) fn expect(&self, running: u32) {
        if self.window_nanos == 0 {
            return;
        }
        let now = self.nanos();
        if running > self.few || now < self.not_before.load(Ordering::Relaxed) {
            self.until.store(0, Ordering::Relaxed);
            return;
        }
        self.until.store(now.saturating_add(self.window_nanos), Ordering::Relaxed);
        if self.look.begin() {
            self.wake.notify_one();
        }
    }

    /// Looks whenever that is due; never returns. Yielding to the runtime's other tasks makes it ask the kernel for what is ready without
    /// sleeping. Of several threads only the one that holds the runtime's poller could see anything, so it is for runtimes with one.
    pub async fn run(self: Arc<Self>) {
        let mut awake = None;
        loop {
            self.wake.notified().await;
            let (mut last, mut expected, mut in_vain) = (self.nanos(), 0, 0_u32);
            loop {
                let until = self.until.load(Ordering::Relaxed);
                if last >= until {
                    break;
                }
                in_vain = if until == expected { in_vain.saturating_add(1) } else { 0 };
                expected = until;
                self.look.is_from_here();
                if in_vain == IN_VAIN {
                    awake.get_or_insert_with(|| Awake::beside(&self.look)).wake();
                }
                // Who was woken may stand behind this thread.
                std::thread::yield_now();
                tokio::task::yield_now().await;
                let now = self.nanos();
                if self.was_taken(last, now) {
                    break;
                }
                last = now;
            }
            // A message that is expected just now is slept for: a missed chance, not a lost message.
            self.look.end();
        }
    }

    /// Whether the kernel gave the processor to others between two looks; then nothing looks for a while.
    fn was_taken(&self, last: u64, now: u64) -> bool {
        let taken = now.saturating_sub(last) > self.taken_nanos;
        if taken {
            self.not_before.store(now.saturating_add(nanos(BACK_OFF)), Ordering::Relaxed);
        }
        taken
    }

    fn nanos(&self) -> u64 {
        nanos(self.begun.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it looks just now, once its task has had its turns.
    async fn looks(busy_poll: &BusyPoll) -> bool {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        busy_poll.look.is_on()
    }

    #[tokio::test]
    async fn looks_after_a_message_and_stops_when_calls_crowd() {
        // Whatever else this machine does meanwhile.
        let busy_poll = BusyPoll::unless_away(Duration::from_secs(3600), 1, Duration::MAX);
        tokio::spawn(Arc::clone(&busy_poll).run());
        assert!(!looks(&busy_poll).await, "nothing is expected");
        busy_poll.expect(1);
        assert!(looks(&busy_poll).await);
        busy_poll.expect(2);
        assert!(!looks(&busy_poll).await, "two calls run");
        busy_poll.expect(1);
        assert!(busy_poll.look.is_on(), "one again");
        let (expected, there) = awake::tests::expected_and_there();
        assert!(there < expected || expected == 0, "no look has been in vain for long");
        let patience = Instant::now() + Duration::from_secs(10);
        while awake::tests::expected_and_there() != (expected, expected) {
            assert!(Instant::now() < patience, "the other processors are not kept awake");
            assert!(looks(&busy_poll).await);
        }
    }

    #[test]
    fn stops_for_a_while_when_its_processor_is_taken() {
        let busy_poll = BusyPoll::new(Duration::from_secs(3600), 1);
        let now = busy_poll.nanos();
        assert!(!busy_poll.was_taken(now, now + nanos(TAKEN)), "that was the node's own work");
        assert!(busy_poll.was_taken(now, now + nanos(TAKEN) + 1));
        busy_poll.expect(0);
        assert!(!busy_poll.look.is_on(), "not so soon again");
        busy_poll.not_before.store(0, Ordering::Relaxed);
        busy_poll.expect(0);
        assert!(busy_poll.look.is_on());
    }

    #[tokio::test]
    async fn a_window_of_zero_never_looks() {
        let busy_poll = BusyPoll::off();
        busy_poll.expect(0);
        assert!(!busy_poll.look.is_on());
    }
}

//! Whether the processors are all busy.
//!
//! Asked of the kernel (`/proc/stat`), and only while somebody wants to know: a look costs it a walk over its processors.
//!
//! ```text
//! Asleep --asked--> looks every WINDOW --not asked for PATIENCE windows--> Asleep, and nobody is told that they are busy
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Time between two looks.
const WINDOW: Duration = Duration::from_millis(50);
/// Windows for which it is looked without being asked again.
const PATIENCE: u32 = 20;
/// Less than this share of time that no processor had anything to do is none, in percent.
const SPARE_PERCENT: u64 = 20;

/// Processor time since the machine was started, of all processors together, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Time {
    /// In which there was nothing to do.
    idle: u64,
    /// All of it.
    total: u64,
}

/// Asks the kernel of this machine; none where it does not tell.
fn machine() -> Option<Time> {
    read(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of the kernel's file: `cpu user nice system idle iowait irq softirq steal guest guest_nice`, the last two of which are
/// in the first two as well (proc_stat(5)).
fn read(stat: &str) -> Option<Time> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let (Some(idle), Some(iowait)) = (ticks.get(3), ticks.get(4)) else { return None };
    Some(Time { idle: idle.checked_add(*iowait)?, total: ticks.iter().try_fold(0, |sum: u64, t| sum.checked_add(*t))? })
}

/// Whether there was next to nothing to spare between two looks.
fn are_busy(before: Time, after: Time) -> bool {
    let (idle, total) = (after.idle.saturating_sub(before.idle), after.total.saturating_sub(before.total));
    total > 0 && idle.saturating_mul(100) < total.saturating_mul(SPARE_PERCENT)
}

/// The processors of this host, as far as somebody asks.
#[derive(Debug)]
pub(crate) struct Processors {
    pub(crate) count: usize,
    busy: AtomicBool,
    asked: AtomicBool,
    wake: Notify,
}

impl Processors {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let (busy, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { count, busy, asked, wake: Notify::new() })
    }

    /// Those of this machine.
    pub(crate) fn of_machine() -> Arc<Self> {
        Self::new(std::thread::available_parallelism().map_or(2, usize::from))
    }

    /// Whether they are all busy, by the last look; asking has it look again.
    pub(crate) fn are_busy(&self) -> bool {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
        self.busy.load(Ordering::Relaxed)
    }

    /// Looks while it is asked; never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        self.watch_by(machine).await;
    }

    async fn watch_by(&self, look: impl Fn() -> Option<Time>) {
        loop {
            self.wake.notified().await;
            // It may have been asked while it looked.
            if !self.asked.load(Ordering::Relaxed) {
                continue;
            }
            let (mut before, mut unasked) = (look(), 0);
            while unasked < PATIENCE {
                tokio::time::sleep(WINDOW).await;
                let after = look();
                let busy = before.zip(after).is_some_and(|(before, after)| are_busy(before, after));
                self.busy.store(busy, Ordering::Relaxed);
                before = after;
                unasked = if self.asked.swap(false, Ordering::Relaxed) { 0 } else { unasked + 1 };
            }
            self.busy.store(false, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(crate) fn told(count: usize, busy: bool) -> Arc<Self> {
        let processors = Self::new(count);
        processors.busy.store(busy, Ordering::Relaxed);
        processors
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_and_nonsense_is_not() {
        let stat = "cpu  10 1 5 70 4 1 2 7 3 1\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n";
        assert_eq!(read(stat), Some(Time { idle: 74, total: 100 }));
        assert_eq!(read("cpu  10 1 5 70 4\n").unwrap().total, 90, "an older kernel");
        for nonsense in ["", "intr 5\n", "cpu \n", "cpu  a b c d e\n", "cpu  18446744073709551615 1 1 1 1\n"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert!(machine().is_some_and(|now| now.total > 0));
    }

    #[test]
    fn busy_is_next_to_nothing_spare() {
        let at = |idle, total| Time { idle, total };
        assert!(are_busy(at(0, 0), at(19, 100)));
        assert!(!are_busy(at(0, 0), at(20, 100)));
        assert!(!are_busy(at(5, 100), at(5, 100)), "no time went by");
        assert!(!are_busy(at(5, 100), at(0, 0)), "time went back");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_while_somebody_asks() {
        static TICKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let look = || Some(Time { idle: 0, total: TICKS.fetch_add(1, Ordering::Relaxed) });
        let processors = Processors::new(1);
        let watched = Arc::clone(&processors);
        tokio::spawn(async move { watched.watch_by(look).await });
        tokio::time::sleep(WINDOW * 10).await;
        assert_eq!(TICKS.load(Ordering::Relaxed), 0, "nobody asked");
        assert!(!processors.are_busy());
        tokio::time::sleep(WINDOW * 3 / 2).await;
        assert!(processors.are_busy());
        tokio::time::sleep(WINDOW * (PATIENCE + 2)).await;
        let looks = TICKS.load(Ordering::Relaxed);
        tokio::time::sleep(WINDOW * 10).await;
        assert_eq!(TICKS.load(Ordering::Relaxed), looks, "nobody asks any more");
        assert!(!processors.are_busy(), "what is not known is not said");
    }
}

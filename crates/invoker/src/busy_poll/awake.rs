//! Threads that keep the other processors from sleeping while the node's thread looks for messages.
//!
//! Each stays on a processor of its own and yields, again and again. Where no processor sleeps, the kernel puts who is woken beside the thread
//! that woke him or beside one of these; both give way at once, and no processor has to be interrupted. In a guest an interrupt of a
//! sleeping processor goes through the host. Of many processors some sleep all the same, so there it would be for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// Most processors that are kept awake, the node's own with them.
const MOST: usize = 3;

/// Whether the node's thread looks, and where.
#[derive(Debug, Default)]
pub(super) struct Look {
    is_on: AtomicBool,
    processor: AtomicUsize,
}

impl Look {
    /// Whether it was off until now.
    pub(super) fn begin(&self) -> bool {
        !self.is_on.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end(&self) {
        self.is_on.store(false, Ordering::Release);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// The calling thread looks from where it is.
    pub(super) fn is_from_here(&self) {
        if let Ok(processor) = sched_getcpu() {
            self.processor.store(processor, Ordering::Relaxed);
        }
    }
}

/// The threads, which end when this is dropped.
pub(super) struct Awake {
    threads: Vec<Thread>,
    gone: Arc<AtomicBool>,
}

impl Awake {
    /// One for each processor but the one of the node's thread; none where there are too many, or where the kernel gives no more threads.
    pub(super) fn beside(look: &Arc<Look>) -> Self {
        Self::named("awake", look)
    }

    fn named(name: &str, look: &Arc<Look>) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let processors: Arc<[usize]> = processors().into();
        let others = if processors.len() > MOST { 0 } else { processors.len().saturating_sub(1) };
        let threads = (0..others).map_while(|index| {
            let keeper = Keeper { index, processors: processors.clone(), look: look.clone(), gone: gone.clone() };
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || keeper.keep());
            started.ok().map(|handle| handle.thread().clone())
        });
        Self { threads: threads.collect(), gone }
    }

    /// The look goes on, and nobody needs the other processors.
    pub(super) fn wake(&self) {
        self.threads.iter().for_each(Thread::unpark);
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
        self.wake();
    }
}

/// Those that the node may use.
fn processors() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor) == Ok(true)).collect()
}

/// What one of the threads knows.
struct Keeper {
    index: usize,
    processors: Arc<[usize]>,
    look: Arc<Look>,
    gone: Arc<AtomicBool>,
}

impl Keeper {
    fn keep(&self) {
        let mut beside = None;
        while !self.gone.load(Ordering::Acquire) {
            while self.look.is_on() && !self.gone.load(Ordering::Acquire) {
                let looks_from = self.look.processor.load(Ordering::Relaxed);
                if beside.replace(looks_from) != Some(looks_from) {
                    self.keep_off(looks_from);
                }
                std::thread::yield_now();
            }
            std::thread::park();
        }
    }

    /// Goes to a processor that is neither this one nor another such thread's. Where it may not, the kernel's choice is as good as it gets.
    fn keep_off(&self, looks_from: usize) {
        let mut set = CpuSet::new();
        let own = self.processors.iter().filter(|processor| **processor != looks_from).nth(self.index);
        if own.is_some_and(|own| set.set(*own).is_ok()) {
            let _ = sched_setaffinity(Pid::from_raw(0), &set);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const NAME: &str = "awake-test";

    /// Of each thread of this name, this field of proc_pid_stat(5).
    fn found(name: &str, field: usize) -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let fields = stats.filter_map(|stat| {
            // The rest begins with the third field.
            let (_, rest) = stat.split_once(&format!("({name}) "))?;
            rest.split(' ').nth(field - 3).map(str::to_owned)
        });
        let mut fields: Vec<String> = fields.collect();
        fields.sort_unstable();
        fields
    }

    const STATE: usize = 3;
    const PROCESSOR: usize = 39;

    /// How many threads of the node there are to be, and how many there are.
    pub fn expected_and_there() -> (usize, usize) {
        let processors = processors().len();
        (if processors > MOST { 0 } else { processors.saturating_sub(1) }, found("awake", STATE).len())
    }

    fn come_to(field: usize, expected: &[String]) {
        let patience = Instant::now() + Duration::from_secs(10);
        while found(NAME, field) != expected {
            assert!(Instant::now() < patience, "field {field}: {:?}, and should be {expected:?}", found(NAME, field));
            std::thread::yield_now();
        }
    }

    #[test]
    fn each_other_processor_is_kept_awake_wherever_the_look_goes() {
        let processors = processors();
        let look = Arc::new(Look::default());
        let awake = Awake::named(NAME, &look);
        if processors.len() < 2 || processors.len() > MOST {
            assert!(awake.threads.is_empty());
            eprintln!("SKIPPED: {} processors; threads are for 2 to {MOST}", processors.len());
            return;
        }
        assert!(look.begin());
        for looks_from in processors.iter().chain(&processors) {
            look.processor.store(*looks_from, Ordering::Relaxed);
            awake.wake();
            let others = processors.iter().filter(|other| *other != looks_from).map(usize::to_string);
            come_to(PROCESSOR, &others.collect::<Vec<_>>());
        }
        look.end();
        come_to(STATE, &vec!["S".to_owned(); processors.len() - 1]);
        drop(awake);
        come_to(STATE, &[]);
    }
}

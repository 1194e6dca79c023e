//! The clock of the guests: raises the engines' epochs while calls run, and stands still while none does.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

use super::lock;

/// How long a guest runs before others get their turn, and how late a time-out may be noticed.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the clock stands still. Starting it anew costs a call a system call.
const IDLE_TICKS: u32 = 100;

struct State {
    engines: Mutex<Vec<Engine>>,
    running: AtomicUsize,
    ticking: AtomicBool,
}

/// The clock.
pub(super) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

/// A call that runs.
pub(super) struct Running(Arc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Ticker {
    pub(super) fn start() -> io::Result<Self> {
        let state =
            Arc::new(State { engines: Mutex::default(), running: AtomicUsize::new(0), ticking: AtomicBool::new(true) });
        let shared = Arc::clone(&state);
        let handle = std::thread::Builder::new().name("epochs".to_owned()).spawn(move || tick(&shared))?;
        Ok(Self { state, thread: handle.thread().clone() })
    }

    /// Raises this engine's epoch, too.
    pub(super) fn drives(&self, engine: &Engine) {
        let mut engines = lock(&self.state.engines);
        if !engines.iter().any(|known| Engine::same(known, engine)) {
            engines.push(engine.clone());
        }
    }

    /// A call begins.
    pub(super) fn enter(&self) -> Running {
        self.state.running.fetch_add(1, Ordering::AcqRel);
        if !self.state.ticking.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.state))
    }
}

fn tick(state: &State) {
    let mut idle = 0;
    loop {
        std::thread::park_timeout(TICK);
        lock(&state.engines).iter().for_each(Engine::increment_epoch);
        idle = if state.running.load(Ordering::Acquire) == 0 { idle + 1 } else { 0 };
        if idle < IDLE_TICKS {
            continue;
        }
        state.ticking.store(false, Ordering::Release);
        // A call may have come in between; it found the clock ticking and did not wake it.
        while !state.ticking.load(Ordering::Acquire) {
            if state.running.load(Ordering::Acquire) > 0 && !state.ticking.swap(true, Ordering::AcqRel) {
                break;
            }
            std::thread::park();
        }
        idle = 0;
    }
}

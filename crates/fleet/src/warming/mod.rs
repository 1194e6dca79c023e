//! The warming pool: instances that were set up before any request and belong to nobody.
//!
//! An instance is a cell with its agent; in those for Python and Node.js our runtime has loaded itself (for Python: is forked from a loaded
//! [template](templates)) and waits for its order. A cold call
//! takes one ([`Warming::take`]), which makes it a container's for good, or has one built in its way where there is none. One task keeps the
//! pool ([`keep`]): nudged by whoever takes, and by a timer, it looks at the whole state, ends what is too much and makes what is missing.
//!
//! ```text
//! keep ── plan ──► own (one task an instance): build ─► wait ─► hand over ─► container::live
//!   ▲                                            └───────┴─► end
//!   └── nudge: taken, died, a cold start is over
//! ```
//!
//! Bounds: [`PoolConfig`](crate::PoolConfig) says how many of a kind and how much memory together; [`books`] how many are made at once; how
//! many are wanted, the [`forecast`]. Making yields to calls: it begins when no container is being started, or when it has been put off for
//! [`PUT_OFF`] and half of the starts are free. When the host is short of memory ([`pressure`]) the pool goes first, then idle containers.
//!
//! Nothing leaks: an instance is a value that one task owns, its cell is destroyed when it is dropped, and a guard takes it out of the books
//! whatever becomes of the task. What was given to a container never comes back.

mod books;
mod forecast;
mod instance;
mod kind;
pub(crate) mod pressure;
mod state;
mod templates;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambent_model::InstanceId;
use metrics::{counter, gauge};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::PoolConfig;
use crate::fleet::{Inner, KindStatus};
use books::{Books, Command, PROVEN};
pub(crate) use instance::Instance;
pub(crate) use kind::Kind;
use pressure::Pressure;
use state::Event;
use templates::Templates;

/// How often the pool is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How long making instances may be put off by calls that start containers.
const PUT_OFF: Duration = Duration::from_secs(1);

/// The pool, as the rest of the fleet sees it.
pub(crate) struct Warming {
    config: PoolConfig,
    books: Mutex<Books>,
    pub(crate) templates: Templates,
    nudge: Arc<Notify>,
    began: Instant,
}

impl Warming {
    pub(crate) fn new(config: PoolConfig, seed: u64) -> Self {
        let books = Mutex::new(Books::new(config.clone(), seed));
        Self { config, books, templates: Templates::default(), nudge: Arc::default(), began: Instant::now() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whoever notifies this has the pool looked at.
    pub(crate) fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// There is a function that such instances serve.
    pub(crate) fn expect(&self, kind: &Kind) {
        let now = self.now();
        self.books().used(kind, now);
        self.nudge.notify_one();
    }

    /// An instance for a container that is to be made now; none where there is none.
    pub(crate) async fn take(&self, kind: &Kind) -> Option<Instance> {
        let now = self.now();
        self.books().arrived(kind, now);
        // Each round takes one out of the pool, so there are no more rounds than instances.
        let instance = loop {
            let asked = self.books().take(kind, now);
            let Some(given) = asked else { break None };
            if let Ok(instance) = given.await {
                break Some(instance);
            }
        };
        let outcome = if instance.is_some() { "hit" } else { "miss" };
        counter!("lambent_pool_takes_total", "kind" => kind.to_string(), "outcome" => outcome).increment(1);
        self.nudge.notify_one();
        instance
    }

    /// How the host's memory is.
    pub(crate) fn pressure(&self) -> Pressure {
        self.config.pressure.ask()
    }

    /// Each kind.
    pub(crate) fn status(&self) -> Vec<KindStatus> {
        self.books().status()
    }

    /// Makes no more and ends what waits.
    pub(crate) fn close(&self) {
        let now = self.now();
        self.books().close(now);
        self.templates.close();
    }
}

/// Keeps the pool until the fleet closes.
pub(crate) async fn keep(fleet: Arc<Inner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pressure = Pressure::Calm;
    let mut put_off: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = fleet.closing.cancelled() => break,
            () = fleet.warming.nudge.notified() => {}
            _ = ticks.tick() => pressure = relieve(&fleet),
        }
        let now = fleet.warming.now();
        let held = fleet.wasm.spare_mib();
        let missing = {
            let mut books = fleet.warming.books();
            books.hold(held);
            books.plan(now, pressure)
        };
        if missing.is_empty() {
            put_off = None;
            continue;
        }
        let since = *put_off.get_or_insert_with(Instant::now);
        if fleet.starts_are_free(since.elapsed() >= PUT_OFF) {
            put_off = None;
            for kind in missing {
                let (id, commands) = fleet.warming.books().begin(&kind, now);
                fleet.tasks.spawn(own(Arc::clone(&fleet), id, kind, commands));
            }
        }
    }
    fleet.warming.close();
}

/// Looks at the host's memory. When it is short and the pool has given all it had, idle containers go.
fn relieve(fleet: &Inner) -> Pressure {
    let pressure = fleet.warming.pressure();
    gauge!("lambent_pool_pressure").set(if pressure == Pressure::High { 1.0 } else { 0.0 });
    fleet.wasm.under(pressure);
    if pressure == Pressure::High && fleet.warming.books().is_empty() {
        let ended = fleet.pool().relieve();
        if ended > 0 {
            tracing::warn!(containers = ended, "the host is short of memory; ending idle containers");
        }
    }
    pressure
}

/// Takes an instance out of the books when its task is over.
struct Entry {
    fleet: Arc<Inner>,
    id: InstanceId,
}

impl Entry {
    fn tell(&self, event: Event) {
        let now = self.fleet.warming.now();
        self.fleet.warming.books().tell(self.id, event, now);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.fleet.warming.books().forget(self.id);
        self.fleet.warming.nudge.notify_one();
    }
}

/// Owns one instance until it is somebody's, or gone.
async fn own(fleet: Arc<Inner>, id: InstanceId, kind: Kind, mut commands: oneshot::Receiver<Command>) {
    let entry = Entry { fleet: Arc::clone(&fleet), id };
    let built = tokio::select! {
        biased;
        // Dropping what is half made clears it away.
        _told = &mut commands => return,
        built = build(&fleet, &kind) => built,
    };
    let mut instance = match built {
        Built::Yes(instance) => instance,
        Built::Never => return fleet.warming.books().never(&kind),
        Built::No(error) => {
            let again_in = fleet.warming.books().failed(&kind, fleet.warming.now());
            let error = &error as &dyn std::error::Error;
            return tracing::warn!(%kind, error, ?again_in, "an instance for the warming pool cannot be made");
        }
    };
    let began = Instant::now();
    entry.tell(Event::Built);
    fleet.warming.nudge.notify_one();
    tokio::select! {
        biased;
        // First, so that no dead one is handed over.
        () = instance.died() => {
            entry.tell(Event::Broken);
            if began.elapsed() < PROVEN {
                fleet.warming.books().failed(&kind, fleet.warming.now());
            }
            tracing::warn!(%kind, lived = ?began.elapsed(), "an instance of the warming pool died");
            instance.destroy().await;
        }
        command = &mut commands => match command {
            Ok(Command::Give(taker)) => {
                if let Err(instance) = taker.send(instance) {
                    instance.destroy().await;
                }
            }
            Ok(Command::End) | Err(_) => instance.destroy().await,
        },
        () = fleet.kill.cancelled() => instance.destroy().await,
    }
}

/// What came of building.
enum Built {
    Yes(Instance),
    No(lambent_sandbox::Error),
    /// This machine has no such interpreter.
    Never,
}

async fn build(fleet: &Inner, kind: &Kind) -> Built {
    if let Some(runtime) = kind.runtime() {
        fleet.interpreters.ready().await;
        if fleet.interpreters.of(&runtime).is_none() {
            return Built::Never;
        }
    }
    match Instance::build(fleet, kind).await {
        Ok(instance) => Built::Yes(instance),
        Err(error) => Built::No(error),
    }
}

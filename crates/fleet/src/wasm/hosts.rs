//! Which account has which host process, and what that has loaded.
//!
//! ```text
//! spare ── an account's first function ──► its host process ── nothing ran for the idle time, or the node shuts down ──► gone
//!   ▲                                          │ its process ended: found by the next call, which starts another
//!   └── one is started whenever one was taken
//! ```
//!
//! A host process is one account's from its first function to its end. Calls under way keep theirs alive.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lambent_model::{AccountId, FunctionVersion};
use lambent_sandbox::Sandbox;
use lambent_sandbox::wasm::{Function, Host};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::container::meter::Meters;
use crate::fleet::{Inner, WasmHostStatus};
use crate::log::ContainerLog;
use crate::warming::pressure::Pressure;
use crate::{Error, PrepareError};

/// Versions that one host process has loaded; beyond it the one that ran longest ago is unloaded.
const LOADED: usize = 500;
/// How often idle host processes are looked for, in parts of the idle time.
const LOOKS: u32 = 4;

/// What host processes are made of.
pub(super) struct Settings {
    pub program: PathBuf,
    pub directory: PathBuf,
    pub memory_mib: u32,
    pub hosts: usize,
    pub idle: Duration,
    /// Whether one waits for the next account.
    pub keeps_spare: bool,
}

/// A version as one host process has it.
pub(super) struct Loaded {
    /// Its stream; each call writes beside the others.
    pub log: ContainerLog,
    pub meters: Meters,
    /// No call of it has begun yet: the next one is its cold start.
    pub fresh: AtomicBool,
    pub slot: AtomicU64,
    used: AtomicU64,
}

impl Loaded {
    pub(super) fn new(fleet: &Inner, version: &FunctionVersion) -> Arc<Self> {
        Arc::new(Self {
            log: ContainerLog::new(fleet.writer(), version, fleet.clock.now()),
            meters: Meters::of(version),
            fresh: AtomicBool::new(true),
            slot: AtomicU64::new(0),
            used: AtomicU64::new(0),
        })
    }

    pub(super) fn stream(&self) -> String {
        self.log.stream().to_owned()
    }

    /// Its number in the host process.
    pub(super) fn slot(&self) -> u32 {
        u32::try_from(self.slot.load(Ordering::Acquire)).unwrap_or(0)
    }
}

/// An account's host process.
struct Place {
    host: Arc<Host>,
    loaded: HashMap<Uuid, Arc<Loaded>>,
    used: Instant,
}

#[derive(Default)]
struct Account {
    /// Whoever starts or loads something holds it.
    turn: Arc<tokio::sync::Mutex<()>>,
    place: Option<Place>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<AccountId, Account>,
    spare: Option<Arc<Host>>,
    /// A spare one is being started.
    starting: bool,
    /// The machine is short of memory.
    pressed: bool,
    closed: bool,
    uses: u64,
}

/// All host processes of a node.
pub(super) struct Hosts {
    settings: Settings,
    sandbox: Arc<dyn Sandbox>,
    state: Mutex<State>,
    stop: CancellationToken,
    /// Starts of spare ones; the end waits for them, so that none is left behind.
    starts: TaskTracker,
    watched: AtomicBool,
}

impl Hosts {
    pub(super) fn new(settings: Settings, sandbox: Arc<dyn Sandbox>) -> Result<Arc<Self>, PrepareError> {
        // Their processes ended with the node that had started them.
        match std::fs::remove_dir_all(&settings.directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(PrepareError::Io { step: "clear", path: settings.directory, source });
            }
            _ => {}
        }
        let (state, stop) = (Mutex::default(), CancellationToken::new());
        let starts = TaskTracker::new();
        Ok(Arc::new(Self { settings, sandbox, state, stop, starts, watched: AtomicBool::new(false) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host process of an account that has this version loaded.
    pub(super) fn ready(&self, account: &AccountId, generation: Uuid) -> Option<(Arc<Host>, Arc<Loaded>)> {
        let mut state = self.state();
        state.uses += 1;
        let uses = state.uses;
        let place = state.accounts.get_mut(account)?.place.as_mut()?;
        if place.host.is_ended() {
            return None;
        }
        let loaded = Arc::clone(place.loaded.get(&generation)?);
        loaded.used.store(uses, Ordering::Relaxed);
        place.used = Instant::now();
        Some((Arc::clone(&place.host), loaded))
    }

    /// The lock under which an account's host process is started and told what to load.
    pub(super) fn turn(&self, account: &AccountId) -> Result<Arc<tokio::sync::Mutex<()>>, Error> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::ShuttingDown);
        }
        Ok(Arc::clone(&state.accounts.entry(account.clone()).or_default().turn))
    }

    /// Has the account's host process load a function; starts one if there is none. The account's turn is held.
    pub(super) async fn load(
        self: &Arc<Self>,
        version: &FunctionVersion,
        function: Function,
        loaded: Arc<Loaded>,
    ) -> Result<(Arc<Host>, Arc<Loaded>), Error> {
        let account = &version.arn.account;
        let host = match self.live(account) {
            Some(host) => host,
            None => self.start(account).await?,
        };
        let slot = host.load(function).await.map_err(Error::Sandbox)?;
        loaded.slot.store(u64::from(slot), Ordering::Release);
        let mut state = self.state();
        let place = state.accounts.get_mut(account).and_then(|account| account.place.as_mut());
        if let Some(place) = place.filter(|place| place.host.id() == host.id()) {
            if place.loaded.len() >= LOADED {
                place.unload_oldest();
            }
            place.loaded.insert(version.generation, Arc::clone(&loaded));
        }
        Ok((host, loaded))
    }

    fn live(&self, account: &AccountId) -> Option<Arc<Host>> {
        let state = self.state();
        let place = state.accounts.get(account)?.place.as_ref()?;
        (!place.host.is_ended()).then(|| Arc::clone(&place.host))
    }

    /// Gives the account a host process.
    async fn start(self: &Arc<Self>, account: &AccountId) -> Result<Arc<Host>, Error> {
        let (spare, gone) = {
            let mut state = self.state();
            let gone = state.make_room(self.settings.hosts)?;
            (state.spare.take().filter(|host| !host.is_ended()), gone)
        };
        if let Some(host) = gone {
            host.stop().await;
        }
        let host = match spare {
            Some(host) => host,
            None => self.make().await.map_err(Error::Sandbox)?,
        };
        let old = {
            let mut state = self.state();
            let place = Place { host: Arc::clone(&host), loaded: HashMap::new(), used: Instant::now() };
            if state.closed {
                Err(place)
            } else {
                Ok(state.accounts.entry(account.clone()).or_default().place.replace(place))
            }
        };
        match old {
            Err(late) => {
                late.host.stop().await;
                return Err(Error::ShuttingDown);
            }
            Ok(Some(old)) => old.host.stop().await,
            Ok(None) => {}
        }
        tracing::debug!(%account, host = %host.id(), "a wasm host is an account's");
        self.refill();
        if !self.watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).watch());
        }
        Ok(host)
    }

    async fn make(&self) -> Result<Arc<Host>, lambent_sandbox::Error> {
        let Settings { program, directory, memory_mib, .. } = &self.settings;
        let begun = Instant::now();
        let host = Host::start(self.sandbox.as_ref(), program, directory, *memory_mib).await?;
        metrics::histogram!("lambent_wasm_host_start_seconds").record(begun.elapsed());
        Ok(host)
    }

    /// Starts a spare host process in the background, where there is none.
    fn refill(self: &Arc<Self>) {
        {
            let mut state = self.state();
            let unwanted = state.closed || state.pressed || !self.settings.keeps_spare;
            if unwanted || state.spare.is_some() || std::mem::replace(&mut state.starting, true) {
                return;
            }
        }
        let hosts = Arc::clone(self);
        self.starts.spawn(async move {
            let made = hosts.make().await;
            let refused = {
                let mut state = hosts.state();
                state.starting = false;
                match made {
                    Ok(host) if state.closed || state.pressed => Some(host),
                    Ok(host) => {
                        state.spare = Some(host);
                        None
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "no spare wasm host could be started");
                        None
                    }
                }
            };
            if let Some(host) = refused {
                host.stop().await;
            }
        });
    }

    /// Ends host processes that ran nothing for long, until the node shuts down.
    async fn watch(self: Arc<Self>) {
        let every = (self.settings.idle / LOOKS).max(Duration::from_millis(100));
        while self.stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let gone: Vec<Arc<Host>> = {
                let mut state = self.state();
                let idle = |place: &Place| {
                    place.host.is_ended() || (place.host.running() == 0 && place.used.elapsed() >= self.settings.idle)
                };
                let accounts = state.accounts.values_mut();
                accounts.filter_map(|account| Some(account.place.take_if(|place| idle(place))?.host)).collect()
            };
            for host in gone {
                host.stop().await;
            }
        }
    }

    /// What there is.
    pub(super) fn status(&self) -> Vec<(WasmHostStatus, Arc<Host>)> {
        let state = self.state();
        let status = |host: &Arc<Host>, account: Option<&AccountId>, loaded| {
            let (id, account, running) = (host.id(), account.cloned(), host.running());
            (WasmHostStatus { id, account, loaded, running, usage: None }, Arc::clone(host))
        };
        let places = state.accounts.iter().filter_map(|(account, of)| Some((account, of.place.as_ref()?)));
        let owned = places.map(|(account, place)| status(&place.host, Some(account), place.loaded.len()));
        let spare = state.spare.iter().map(|host| status(host, None, 0));
        owned.chain(spare).filter(|(_, host)| !host.is_ended()).collect()
    }

    /// Whether one waits for the next account, or is being started to.
    pub(super) fn has_spare(&self) -> bool {
        let state = self.state();
        state.starting || state.spare.is_some()
    }

    /// Ends one for which there is no need now, while the machine is short of memory; starts the spare one anew when it is over.
    pub(super) fn under(self: &Arc<Self>, pressure: Pressure) {
        let gone = {
            let mut state = self.state();
            let was = std::mem::replace(&mut state.pressed, pressure == Pressure::High);
            match pressure {
                Pressure::High => state.spare.take().or_else(|| state.take_idle()),
                // Of a node without such functions nothing was ever started.
                Pressure::Calm if was && !state.accounts.is_empty() => {
                    drop(state);
                    self.refill();
                    None
                }
                Pressure::Calm => None,
            }
        };
        if let Some(host) = gone {
            tracing::warn!(host = %host.id(), "the host is short of memory; ending a wasm host");
            self.starts.spawn(async move { host.stop().await });
        }
    }

    /// Forgets a version, wherever it is loaded.
    pub(super) fn retire(&self, generation: Uuid) {
        let mut state = self.state();
        for place in state.accounts.values_mut().filter_map(|account| account.place.as_mut()) {
            place.unload(generation);
        }
    }

    /// Ends them all.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        let hosts: Vec<Arc<Host>> = {
            let mut state = self.state();
            state.closed = true;
            let spare = state.spare.take();
            let places = state.accounts.drain().filter_map(|(_, account)| Some(account.place?.host));
            places.chain(spare).collect()
        };
        for host in hosts {
            host.stop().await;
        }
        self.starts.close();
        self.starts.wait().await;
    }
}

impl State {
    /// Makes room for one more; what must be ended for it is returned.
    fn make_room(&mut self, bound: usize) -> Result<Option<Arc<Host>>, Error> {
        let count = self.accounts.values().filter(|account| account.place.is_some()).count();
        if count < bound {
            return Ok(None);
        }
        self.take_idle().map(Some).ok_or(Error::Full { containers: count, memory_mib: 0 })
    }

    /// Takes the host process away in which nothing has run for longest, if there is such a one.
    fn take_idle(&mut self) -> Option<Arc<Host>> {
        let idle = self.accounts.values_mut().filter(|account| account.place.as_ref().is_some_and(Place::is_idle));
        let oldest = idle.min_by_key(|account| account.place.as_ref().map(|place| place.used));
        Some(oldest?.place.take()?.host)
    }
}

impl Place {
    fn is_idle(&self) -> bool {
        self.host.running() == 0
    }

    fn unload(&mut self, generation: Uuid) {
        if let Some(loaded) = self.loaded.remove(&generation) {
            self.host.unload(loaded.slot());
        }
    }

    fn unload_oldest(&mut self) {
        let oldest = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used.load(Ordering::Relaxed));
        if let Some(generation) = oldest.map(|(generation, _)| *generation) {
            self.unload(generation);
        }
    }
}

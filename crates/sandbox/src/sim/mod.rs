//! The back end without isolation: ordinary child processes, for tests and for machines that cannot give more.
//!
//! It keeps the promises of the port that need no privilege: programs start, end, are signalled and are counted; a cell's memory is
//! watched and a process beyond it is killed as [`ExitStatus::OutOfMemory`]; `destroy` leaves nothing. Frozen is who was sent SIGSTOP, which
//! code can tell afterwards (a handler of SIGCONT runs), and another SIGCONT undoes; memory is not reclaimed. What it cannot keep, it
//! does not claim: paths of the inside ([`paths`]) are rewritten to a private directory, but the host's files, network and
//! processes are all in reach, `/tmp` has no size limit, and mounts are not read-only. [`Sandbox::barriers`] says so.
//!
//! Every process carries `LAMBENT_SIM_CELL` in its environment. That mark, not the process group, is how stragglers are found: a
//! daemon leaves its group, but its environment stays. (One that wipes its environment as well escapes; that is what cells are for.)

mod paths;
mod process;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lambent_model::InstanceId;

use crate::error::step;
use crate::gate::Gate;
use crate::order::{self, FORK, ORDER, SPECIALISE, START};
use crate::owner::Owner;
use crate::port::{
    Barrier, BlankSpec, Cell, CellSpec, Mapped, Mount, Order, Process, ProcessSpec, Sandbox, Specialisation, Template,
    TemplateSpec, Usage,
};
use crate::{Error, procfs};
use paths::Paths;
use process::Started;

/// The environment variable that marks every process of a simulated cell.
const MARK: &str = "LAMBENT_SIM_CELL";
/// How often memory is looked at, and how long between two rounds of killing.
const TICK: Duration = Duration::from_millis(20);
/// Rounds of killing before `destroy` gives up on a process the kernel will not end (one stuck in a device, say).
const KILL_ROUNDS: u32 = 250;
/// Rounds of stopping before `freeze` gives up: some process forks faster than it can be stopped, waits for a disk, or for a turn on a
/// busy processor, which it needs to stop.
const STOP_ROUNDS: u32 = 1000;
/// Processes remembered before those that have ended are forgotten.
const REMEMBERED: usize = 256;
/// Directories of one node: this and its [`Owner`].
const PREFIX: &str = "sim-";

/// Makes simulated cells.
#[derive(Debug)]
pub struct Sim {
    parent: PathBuf,
    owner: Owner,
}

impl Sim {
    /// A back end that keeps its cells' private files below `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { parent: directory.into(), owner: Owner::me() }
    }

    fn make(&self, spec: BlankSpec) -> Result<Arc<SimCell>, Error> {
        let home = self.parent.join(format!("{PREFIX}{}", self.owner)).join(spec.id.to_string());
        must_exist(&spec.mounts)?;
        let paths = Paths::make(&home, &spec.mounts).map_err(step("make the cell's directories"))?;
        let paths = Mutex::new(Arc::new(paths));
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(step("listen for the Runtime API"))?;
        let address = listener.local_addr().map_err(step("read the Runtime API's address"))?.to_string();
        let mark = format!("{MARK}={}/{}", self.owner, spec.id);
        let shared = Arc::new(Shared { mark, home, state: Mutex::default(), gate: Gate::default() });
        let watch = tokio::spawn(watch(Arc::downgrade(&shared))).abort_handle();
        Ok(Arc::new(SimCell { id: spec.id, paths, listener: Mutex::new(Some(listener)), address, shared, watch }))
    }
}

fn must_exist(mounts: &[Mount]) -> Result<(), Error> {
    for mount in mounts {
        let missing =
            |source| Error::Step { step: format!("find the mount {}", mount.source.display()).into(), source };
        std::fs::metadata(&mount.source).map_err(missing)?;
    }
    Ok(())
}

#[async_trait]
impl Sandbox for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    async fn create(&self, spec: CellSpec) -> Result<Arc<dyn Cell>, Error> {
        let CellSpec { id, mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network } = spec;
        let cell = self.make(BlankSpec { id, mounts: Vec::new(), memory_mib })?;
        cell.specialise(Specialisation { mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network }).await?;
        Ok(cell)
    }

    async fn blank(&self, spec: BlankSpec) -> Result<Arc<dyn Cell>, Error> {
        self.make(spec).map(|cell| -> Arc<dyn Cell> { cell })
    }

    async fn template(&self, spec: TemplateSpec) -> Result<Arc<dyn Template>, Error> {
        must_exist(&spec.mounts)?;
        Ok(Arc::new(SimTemplate(spec)))
    }

    async fn recover(&self) -> Result<usize, Error> {
        let parent = self.parent.clone();
        let cleanup = move || recover(&parent);
        tokio::task::spawn_blocking(cleanup).await.map_err(|_| Error::Ended)
    }

    fn freezes(&self) -> bool {
        true
    }

    fn barriers(&self) -> Vec<Barrier> {
        let missing = |name, stops| Barrier {
            name,
            stops,
            missing: Some("the sim back end has no isolation".to_owned()),
            advice: Some("use the cell back end".to_owned()),
            required: false,
        };
        vec![
            missing("isolation", "a function from reaching the host's files, processes and network"),
            missing("size of /tmp", "a function from filling the host's disk"),
        ]
    }
}

/// Ends what dead nodes left below `parent`; blocking.
fn recover(parent: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(parent) else { return 0 };
    let mut cells = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|text| text.parse::<Owner>().ok());
        let Some(owner) = owner.filter(|owner| !owner.alive()) else { continue };
        kill_marked(&format!("{MARK}={owner}/"), Vec::new());
        cells += std::fs::read_dir(entry.path()).map_or(0, Iterator::count);
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove a dead node's directory");
        }
    }
    cells
}

/// Kills every process with this mark until none is left, and waits for those that are `ending` already; blocking, bounded.
fn kill_marked(mark: &str, mut ending: Vec<(u32, u64)>) -> bool {
    let mut calm = false;
    for _ in 0..KILL_ROUNDS {
        let marked = procfs::with_environment(mark);
        for (pid, _) in &marked {
            process::kill(*pid, libc::SIGKILL);
            ending.extend(procfs::runs(*pid).map(|start| (*pid, start)));
        }
        // One that is about to end loses its memory, and with it the mark, a moment before.
        ending.retain(|(pid, start)| procfs::runs(*pid) == Some(*start));
        // Twice: for a moment inside of exec a process has no environment, and with it no mark.
        if std::mem::replace(&mut calm, marked.is_empty() && ending.is_empty()) && calm {
            return true;
        }
        #[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when this is done")]
        std::thread::sleep(TICK / 10);
    }
    false
}

/// What the cell's tasks share with its handle.
#[derive(Debug)]
struct Shared {
    mark: String,
    home: PathBuf,
    state: Mutex<State>,
    /// Closed while the cell is frozen.
    gate: Gate,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// Bytes of memory; none while the cell is blank.
    limit: Option<u64>,
    processes: Vec<Arc<Started>>,
    peak: u64,
    oom_kills: u64,
    /// Whether it is to be frozen.
    frozen: bool,
    /// Whether processes were stopped for that.
    stopped: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every process known to be of this cell.
    fn pids(&self) -> Vec<u32> {
        let roots: Vec<u32> = self.state().processes.iter().filter(|p| p.alive()).map(|p| p.pid()).collect();
        let mut pids: Vec<u32> = roots.into_iter().flat_map(procfs::tree).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Stops all processes; blocking, bounded. Given up when the cell is not to be frozen any more.
    fn stop(&self) -> std::io::Result<()> {
        let mut calm = false;
        for _ in 0..STOP_ROUNDS {
            let mut pids: Vec<u32> = procfs::with_environment(&self.mark).into_iter().map(|(pid, _)| pid).collect();
            let mut state = self.state();
            pids.extend(state.processes.iter().filter(|process| process.alive()).map(|process| process.pid()));
            if !state.frozen {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let moving: Vec<u32> = pids.into_iter().filter(|pid| !procfs::is_stopped(*pid)).collect();
            // Twice: one may have been forked between the first look and its parent's stop.
            if std::mem::replace(&mut calm, moving.is_empty()) && calm {
                return Ok(());
            }
            // Under the lock, so that no SIGCONT comes before one of these.
            moving.iter().for_each(|pid| process::kill(*pid, libc::SIGSTOP));
            state.stopped |= !calm;
            drop(state);
            #[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when this is done")]
            std::thread::sleep(TICK / 20);
        }
        Err(std::io::ErrorKind::TimedOut.into())
    }

    /// Lets all processes go on; blocking.
    fn go_on(&self) {
        let mut state = self.state();
        state.frozen = false;
        if std::mem::take(&mut state.stopped) {
            procfs::with_environment(&self.mark).iter().for_each(|(pid, _)| process::kill(*pid, libc::SIGCONT));
        }
    }

    /// Ends it all; blocking. Idempotent.
    fn end(&self) {
        let started = {
            let mut state = self.state();
            state.ended = true;
            state.processes.clone()
        };
        self.gate.open();
        // Those that are known need no mark: one that was started just now may not have it yet.
        let mut ending = Vec::new();
        for process in started.iter().filter(|process| process.alive()) {
            ending.extend(procfs::runs(process.pid()).map(|start| (process.pid(), start)));
            let _ = process.signal(libc::SIGKILL, &self.mark);
        }
        if !kill_marked(&self.mark, ending) {
            tracing::error!(cell = %self.home.display(), "processes of a cell outlive SIGKILL");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.home)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(cell = %self.home.display(), %error, "cannot remove a cell's directory");
        }
        // The node's own directory goes with its last cell; fails, as it should, while others are in it.
        let _ = self.home.parent().map(std::fs::remove_dir);
    }
}

/// Kills the largest process whenever the cell's memory is beyond its limit, as the kernel would.
async fn watch(cell: std::sync::Weak<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(cell) = cell.upgrade() else { return };
        let pids = cell.pids();
        let used = procfs::footprint(&pids).memory_bytes;
        let mut state = cell.state();
        state.peak = state.peak.max(used);
        if state.limit.is_none_or(|limit| used <= limit) {
            continue;
        }
        let largest = pids.iter().copied().max_by_key(|pid| procfs::footprint(&[*pid]).memory_bytes);
        if let Some(pid) = largest {
            state.oom_kills += 1;
            for process in state.processes.iter().filter(|process| process.pid() == pid) {
                process.mark_out_of_memory();
            }
            process::kill(pid, libc::SIGKILL);
        }
    }
}

/// A program to start anew for each fork: the same to whoever orders it, only slower.
struct SimTemplate(TemplateSpec);

impl Template for SimTemplate {
    fn usable(&self) -> bool {
        true
    }
}

/// A simulated cell.
struct SimCell {
    id: InstanceId,
    paths: Mutex<Arc<Paths>>,
    listener: Mutex<Option<TcpListener>>,
    address: String,
    shared: Arc<Shared>,
    watch: tokio::task::AbortHandle,
}

impl Drop for SimCell {
    fn drop(&mut self) {
        self.watch.abort();
        if !self.shared.state().ended {
            self.shared.end();
        }
    }
}

impl SimCell {
    fn paths(&self) -> Arc<Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Cell for SimCell {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn runtime_api_address(&self) -> String {
        self.address.clone()
    }

    fn take_runtime_api(&self) -> Option<TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn inside_path(&self, path: &str) -> String {
        self.paths().rewrite(path)
    }

    async fn specialise(&self, what: Specialisation) -> Result<(), Error> {
        must_exist(&what.mounts)?;
        let mut state = self.shared.state();
        if state.ended {
            return Err(Error::Ended);
        }
        if state.limit.is_some() {
            return Err(step(SPECIALISE)(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut paths).mount(&what.mounts);
        state.limit = Some(u64::from(what.memory_mib) << 20);
        Ok(())
    }

    async fn fork_from(&self, template: &Arc<dyn Template>) -> Result<Process, Error> {
        let template: &dyn std::any::Any = template.as_ref();
        let Some(SimTemplate(TemplateSpec { argv, env, .. })) = template.downcast_ref() else {
            return Err(step(FORK)(std::io::ErrorKind::InvalidInput.into()));
        };
        let (argv, env) = (argv.clone(), env.clone());
        self.spawn(ProcessSpec { argv, env, cwd: "/".into(), log_pipe: true, order_pipe: true }).await
    }

    async fn order(&self, pipe: OwnedFd, order: Order) -> Result<(), Error> {
        if self.shared.state().limit.is_none() {
            return Err(step(ORDER)(std::io::ErrorKind::PermissionDenied.into()));
        }
        order::send(pipe, &process::order(&self.paths(), &self.shared.mark, order))
    }

    async fn spawn(&self, spec: ProcessSpec) -> Result<Process, Error> {
        let _passed = self.shared.gate.pass().await;
        {
            let state = self.shared.state();
            if state.ended {
                return Err(Error::Ended);
            }
            if state.limit.is_none() && !spec.order_pipe {
                return Err(step(START)(std::io::ErrorKind::PermissionDenied.into()));
            }
        }
        let (started, process) = process::start(&self.paths(), &self.shared.mark, spec).await?;
        let mut state = self.shared.state();
        if state.ended {
            // Destroyed while it was starting: `end` may have looked before it was there.
            let _ = started.signal(libc::SIGKILL, &self.shared.mark);
            return Err(Error::Ended);
        }
        // Ended ones are kept a while for what is left of their groups.
        if state.processes.len() > REMEMBERED {
            state.processes.retain(|process| process.alive());
        }
        state.processes.push(started);
        Ok(process)
    }

    async fn signal(&self, pid: u32, signal: i32) -> Result<(), Error> {
        let process = self.shared.state().processes.iter().find(|process| process.pid() == pid).cloned();
        match process {
            Some(process) => process.signal(signal, &self.shared.mark).map_err(step("kill")),
            None => Err(Error::Ended),
        }
    }

    async fn connect(&self, port: u16) -> Result<std::net::TcpStream, Error> {
        let _passed = self.shared.gate.pass().await;
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(step("connect"))?;
        stream.into_std().map_err(step("connect"))
    }

    async fn usage(&self) -> Result<Usage, Error> {
        let used = procfs::footprint(&self.shared.pids());
        let mut state = self.shared.state();
        if state.ended {
            return Err(Error::Ended);
        }
        state.peak = state.peak.max(used.memory_bytes);
        Ok(Usage {
            memory_bytes: used.memory_bytes,
            memory_peak_bytes: state.peak,
            cpu: used.cpu,
            oom_kills: state.oom_kills,
            processes: used.threads,
        })
    }

    async fn mapped(&self) -> Result<Mapped, Error> {
        let pids = self.shared.pids();
        Ok(tokio::task::spawn_blocking(move || procfs::mapped(&pids)).await.unwrap_or_default())
    }

    async fn set_milli_cpus(&self, _milli_cpus: u32) -> Result<(), Error> {
        Ok(())
    }

    async fn prepare_to_freeze(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn freeze(&self) -> Result<(), Error> {
        if self.shared.state().ended {
            return Err(Error::Ended);
        }
        if !self.shared.gate.close() {
            return Err(step("freeze")(std::io::ErrorKind::ResourceBusy.into()));
        }
        self.shared.state().frozen = true;
        let shared = Arc::clone(&self.shared);
        let stopped = tokio::task::spawn_blocking(move || shared.stop().inspect_err(|_| shared.go_on())).await;
        let stopped = stopped.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(step("freeze"));
        if stopped.is_err() {
            self.shared.gate.open();
        }
        stopped
    }

    async fn thaw(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let gone_on = tokio::task::spawn_blocking(move || shared.go_on()).await;
        self.shared.gate.open();
        gone_on.map_err(|_| step("thaw")(std::io::ErrorKind::Interrupted.into()))
    }

    async fn reclaim(&self) -> Result<u64, Error> {
        Ok(0)
    }

    async fn destroy(&self) {
        self.watch.abort();
        let shared = self.shared.clone();
        if tokio::task::spawn_blocking(move || shared.end()).await.is_err() {
            tracing::error!(cell = %self.id, "the clean-up of a cell did not end");
        }
    }
}

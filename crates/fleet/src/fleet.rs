//! The fleet itself: what it is made of, its door, its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use lambent_model::function::Runtime;
use lambent_model::{Clock, ContainerId, FunctionVersion};
use lambent_runtime_api::Services;
use lambent_sandbox::{Cell, Mapped, Sandbox, Usage};
use lambent_store::{Blobs, Logs};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::bootstraps::Bootstraps;
use crate::code::CodeCache;
use crate::container::Job;
use crate::dispatch::Turns;
use crate::interpreters::Interpreters;
use crate::log::{LogWriter, start_writer};
use crate::placement::{Bounds, Patience, Pool, Room};
use crate::processors::Processors;
use crate::provisioned::{self, Provisioned, Provisioning};
use crate::snapshots::{SnapStart, SnapshotStatus, Snapshots};
use crate::stage::StageMeters;
use crate::warming::{self, Kind, Warming};
use crate::wasm::Wasm;
use crate::{AffinityStatus, Call, Error, FleetConfig, PrepareError, Running};

/// How long containers may take to end after they were told to for good: more than the longest shutdown window.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What one container is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// The function's ARN, with version.
    pub function: String,
    /// Whom it serves, where the function isolates tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `starting`, `busy`, `frozen` (its code waits for calls of its own), `finishing`, `idle` or `ending`.
    pub state: &'static str,
    /// Memory promised to it.
    pub memory_mib: u32,
    /// Calls it was given.
    pub calls: u64,
    /// How long ago it was begun.
    pub age_ms: u64,
    /// What it uses; none where that was not asked for, or it has no cell (yet, or any more).
    pub usage: Option<ContainerUsage>,
}

/// What one container, or a host process of WebAssembly functions, uses of its host, its agent included.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct ContainerUsage {
    /// CPU time so far.
    pub cpu_ms: u64,
    /// Memory charged to it.
    pub memory_bytes: u64,
    /// Most memory ever charged to it.
    pub memory_peak_bytes: u64,
    /// Memory that its end would give back.
    pub private_bytes: u64,
    /// Its share of memory that others map too.
    pub shared_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

impl ContainerUsage {
    pub(crate) fn of(usage: &Usage, mapped: &Mapped) -> Self {
        Self {
            cpu_ms: millis(usage.cpu),
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            private_bytes: mapped.private_bytes,
            shared_bytes: mapped.shared_bytes,
            processes: usage.processes,
        }
    }
}

/// The instances of one kind that belong to nobody.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KindStatus {
    /// The runtime, for Node.js with the memory it was started for.
    pub kind: String,
    /// Ready for whoever comes.
    pub waiting: usize,
    /// Being made.
    pub building: usize,
    /// How many should wait.
    pub target: usize,
}

/// What a fleet is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FleetStatus {
    /// All containers.
    pub containers: Vec<ContainerStatus>,
    /// Memory promised to them together, but to those that are frozen and beside the node's bounds.
    pub memory_mib: u64,
    /// The bound of that.
    pub memory_limit_mib: u64,
    /// The warming pool, kind by kind.
    pub warming: Vec<KindStatus>,
    /// What affinity does for each function version that has calls with values.
    pub affinity: Vec<AffinityStatus>,
    /// Host processes of WebAssembly functions.
    pub wasm_hosts: Vec<WasmHostStatus>,
    /// Snapshots of versions that ask for them.
    pub snapshots: Vec<SnapshotStatus>,
}

/// What a host process of WebAssembly functions is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct WasmHostStatus {
    /// Its id.
    pub id: lambent_model::InstanceId,
    /// Whose it is; none of the one that waits for whoever comes next.
    pub account: Option<lambent_model::AccountId>,
    /// Function versions it has loaded.
    pub loaded: usize,
    /// Calls under way.
    pub running: usize,
    /// What it uses; none where that was not asked for, or it has just ended.
    pub usage: Option<ContainerUsage>,
}

/// Runs calls in containers.
pub struct Fleet {
    inner: Arc<Inner>,
    log_task: Mutex<Option<JoinHandle<()>>>,
}

/// What the tasks of containers share.
pub(crate) struct Inner {
    pub(crate) config: FleetConfig,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// Whether the host can freeze containers.
    pub(crate) freezes: bool,
    pub(crate) code: Arc<CodeCache>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) interpreters: Interpreters,
    pub(crate) bootstraps: Bootstraps,
    pub(crate) stages: StageMeters,
    /// The cells of containers, for those who want to know what they use.
    cells: Mutex<HashMap<ContainerId, Weak<dyn Cell>>>,
    pub(crate) wasm: Arc<Wasm>,
    /// Ends everything at once, running calls included.
    pub(crate) kill: CancellationToken,
    /// Ends what goes on behind the calls.
    pub(crate) closing: CancellationToken,
    pub(crate) warming: Warming,
    pub(crate) snapshots: Snapshots,
    pub(crate) provisioning: Provisioning,
    pub(crate) tasks: TaskTracker,
    pool: Mutex<Pool>,
    pub(crate) turns: Turns,
    /// What answers the SDKs inside; set once, when a node is put together.
    pub(crate) services: OnceLock<Arc<dyn Services>>,
    /// Taken when the fleet has shut down: the writer ends when nobody can push any more.
    writer: Mutex<Option<LogWriter>>,
}

impl Fleet {
    /// A fleet on this machine. Writes the bootstraps and cleans up after an earlier process.
    pub async fn new(
        config: FleetConfig,
        sandbox: Arc<dyn Sandbox>,
        blobs: Arc<dyn Blobs>,
        logs: Arc<dyn Logs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, PrepareError> {
        match sandbox.recover().await {
            Ok(0) => {}
            Ok(cells) => tracing::warn!(cells, "ended what an earlier process left behind"),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot end what an earlier process left behind"
                );
            }
        }
        let root = config.data_dir.clone();
        let unopened =
            |source| PrepareError::Io { step: "make room for snapshots", path: config.data_dir.clone(), source };
        let snapshots = Snapshots::open(&root).map_err(unopened)?;
        let io = |source| PrepareError::Io { step: "write the bootstraps", path: config.data_dir.clone(), source };
        let bootstraps = tokio::task::spawn_blocking(move || Bootstraps::write(&root));
        let interpreters =
            Interpreters::new(config.interpreter_dirs.clone(), config.data_dir.join("interpreters.json"));
        let wasm = Wasm::new(&config, Arc::clone(&sandbox), Arc::clone(&blobs)).await?;
        let code = CodeCache::open(config.data_dir.clone(), config.code_cache_bytes, blobs);
        let (bootstraps, code) = tokio::join!(bootstraps, code);
        let bootstraps = bootstraps.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(io)?;
        let (writer, log_task) = start_writer(logs);
        let affinity = Bounds { idle: config.idle_timeout, keep: config.affinity_keep, wait: config.affinity_wait };
        let FleetConfig { max_containers: containers, memory_mib, scaling, most_frozen: frozen, .. } = config;
        let room = Room { containers, memory_mib, scaling, frozen, affinity };
        let (pool, turns, processors) = (config.pool.clone(), Turns::default(), Processors::of_machine());
        let inner = Arc::new(Inner {
            config,
            freezes: sandbox.freezes(),
            sandbox,
            code: code?,
            clock,
            interpreters,
            bootstraps,
            stages: StageMeters::new(),
            cells: Mutex::default(),
            wasm,
            kill: CancellationToken::new(),
            closing: CancellationToken::new(),
            provisioning: Provisioning::default(),
            snapshots,
            warming: Warming::new(pool, Uuid::new_v4().as_u64_pair().0),
            tasks: TaskTracker::new(),
            pool: Mutex::new(Pool::new(room, Arc::clone(&turns.room), Arc::clone(&processors))),
            turns,
            services: OnceLock::new(),
            writer: Mutex::new(Some(writer)),
        });
        inner.tasks.spawn(provisioned::keep(Arc::clone(&inner)));
        let (closing, watch) = (inner.closing.clone(), processors.watch());
        inner.tasks.spawn(async move { closing.run_until_cancelled(watch).await.unwrap_or_default() });
        if inner.config.pool.ceiling > 0 {
            inner.tasks.spawn(warming::keep(Arc::clone(&inner)));
        }
        Ok(Arc::new(Self { inner, log_task: Mutex::new(Some(log_task)) }))
    }

    /// Returns when it is known what this machine can run. The first call looks for it, which takes a moment.
    pub async fn ready(&self) {
        self.inner.interpreters.ready().await;
    }

    /// What this machine can run; complete after [`Self::ready`].
    pub fn runtimes(&self) -> Vec<Runtime> {
        self.inner.interpreters.runtimes()
    }

    /// Unpacks code and layers into the cache.
    pub async fn prepare(&self, version: &FunctionVersion) -> Result<(), PrepareError> {
        if version.runtime == Runtime::Wasm {
            return self.inner.wasm.prepare(&self.inner, version).await;
        }
        self.expect(version);
        self.inner.code.of(version).await.map(drop)
    }

    /// Has the snapshot of a version taken that asks for it. An error says how its init failed; that there can be none is no error.
    pub async fn snapshot(&self, version: &FunctionVersion) -> Result<(), String> {
        self.inner.snapshot(version).await
    }

    /// Has the snapshots of these versions taken in the background, in this order and ahead of any call, as far as memory and disk go. Ends
    /// with how many were begun.
    pub fn snapshot_ahead(&self, versions: Vec<Arc<FunctionVersion>>) -> JoinHandle<usize> {
        self.inner.snapshot_ahead(versions)
    }

    /// What became of the snapshot of a version that asks for one.
    pub fn snap_start(&self, generation: Uuid) -> SnapStart {
        self.inner.snapshots.what_of(generation)
    }

    /// Runs a call in the most recently used warm container of this version, else in a new one. Returns at once; an accepted call runs
    /// to its end also when nobody waits for its answer.
    pub async fn invoke(&self, version: Arc<FunctionVersion>, call: Call) -> Result<Running, Error> {
        let (job, running) = Job::new(call);
        if !matches!(version.runtime, Runtime::Provided(_)) {
            self.ready().await;
        }
        if version.runtime == Runtime::Wasm {
            return self.inner.run_wasm(version, job).map(|()| running);
        }
        match self.inner.dispatch(&version, job, Patience::Some) {
            Ok(()) => Ok(running),
            Err((_job, error)) => Err(error),
        }
    }

    /// Has these services answer the SDKs in containers that are made from now on.
    pub fn serve_inside(&self, services: Arc<dyn Services>) {
        // A second call changes nothing.
        let _ = self.inner.services.set(services);
    }

    /// There is such a function: from now on instances that can serve it are kept ready.
    pub fn expect(&self, version: &FunctionVersion) {
        if let Some(kind) = Kind::of(version) {
            self.inner.warming.expect(&kind);
        }
    }

    /// Provisioned concurrency, all of it: how many containers of each version are to be kept initialised. What was said before is forgotten.
    pub fn provision(&self, wanted: Vec<(Arc<FunctionVersion>, u32)>) {
        self.inner.provisioning.wish(wanted);
    }

    /// What became of the provisioned concurrency of a version.
    pub fn provisioned(&self, generation: Uuid) -> Provisioned {
        self.inner.provisioned(generation)
    }

    /// Ends the containers of a replaced or deleted version: idle ones now, busy ones after their call.
    pub fn retire(&self, generation: Uuid) {
        self.inner.wasm.retire(generation);
        self.inner.snapshots.forget(generation);
        self.inner.pool().retire(generation);
    }

    /// What there is.
    pub fn status(&self) -> FleetStatus {
        let pool = self.inner.pool();
        FleetStatus {
            containers: pool.containers(),
            memory_mib: pool.memory_mib(),
            affinity: pool.affinity(),
            memory_limit_mib: self.inner.config.memory_mib,
            wasm_hosts: self.inner.wasm.status(),
            warming: self.inner.warming.status(),
            snapshots: self.inner.snapshots.status(),
        }
    }

    /// What there is, and what each container uses. The kernel has to walk the containers' memory for that.
    pub async fn status_with_usage(&self) -> FleetStatus {
        let mut status = self.status();
        for container in &mut status.containers {
            let cell = self.inner.cells().get(&container.id).and_then(Weak::upgrade);
            let Some(cell) = cell else { continue };
            let (Ok(usage), Ok(mapped)) = (cell.usage().await, cell.mapped().await) else { continue };
            container.usage = Some(ContainerUsage::of(&usage, &mapped));
        }
        status.wasm_hosts = self.inner.wasm.status_with_usage().await;
        status
    }

    /// Lets running calls end within `grace`, then ends every container and writes the last of the logs.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.pool().close();
        self.inner.closing.cancel();
        self.inner.warming.close();
        self.inner.tasks.close();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("calls are still running at the end of the grace time; they are given up");
            self.inner.kill.cancel();
            if tokio::time::timeout(END_WITHIN, self.inner.tasks.wait()).await.is_err() {
                tracing::error!("containers do not end");
            }
        }
        self.inner.wasm.shutdown().await;
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.log_task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && tokio::time::timeout(END_WITHIN, task).await.is_err()
        {
            tracing::error!("the last log lines could not be written in time");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.inner.closing.cancel();
    }
}

impl Inner {
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of containers.
    pub(crate) fn cells(&self) -> MutexGuard<'_, HashMap<ContainerId, Weak<dyn Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way to the log. After shutdown one that leads nowhere.
    pub(crate) fn writer(&self) -> LogWriter {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.clone().unwrap_or_else(LogWriter::nowhere)
    }

    /// Runs a call of a WebAssembly function, in a task.
    fn run_wasm(self: &Arc<Self>, version: Arc<FunctionVersion>, job: Box<Job>) -> Result<(), Error> {
        if self.pool().is_closed() {
            return Err(Error::ShuttingDown);
        }
        self.tasks.spawn(crate::wasm::run(Arc::clone(self), version, job));
        Ok(())
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! The fleet itself: from a call to a container's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lambent_model::function::Runtime;
use lambent_model::{Clock, ContainerId, FunctionVersion};
use lambent_sandbox::{Cell, Sandbox};
use lambent_store::{Blobs, Logs};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::bootstraps::Bootstraps;
use crate::code::CodeCache;
use crate::container::{self, Command, Job};
use crate::interpreters::Interpreters;
use crate::log::{LogWriter, start_writer};
use crate::placement::{Handle, Patience, Placement, Pool, Purpose, Room, SOON};
use crate::provisioned::{self, Provisioned, Provisioning};
use crate::stage::StageMeters;
use crate::warming::{self, Kind, Warming};
use crate::wasm::Wasm;
use crate::{Call, Error, FleetConfig, PrepareError, Running, Stage};

/// How long containers may take to end after they were told to for good: more than the longest shutdown window.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How long a starting container counts among those that start at once.
const START_TURN: Duration = Duration::from_secs(1);

/// Containers that start at once: twice the processors, because starting is partly waiting.
fn starts_at_once() -> usize {
    2 * std::thread::available_parallelism().map_or(2, usize::from)
}

/// What one container is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// The function's ARN, with version.
    pub function: String,
    /// `starting`, `busy`, `finishing`, `idle` or `ending`.
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

/// What one container uses of its host, its agent included.
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
    /// Memory promised to them together.
    pub memory_mib: u64,
    /// The bound of that.
    pub memory_limit_mib: u64,
    /// The warming pool, kind by kind.
    pub warming: Vec<KindStatus>,
    /// Host processes of WebAssembly functions.
    pub wasm_hosts: Vec<WasmHostStatus>,
}

/// What a host process of WebAssembly functions is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct WasmHostStatus {
    /// Its id.
    pub id: lambent_model::InstanceId,
    /// Whose it is.
    pub account: lambent_model::AccountId,
    /// Function versions it has loaded.
    pub loaded: usize,
    /// Calls under way.
    pub running: usize,
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
    pub(crate) provisioning: Provisioning,
    pub(crate) tasks: TaskTracker,
    pool: Mutex<Pool>,
    starts: Arc<Semaphore>,
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
        let io = |source| PrepareError::Io { step: "write the bootstraps", path: config.data_dir.clone(), source };
        let bootstraps = tokio::task::spawn_blocking(move || Bootstraps::write(&root));
        let interpreters =
            Interpreters::new(config.interpreter_dirs.clone(), config.data_dir.join("interpreters.json"));
        let wasm = Wasm::new(&config, Arc::clone(&sandbox), Arc::clone(&blobs)).await?;
        let code = CodeCache::open(config.data_dir.clone(), config.code_cache_bytes, blobs);
        let (bootstraps, code) = tokio::join!(bootstraps, code);
        let bootstraps = bootstraps.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(io)?;
        let (writer, log_task) = start_writer(logs);
        let room = Room { containers: config.max_containers, memory_mib: config.memory_mib };
        let pool = config.pool.clone();
        let inner = Arc::new(Inner {
            config,
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
            warming: Warming::new(pool, Uuid::new_v4().as_u64_pair().0),
            tasks: TaskTracker::new(),
            pool: Mutex::new(Pool::new(room)),
            starts: Arc::new(Semaphore::new(starts_at_once())),
            writer: Mutex::new(Some(writer)),
        });
        inner.tasks.spawn(provisioned::keep(Arc::clone(&inner)));
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
        self.inner.pool().retire(generation);
    }

    /// What there is.
    pub fn status(&self) -> FleetStatus {
        let pool = self.inner.pool();
        FleetStatus {
            containers: pool.containers(),
            memory_mib: pool.memory_mib(),
            memory_limit_mib: self.inner.config.memory_mib,
            wasm_hosts: self.inner.wasm.status(),
            warming: self.inner.warming.status(),
        }
    }

    /// What there is, and what each container uses. The kernel has to walk the containers' memory for that.
    pub async fn status_with_usage(&self) -> FleetStatus {
        let mut status = self.status();
        for container in &mut status.containers {
            let cell = self.inner.cells().get(&container.id).and_then(Weak::upgrade);
            let Some(cell) = cell else { continue };
            let (Ok(usage), Ok(mapped)) = (cell.usage().await, cell.mapped().await) else { continue };
            container.usage = Some(ContainerUsage {
                cpu_ms: millis(usage.cpu),
                memory_bytes: usage.memory_bytes,
                memory_peak_bytes: usage.memory_peak_bytes,
                private_bytes: mapped.private_bytes,
                shared_bytes: mapped.shared_bytes,
                processes: usage.processes,
            });
        }
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

/// A call that could not be placed, handed back.
type Refused = (Box<Job>, Error);

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

    /// Gives a call to a container. Waits for nothing: what may take time is done by a task.
    fn dispatch(
        self: &Arc<Self>,
        version: &Arc<FunctionVersion>,
        mut job: Box<Job>,
        patience: Patience,
    ) -> Result<(), Refused> {
        if let Err(error) = self.can_run(version) {
            return Err((job, error));
        }
        loop {
            // The lock is free again before the placement is looked at.
            let placement = self.pool().place(version, patience);
            job.stages.end(Stage::Placement);
            let (error, back) = match placement {
                Placement::Warm(handle) => match hand_over(&handle, job) {
                    Ok(()) => return Ok(()),
                    // It broke since; it tells the pool by itself.
                    Err(back) => {
                        job = back;
                        continue;
                    }
                },
                Placement::Soon(free) => {
                    let waiting = Arc::clone(self).wait_until_free(Arc::clone(version), job, free);
                    self.tasks.spawn(waiting);
                    return Ok(());
                }
                Placement::Fresh => match Arc::clone(&self.starts).try_acquire_owned() {
                    Ok(turn) => return self.start(version, job, turn),
                    Err(_taken) => {
                        let free = self.pool().queue(version);
                        self.tasks.spawn(Arc::clone(self).wait_for_turn(Arc::clone(version), job, free));
                        return Ok(());
                    }
                },
                Placement::Closed => (Error::ShuttingDown, job),
            };
            return Err((back, error));
        }
    }

    /// A call that waits a moment for a container that is about to be free.
    async fn wait_until_free(
        self: Arc<Self>,
        version: Arc<FunctionVersion>,
        mut job: Box<Job>,
        mut free: oneshot::Receiver<Handle>,
    ) {
        let handle = match tokio::time::timeout(SOON, &mut free).await {
            Ok(handle) => handle.ok(),
            Err(_elapsed) => {
                free.close();
                free.try_recv().ok()
            }
        };
        job.stages.end(Stage::Queue);
        let job = match handle {
            Some(handle) => match hand_over(&handle, job) {
                Ok(()) => return,
                Err(job) => job,
            },
            None => job,
        };
        if let Err((job, error)) = self.dispatch(&version, job, Patience::None) {
            job.refuse(error);
        }
    }

    /// A call whose container ended before it began it.
    pub(crate) fn dispatch_again(self: &Arc<Self>, version: &Arc<FunctionVersion>, job: Box<Job>) {
        if let Err((job, error)) = self.dispatch(version, job, Patience::None) {
            job.refuse(error);
        }
    }

    /// A call that waits for its turn to start a container, or for one of its version that becomes free before.
    async fn wait_for_turn(
        self: Arc<Self>,
        version: Arc<FunctionVersion>,
        mut job: Box<Job>,
        mut free: oneshot::Receiver<Handle>,
    ) {
        let (mut handle, mut turn) = (None, None);
        tokio::select! {
            biased;
            Ok(freed) = &mut free => handle = Some(freed),
            granted = Arc::clone(&self.starts).acquire_owned() => turn = granted.ok(),
        }
        if handle.is_none() {
            free.close();
            handle = free.try_recv().ok();
        }
        job.stages.end(Stage::Queue);
        let job = match handle {
            Some(handle) => match hand_over(&handle, job) {
                Ok(()) => return,
                Err(job) => job,
            },
            None => job,
        };
        let placed = match turn {
            Some(turn) => self.start(&version, job, turn),
            None => self.dispatch(&version, job, Patience::None),
        };
        if let Err((job, error)) = placed {
            job.refuse(error);
        }
    }

    /// Starts a container's task. `turn` is given back when its init phase is over, or has lasted so long that it is not the processor
    /// it waits for.
    fn start(
        self: &Arc<Self>,
        version: &Arc<FunctionVersion>,
        job: Box<Job>,
        turn: OwnedSemaphorePermit,
    ) -> Result<(), Refused> {
        let place = self.pool().begin(version, Purpose::Call);
        let Some((id, commands)) = place else { return Err((job, self.full())) };
        let task = container::run(Arc::clone(self), id, Arc::clone(version), job, commands, self.hold(turn));
        self.tasks.spawn(task);
        Ok(())
    }

    /// Starts a container that no call waits for, when its turn has come.
    pub(crate) async fn start_ahead(self: &Arc<Self>, version: Arc<FunctionVersion>) -> Result<(), Error> {
        self.interpreters.ready().await;
        self.can_run(&version)?;
        let turn = Arc::clone(&self.starts).acquire_owned().await.map_err(|_closed| Error::ShuttingDown)?;
        let place = self.pool().begin(&version, Purpose::Provisioned);
        let Some((id, commands)) = place else { return Err(self.full()) };
        self.tasks.spawn(container::run_ahead(Arc::clone(self), id, version, commands, self.hold(turn)));
        Ok(())
    }

    fn hold(&self, turn: OwnedSemaphorePermit) -> Turn {
        Turn::hold(turn, self.warming.nudge())
    }

    /// Whether instances may be made without taking the processor from calls: no container is being started; `half`: half of the starts
    /// are free.
    pub(crate) fn starts_are_free(&self, half: bool) -> bool {
        let free = self.starts.available_permits();
        if half { free * 2 >= starts_at_once() } else { free >= starts_at_once() }
    }

    fn can_run(&self, version: &FunctionVersion) -> Result<(), Error> {
        match version.runtime {
            Runtime::Provided(_) => Ok(()),
            Runtime::Python { .. } | Runtime::Node { .. } if self.interpreters.of(&version.runtime).is_some() => Ok(()),
            Runtime::Python { .. } | Runtime::Node { .. } | Runtime::Wasm => {
                let found: Vec<String> = self.interpreters.runtimes().iter().map(Runtime::to_string).collect();
                Err(Error::NoRuntime { runtime: version.runtime.to_string(), found: found.join(", ") })
            }
        }
    }

    fn full(&self) -> Error {
        let pool = self.pool();
        if pool.is_closed() {
            return Error::ShuttingDown;
        }
        Error::Full { containers: pool.len(), memory_mib: pool.memory_mib() }
    }
}

/// One of the few starts at a time. Ends when dropped, and by itself after [`START_TURN`].
pub(crate) struct Turn(#[allow(dead_code, reason = "its drop is what counts")] oneshot::Sender<()>);

impl Turn {
    fn hold(turn: OwnedSemaphorePermit, over: Arc<Notify>) -> Self {
        let (dropped, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(START_TURN, ended).await;
            drop(turn);
            over.notify_one();
        });
        Self(dropped)
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Gives a call to a container's task; hands it back where that has ended.
fn hand_over(handle: &Handle, job: Box<Job>) -> Result<(), Box<Job>> {
    handle.commands.try_send(Command::Run(job)).map_err(|refused| {
        tracing::debug!(container = %handle.id, "a container ended just before a call came to it");
        match refused.into_inner() {
            Command::Run(job) => job,
            Command::End(_) => unreachable!("what was sent comes back"),
        }
    })
}

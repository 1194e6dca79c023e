//! A cell with its processes, pipes and Runtime API: what a container holds while it lives.

use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use lambent_model::{ContainerId, FunctionVersion, limits};
use lambent_runtime_api::{Connect, ExtensionKind, Identity, Init, InitializationType, RuntimeApi, ShutdownReason};
use lambent_sandbox::{Cell, ExitStatus, Mount, Order, Process, ProcessSpec, Specialisation, Template};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fault::Fault;
use super::state::Why;
use crate::code::Code;
use crate::environment::{self, Access, OPT, Place, TASK};
use crate::fleet::Inner;
use crate::log::{ContainerLog, Pipes, Source};
use crate::snapshots::Snapshot;
use crate::warming::{Instance, Kind};
use crate::{Error, Stage, Stages, log};

/// Signals are numbers in the sandbox's port.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Why something in a container did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// The function's doing.
    Function(Fault),
    /// The node's.
    Node(Error),
}

/// A live cell.
pub(super) struct Live {
    pub cell: Arc<dyn Cell>,
    pub api: Arc<RuntimeApi>,
    pipes: Pipes,
    children: Vec<Child>,
    /// When the runtime was there to load the function.
    pub runtime_started: Option<std::time::Instant>,
    /// The runtime, where it waits for its order.
    waiting: Option<Process>,
    /// What that was forked from, where it was.
    pub template: Option<Weak<dyn Template>>,
    /// When its credentials are so near their end that another container should take its calls.
    pub due: Option<Instant>,
    /// What it is to become a clone of; none: an ordinary start.
    pub snapshot: Option<Arc<Snapshot>>,
}

struct Child {
    /// The extension's name; none: the runtime.
    extension: Option<String>,
    pid: u32,
    exit: oneshot::Receiver<ExitStatus>,
}

/// Lets the Runtime API reach telemetry subscribers inside the cell.
struct Inside(Arc<dyn Cell>);

/// How long the credentials in a container's environment are good; what they are on Lambda.
const CREDENTIALS_LIFE: Duration = Duration::from_secs(12 * 3600);
/// A container with less left takes no more calls: more than the longest time-out.
const CREDENTIALS_LEFT: Duration = Duration::from_secs(3600);

/// Where a clone finds what it is to become.
const SNAPSHOT: &str = "/var/snapshot";

/// What an initialising function may use at least, whatever its memory: Lambda, too, starts small functions on full CPUs, and at its own
/// share (72 thousandths of one) the smallest would take a second to start Python.
const INIT_MILLI_CPUS: u32 = 2000;

#[async_trait]
impl Connect for Inside {
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let stream = self.0.connect(port).await.map_err(io::Error::other)?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

impl Live {
    /// Makes the cell: of an instance of the warming pool, else of one built now. No user code has run when this returns.
    pub(super) async fn make(
        fleet: &Inner,
        container: ContainerId,
        function: &Arc<FunctionVersion>,
        code: &Code,
        snapshot: Option<&Arc<Snapshot>>,
        stages: &mut Stages,
    ) -> Result<Self, Error> {
        let kind = Kind::of(function);
        if let Some(kind) = &kind
            && let Some(instance) = fleet.warming.take(kind).await
        {
            stages.end(Stage::Container);
            match Self::specialise(fleet, instance, container, function, code, snapshot).await {
                Ok(live) => {
                    stages.end(Stage::Specialise);
                    return Ok(live);
                }
                // It may have died since. If it is the function that no instance can be made for, the next one says so.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%container, error, "an instance of the warming pool was of no use");
                }
            }
        }
        let instance = Instance::now(fleet, kind.as_ref(), function).await.map_err(Error::Sandbox)?;
        stages.end(Stage::Container);
        let live = Self::specialise(fleet, instance, container, function, code, snapshot).await?;
        stages.end(Stage::Specialise);
        Ok(live)
    }

    /// Makes an instance that belonged to nobody this container's.
    async fn specialise(
        fleet: &Inner,
        instance: Instance,
        container: ContainerId,
        function: &Arc<FunctionVersion>,
        code: &Code,
        snapshot: Option<&Arc<Snapshot>>,
    ) -> Result<Self, Error> {
        let Instance { cell, waiting, template } = instance;
        let serves = |snapshot: &&Arc<Snapshot>| template.as_ref().is_some_and(|template| snapshot.serves(template));
        let snapshot = snapshot.filter(serves).cloned();
        let image = snapshot.as_ref().map(|it| Mount { source: it.path().to_owned(), target: SNAPSHOT.into() });
        let what = Specialisation {
            mounts: mounts(code).into_iter().chain(image).collect(),
            memory_mib: function.memory_mib,
            milli_cpus: function.milli_cpus().max(INIT_MILLI_CPUS),
            ephemeral_mib: function.ephemeral_mib,
            processes: limits::CONTAINER_PROCESSES,
            network: function.network,
        };
        cell.specialise(what).await.map_err(Error::Sandbox)?;
        let listener = cell.take_runtime_api().ok_or(Error::Lost)?;
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = listener.map_err(|error| {
            tracing::error!(%error, "the socket of a cell cannot be served");
            Error::Lost
        })?;
        let identity = Identity {
            function: Arc::clone(function),
            container,
            handler: function.handler.clone().unwrap_or_default(),
            account: function.arn.account.clone(),
        };
        let inside = Arc::new(Inside(Arc::clone(&cell)));
        let services = fleet.services.get().cloned();
        let api = Arc::new(RuntimeApi::serve(listener, identity, inside, Arc::clone(&fleet.clock), services));
        let (pipes, children) = (Pipes::new(), Vec::new());
        Ok(Self { cell, api, pipes, children, runtime_started: None, waiting, template, due: None, snapshot })
    }

    /// Starts extensions, then the runtime, and waits until all of them ask for their first event.
    pub(super) async fn init(
        &mut self,
        fleet: &Inner,
        function: &FunctionVersion,
        code: &Code,
        log: &mut ContainerLog,
        initialization: InitializationType,
        until: Instant,
    ) -> Result<(), Failure> {
        // The hooks of a function that asked for snapshots run where it gets none, too.
        let snapshot = (function.snap_start && self.snapshot.is_none()).then_some("skip");
        self.launch(fleet, function, code, log, initialization, snapshot, until).await?;
        let api = Arc::clone(&self.api);
        self.wait_init(fleet, log, until, api.ready()).await?;
        let share = self.cell.set_milli_cpus(function.milli_cpus()).await;
        share.map_err(|error| Failure::Node(Error::Sandbox(error)))
    }

    /// Starts extensions, then the runtime. `snapshot`: what a runtime of ours is to do between init and the first event.
    #[allow(clippy::too_many_arguments, reason = "what a start is made of")]
    pub(super) async fn launch(
        &mut self,
        fleet: &Inner,
        function: &FunctionVersion,
        code: &Code,
        log: &mut ContainerLog,
        initialization: InitializationType,
        snapshot: Option<&'static str>,
        until: Instant,
    ) -> Result<(), Failure> {
        let opt = Some(self.cell.inside_path(OPT)).filter(|path| path != OPT);
        let stream = log.stream().to_owned();
        let place = Place {
            runtime_api: self.cell.runtime_api_address(),
            log_stream: &stream,
            opt,
            aws_endpoint_url: fleet.config.aws_endpoint_url.as_deref(),
            initialization,
            access: self.access(fleet, function),
            snapshot,
        };
        let names = extensions(code);
        self.api.expect_extensions(names.clone());
        for name in names {
            let spec = ProcessSpec {
                argv: vec![format!("{OPT}/extensions/{name}")],
                env: environment::of_extension(function, &place),
                cwd: PathBuf::from("/"),
                log_pipe: false,
                order_pipe: false,
            };
            self.spawn(Some(name), spec).await?;
        }
        if !self.children.is_empty() {
            let api = Arc::clone(&self.api);
            self.wait_init(fleet, log, until, api.extensions_registered()).await?;
        }
        let bootstrap = bootstrap(function, code).ok_or(Failure::Function(Fault::NoBootstrap))?;
        let spec = ProcessSpec {
            argv: environment::command(function, fleet.interpreters.of(&function.runtime), bootstrap),
            env: environment::of_runtime(function, &place),
            cwd: PathBuf::from(TASK),
            log_pipe: true,
            order_pipe: false,
        };
        self.start_runtime(spec).await?;
        self.runtime_started = Some(std::time::Instant::now());
        Ok(())
    }

    /// How what is started finds its account's services. Restored or not, versions with snapshots ask for their credentials.
    fn access(&mut self, fleet: &Inner, function: &FunctionVersion) -> Option<Access> {
        let services = fleet.services.get()?;
        if function.snap_start {
            return Some(Access::Asked);
        }
        let keys = services.credentials(self.api.identity(), CREDENTIALS_LIFE)?;
        self.due = Some(Instant::now() + (CREDENTIALS_LIFE - CREDENTIALS_LEFT));
        Some(Access::Keys(keys))
    }

    /// Whether another container should take its calls.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    async fn wait_init(
        &mut self,
        fleet: &Inner,
        log: &mut ContainerLog,
        until: Instant,
        step: impl Future<Output = Init>,
    ) -> Result<(), Failure> {
        let waited = self.tend(fleet, log, tokio::time::timeout_at(until, step)).await;
        Err(Failure::Function(match waited {
            Ok(Ok(Init::Ready)) => return Ok(()),
            Ok(Ok(Init::Error(error))) => Fault::InitError { error_type: error.error_type, body: error.body },
            Ok(Err(_elapsed)) => Fault::InitTimedOut,
            Err(fault) => fault,
        }))
    }

    /// Gives the runtime that waits its order; where none does, or it has died, starts one.
    async fn start_runtime(&mut self, spec: ProcessSpec) -> Result<(), Failure> {
        if let Some(mut process) = self.waiting.take()
            && let Some(pipe) = process.order_pipe.take()
        {
            let snapshot = self.snapshot.as_ref().map(|_| PathBuf::from(SNAPSHOT));
            let order = Order { env: spec.env.clone(), cwd: spec.cwd.clone(), snapshot };
            match self.cell.order(pipe, order).await {
                Ok(()) => return self.adopt(None, process),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(cell = %self.cell.id(), error, "a waiting runtime took no order; starting another");
                    if self.snapshot.is_some() {
                        // One that is started now cannot become a clone.
                        return Err(Failure::Function(Fault::Exited(ExitStatus::Signal(SIGKILL))));
                    }
                }
            }
        }
        self.spawn(None, spec).await
    }

    async fn spawn(&mut self, extension: Option<String>, spec: ProcessSpec) -> Result<(), Failure> {
        let process = self.cell.spawn(spec).await.map_err(|error| match (error, &extension) {
            (lambent_sandbox::Error::Exec { path: _, source }, Some(name)) => {
                Failure::Function(Fault::CannotLaunch { name: name.clone(), reason: reason(&source) })
            }
            (lambent_sandbox::Error::Exec { path, source }, None) => {
                Failure::Function(Fault::CannotExecute { path, reason: reason(&source) })
            }
            (error, _) => Failure::Node(Error::Sandbox(error)),
        })?;
        self.adopt(extension, process)
    }

    /// Reads a process's output and watches it from now on.
    fn adopt(&mut self, extension: Option<String>, process: Process) -> Result<(), Failure> {
        let source = if extension.is_some() { Source::Extension } else { Source::Function };
        let mut added = self.pipes.add_text(source, process.stdout);
        added = added.and_then(|()| self.pipes.add_text(source, process.stderr));
        if let Some(pipe) = process.log_pipe {
            added = added.and_then(|()| self.pipes.add_frames(source, pipe));
        }
        if let Err(error) = added {
            tracing::error!(%error, "the output of a process cannot be read");
            return Err(Failure::Node(Error::Lost));
        }
        self.children.push(Child { extension, pid: process.pid, exit: process.exit });
        Ok(())
    }

    /// Waits for `what` while output is read and deaths are noticed. What is ready at once is taken before a death is: a process may answer
    /// and exit.
    pub(super) async fn tend<T>(
        &mut self,
        fleet: &Inner,
        log: &mut ContainerLog,
        what: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let writer = log.writer();
        let mut what = std::pin::pin!(what);
        let mut stops = std::pin::pin!(fleet.kill.cancelled());
        loop {
            tokio::select! {
                biased;
                value = &mut what => return Ok(value),
                fault = died(&mut self.children) => return Err(fault),
                () = &mut stops => return Err(Fault::NodeStops),
                () = self.pipes.pump(&writer, |source, line| log.line(source, line, fleet.clock.now())) => {}
            }
        }
    }

    /// Logs what has been written already.
    pub(super) fn drain(&mut self, fleet: &Inner, log: &mut ContainerLog) {
        self.pipes.drain(|source, line| log.line(source, line, fleet.clock.now()));
    }

    /// The shutdown phase: `SHUTDOWN` to extensions, SIGTERM, at the end of the window SIGKILL to all that is left.
    pub(super) async fn end(mut self, fleet: &Inner, log: &mut ContainerLog, why: Why) {
        let registered = self.api.extensions();
        let window = match registered.iter().any(|extension| extension.kind == ExtensionKind::External) {
            true => limits::SHUTDOWN_WITH_EXTENSIONS,
            false if registered.is_empty() => Duration::ZERO,
            false => limits::SHUTDOWN_WITH_INTERNAL_EXTENSIONS,
        };
        if !window.is_zero() && !self.children.is_empty() {
            let farewell = self.farewell(fleet, log, why, window);
            let _ = tokio::time::timeout(window, farewell).await;
        }
        self.pipes.close(|source, line| log.line(source, line, fleet.clock.now()));
        log.subscribe(None);
        drop(self.api);
        self.cell.destroy().await;
    }

    async fn farewell(&mut self, fleet: &Inner, log: &mut ContainerLog, why: Why, window: Duration) {
        for child in self.children.iter().filter(|child| child.extension.is_none()) {
            let _ = self.cell.signal(child.pid, SIGTERM).await;
        }
        let api = Arc::clone(&self.api);
        let deadline = fleet.clock.now().saturating_add(window).unwrap_or(jiff::Timestamp::MAX);
        let mut told = std::pin::pin!(api.shutdown(shutdown_reason(why), deadline));
        let mut is_told = false;
        let writer = log.writer();
        while !(self.children.is_empty() && is_told) {
            tokio::select! {
                biased;
                () = &mut told, if !is_told => is_told = true,
                _death = died(&mut self.children), if !self.children.is_empty() => {}
                () = self.pipes.pump(&writer, |source, line| log.line(source, line, fleet.clock.now())) => {}
            }
        }
    }
}

fn shutdown_reason(why: Why) -> ShutdownReason {
    match why {
        Why::Idle | Why::Retired | Why::Shutdown => ShutdownReason::Spindown,
        Why::TimedOut => ShutdownReason::Timeout,
        Why::Failed => ShutdownReason::Failure,
    }
}

/// Waits for a process to end and takes it off the list; pends for ever when there is none.
async fn died(children: &mut Vec<Child>) -> Fault {
    poll_fn(|context| {
        let ended =
            children.iter_mut().enumerate().find_map(|(index, child)| match Pin::new(&mut child.exit).poll(context) {
                Poll::Ready(status) => Some((index, status)),
                Poll::Pending => None,
            });
        let Some((index, status)) = ended else { return Poll::Pending };
        // No status means that the whole cell is gone, which only something outside of it does.
        let status = status.unwrap_or(ExitStatus::Signal(9));
        Poll::Ready(match children.swap_remove(index).extension {
            None => Fault::Exited(status),
            Some(name) => Fault::ExtensionExited { name, status },
        })
    })
    .await
}

/// What of a container's files is its function's.
fn mounts(code: &Code) -> Vec<Mount> {
    let mount = |source: &std::path::Path, target: &str| Mount { source: source.to_owned(), target: target.into() };
    let mut mounts = vec![mount(code.task.path(), TASK)];
    mounts.extend(code.opt.as_ref().map(|opt| mount(opt.path(), OPT)));
    mounts
}

/// The external extensions of the layers: every file of `/opt/extensions`.
fn extensions(code: &Code) -> Vec<String> {
    let Some(opt) = &code.opt else { return Vec::new() };
    let entries = std::fs::read_dir(opt.path().join("extensions")).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.truncate(lambent_runtime_api::MAX_EXTENSIONS);
    names
}

/// Where the `bootstrap` of a `provided` function is; any text for those that need none.
fn bootstrap(function: &FunctionVersion, code: &Code) -> Option<&'static str> {
    if !matches!(function.runtime, lambent_model::function::Runtime::Provided(_)) {
        return Some("");
    }
    let there = |directory: &std::path::Path| directory.join("bootstrap").is_file();
    if there(code.task.path()) {
        return Some("/var/task/bootstrap");
    }
    code.opt.as_ref().is_some_and(|opt| there(opt.path())).then_some("/opt/bootstrap")
}

/// The reason of a failed exec as C and Go word it, without Rust's `(os error 8)`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The lines that say which extensions there are.
pub(super) fn extension_lines(live: &Live) -> Vec<log::Platform> {
    let event = |extension: lambent_runtime_api::ExtensionInfo| {
        log::Platform::Event(lambent_runtime_api::PlatformEvent::Extension {
            name: extension.name,
            state: "Ready".to_owned(),
            events: extension.events,
            error_type: None,
        })
    };
    live.api.extensions().into_iter().map(event).collect()
}

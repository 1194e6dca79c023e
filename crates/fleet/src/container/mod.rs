//! One container, run by one task from its making to its end.
//!
//! The task owns everything the container holds; others reach it through two kinds of [`Command`] only. It tells the pool of each step of
//! its life ([`state`]), and the pool decides what calls come next:
//!
//! 1. [`Owner::first`]: code, cell, init phase (and once more, inside the call, where it failed), the call it was made for;
//! 2. [`Owner::serve`]: idle, call, idle, … until the pool says end or something breaks;
//! 3. [`Owner::finish`]: what was handed over too late goes to another container; shutdown phase; the pool forgets it.

mod call;
pub(crate) mod fault;
mod live;
pub(crate) mod meter;
mod pause;
mod rest;
mod restore;
pub(crate) mod state;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use lambent_model::function::{Provided, Runtime};
use lambent_model::{ContainerId, FunctionVersion};
use lambent_runtime_api::{InitMetrics, InitPhase, InitializationType, PlatformEvent, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, info_span};

use crate::code::Code;
use crate::dispatch::Turn;
use crate::fleet::Inner;
use crate::log::{ContainerLog, Platform};
use crate::{AffinityOutcome, Call, Error, FunctionResponse, LogTail, Report, Running, Stage, Stages, StartKind};
use fault::Fault;
use live::{Failure, Live};
use meter::{Memory, Meters};
pub use pause::Pause;
use restore::Restored;
pub(crate) use restore::run_for_snapshot;
use state::{Event, Why};

/// A call and where its answer goes.
#[derive(Debug)]
pub(crate) struct Job {
    pub call: Call,
    pub response: oneshot::Sender<Result<FunctionResponse, Error>>,
    pub finished: oneshot::Sender<Report>,
    /// Where the time goes.
    pub stages: Stages,
    /// Whether the container has what its value needs; known when one is found.
    pub affinity: Option<AffinityOutcome>,
    /// The caller's span: what happens to the call here belongs to its trace.
    pub span: Span,
}

impl Job {
    pub(crate) fn new(call: Call) -> (Box<Self>, Running) {
        let (response, responded) = oneshot::channel();
        let mut stages = Stages::since(call.received_at);
        stages.end(Stage::Accept);
        let (finished, reported) = oneshot::channel();
        (
            Box::new(Self { call, response, finished, stages, affinity: None, span: Span::current() }),
            Running { response: responded, finished: reported },
        )
    }

    /// Ends a call that never ran.
    pub(crate) fn refuse(self, error: Error) {
        drop(self.call.permit);
        let _ = self.response.send(Err(error));
    }
}

/// What a container's task is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run this call.
    Run(Box<Job>),
    /// End.
    End(Why),
}

/// Runs a container until its end.
pub(crate) async fn run(
    fleet: Arc<Inner>,
    id: ContainerId,
    function: Arc<FunctionVersion>,
    mut job: Box<Job>,
    commands: mpsc::Receiver<Command>,
    turn: Turn,
) {
    // Whatever becomes of this task, a panic included, the books are right afterwards.
    let _entry = Entry { fleet: Arc::clone(&fleet), id };
    job.stages.end(Stage::Queue);
    let mut making = Some(job);
    let code = match fleet.code.of(&function).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(function = %function.arn, error = &error as &dyn std::error::Error, "code cannot be made ready");
            refuse(making.take(), Error::Prepare(error));
            return;
        }
    };
    let log = ContainerLog::new(fleet.writer(), &function, fleet.clock.now());
    let meters = Meters::of(&function);
    let (live, memory, initialization) = (None, Memory::default(), InitializationType::OnDemand);
    let mut owner =
        Owner { fleet, id, function, code, log, live, meters, memory, commands, initialization, restored: None };
    let why = match making.take() {
        Some(job) => match owner.first(job, turn).await {
            Ok(()) => owner.serve().await,
            Err(why) => why,
        },
        None => Why::Failed,
    };
    owner.finish(why).await;
}

/// Runs a container that is initialised ahead of any call, for provisioned concurrency, until its end.
pub(crate) async fn run_ahead(
    fleet: Arc<Inner>,
    id: ContainerId,
    function: Arc<FunctionVersion>,
    commands: mpsc::Receiver<Command>,
    turn: Turn,
) {
    let _entry = Entry { fleet: Arc::clone(&fleet), id };
    let code = match fleet.code.of(&function).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(function = %function.arn, error = &error as &dyn std::error::Error, "code cannot be made ready");
            return fleet.provisioning.failed(function.generation, &error.to_string());
        }
    };
    let log = ContainerLog::new(fleet.writer(), &function, fleet.clock.now());
    let meters = Meters::of(&function);
    let (live, memory, initialization) = (None, Memory::default(), InitializationType::ProvisionedConcurrency);
    let mut owner =
        Owner { fleet, id, function, code, log, live, meters, memory, commands, initialization, restored: None };
    let why = match owner.ahead(turn).await {
        Ok(()) => owner.serve().await,
        Err(why) => why,
    };
    owner.finish(why).await;
}

fn refuse(job: Option<Box<Job>>, error: Error) {
    if let Some(job) = job {
        job.refuse(error);
    }
}

/// Takes the container out of the books when its task is over.
struct Entry {
    fleet: Arc<Inner>,
    id: ContainerId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.fleet.pool().forget(self.id);
        self.fleet.cells().remove(&self.id);
        self.fleet.provisioning.nudge();
    }
}

/// The task's own.
struct Owner {
    fleet: Arc<Inner>,
    id: ContainerId,
    function: Arc<FunctionVersion>,
    code: Code,
    log: ContainerLog,
    live: Option<Live>,
    meters: Meters,
    memory: Memory,
    commands: mpsc::Receiver<Command>,
    initialization: InitializationType,
    /// How long it took to restore the container from a snapshot, until its first call is begun.
    restored: Option<Duration>,
}

/// AWS's `StatusReason` of provisioned concurrency whose function does not start.
const INIT_FAILURE: &str = "FUNCTION_ERROR_INIT_FAILURE";

/// How the init phase of a cold call went.
struct Initialised {
    /// What AWS calls init duration.
    took: Duration,
}

impl Owner {
    /// Makes the cell, initialises it and runs the call it is made for.
    async fn first(&mut self, mut job: Box<Job>, turn: Turn) -> Result<(), Why> {
        if self.function.snap_start {
            let span = info_span!(parent: &job.span, "restore", container = %self.id);
            match self.restore(&mut job.stages).instrument(span).await {
                Ok(Restored::Yes) => {
                    drop(turn);
                    self.tell(Event::Started);
                    return self.call(job, StartKind::Cold, None, Instant::now()).await;
                }
                Ok(Restored::No) => {}
                Err(Failure::Node(error)) => return Err(self.lose(job, error)),
                Err(Failure::Function(fault)) => return Err(self.fail_restore(job, fault)),
            }
        }
        let event = self.init_start();
        self.say(&Platform::Event(event));
        let span = info_span!(parent: &job.span, "init", container = %self.id);
        let limit = lambent_model::limits::INIT_TIMEOUT;
        let done = self.initialise(InitPhase::Init, limit, &mut job.stages).instrument(span).await;
        drop(turn);
        match done {
            Ok(init) => {
                self.tell(Event::Started);
                self.call(job, StartKind::Cold, Some(init.took), Instant::now()).await
            }
            Err(Failure::Node(error)) => Err(self.lose(job, error)),
            Err(Failure::Function(Fault::NodeStops)) => Err(self.lose(job, Error::ShuttingDown)),
            Err(Failure::Function(_)) => self.again(job).await,
        }
    }

    /// Makes the cell and initialises it, with nobody waiting.
    async fn ahead(&mut self, turn: Turn) -> Result<(), Why> {
        let event = self.init_start();
        self.say(&Platform::Event(event));
        let limit = self.function.timeout.max(lambent_model::limits::PROVISIONED_INIT_TIMEOUT);
        let mut stages = Stages::since(std::time::Instant::now());
        let done = self.initialise(InitPhase::Init, limit, &mut stages).await;
        drop(turn);
        let generation = self.function.generation;
        match done {
            Ok(_) => {
                self.fleet.pool().ready(self.id);
                self.fleet.provisioning.succeeded(generation);
                Ok(())
            }
            Err(Failure::Node(error)) => {
                let reason = error.to_string();
                tracing::error!(function = %self.function.arn, error = &error as &dyn std::error::Error, "container lost");
                self.fleet.provisioning.failed(generation, &reason);
                Err(Why::Failed)
            }
            Err(Failure::Function(fault)) => {
                self.fleet.provisioning.failed(generation, INIT_FAILURE);
                Err(fault.why())
            }
        }
    }

    /// AWS's suppressed init: a failed init phase is repeated once inside the call, on the call's time.
    async fn again(&mut self, mut job: Box<Job>) -> Result<(), Why> {
        if let Some(live) = self.live.take() {
            live.end(&self.fleet, &mut self.log, Why::Failed).await;
        }
        self.tell(Event::Started);
        self.log.keep_tail(job.call.log_tail == LogTail::Tail);
        let began = Instant::now();
        let span = info_span!(parent: &job.span, "init again", container = %self.id);
        match self.initialise(InitPhase::Invoke, self.function.timeout, &mut job.stages).instrument(span).await {
            Ok(_) => self.call(job, StartKind::Cold, None, began).await,
            Err(Failure::Node(error)) => Err(self.lose(job, error)),
            Err(Failure::Function(fault)) => {
                let fault = if fault == Fault::InitTimedOut { Fault::TimedOut(self.function.timeout) } else { fault };
                Err(self.fail_unstarted(job, began, fault).await)
            }
        }
    }

    /// Makes a cell and brings its processes to where they ask for an event.
    async fn initialise(
        &mut self,
        phase: InitPhase,
        limit: Duration,
        stages: &mut Stages,
    ) -> Result<Initialised, Failure> {
        let live = match self.live.take() {
            // For a clone that it could not become.
            Some(live) => live,
            None => {
                let making = Live::make(&self.fleet, self.id, &self.function, &self.code, None, stages);
                making.instrument(info_span!("container")).await.map_err(Failure::Node)?
            }
        };
        self.log.subscribe(Some(Arc::clone(&live.api)));
        self.fleet.cells().insert(self.id, Arc::downgrade(&live.cell));
        let live = self.live.insert(live);
        // The clock of the init phase starts where the function's own work does.
        let began = Instant::now();
        let made =
            live.init(&self.fleet, &self.function, &self.code, &mut self.log, self.initialization, began + limit);
        let done = made.await;
        if let Some(at) = live.runtime_started {
            stages.end_at(Stage::RuntimeInit, at);
        }
        stages.end(Stage::UserInit);
        live.drain(&self.fleet, &mut self.log);
        let took = began.elapsed();
        if matches!(done, Err(Failure::Node(_))) {
            return done.map(|()| Initialised { took });
        }
        let fault = match &done {
            Err(Failure::Function(fault)) => Some(fault),
            Ok(()) | Err(Failure::Node(_)) => None,
        };
        let lines = live::extension_lines(live);
        lines.iter().for_each(|line| self.say(line));
        self.say_init(phase, took, fault);
        done.map(|()| Initialised { took })
    }

    /// Waits for calls and runs them, until the end.
    async fn serve(&mut self) -> Why {
        loop {
            let Some(live) = &mut self.live else { return Why::Failed };
            let idle = Instant::now() + self.fleet.config.idle_timeout;
            let next = tokio::time::timeout_at(live.due.map_or(idle, |due| due.min(idle)), self.commands.recv());
            match live.tend(&self.fleet, &mut self.log, next).await {
                Ok(Ok(Some(Command::Run(job)))) if live.is_due() => {
                    self.tell(Event::Broken(Why::Retired));
                    self.fleet.dispatch_again(&self.function, job);
                    return Why::Retired;
                }
                Ok(Ok(Some(Command::Run(job)))) => {
                    if let Err(why) = self.call(job, StartKind::Warm, None, Instant::now()).await {
                        return why;
                    }
                }
                Ok(Ok(Some(Command::End(why)))) => return why,
                Ok(Ok(None)) => return Why::Shutdown,
                // What it is given in this moment runs elsewhere.
                Ok(Err(_elapsed)) if live.is_due() => return Why::Retired,
                // The pool may have given it a call just now; what it decides comes as a command.
                Ok(Err(_elapsed)) => self.fleet.pool().idled(self.id),
                Err(fault) => return fault.why(),
            }
        }
    }

    /// Ends the container.
    async fn finish(mut self, why: Why) {
        self.tell(Event::Broken(why));
        // No call is handed over from here on; one that was, and was not begun, runs elsewhere.
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let Command::Run(job) = command {
                self.fleet.dispatch_again(&self.function, job);
            }
        }
        if let Some(live) = self.live.take() {
            live.end(&self.fleet, &mut self.log, why).await;
        }
        tracing::debug!(container = %self.id, function = %self.function.arn, ?why, "container ended");
    }

    /// Gives up on a call that never reached the function; running it again is safe.
    fn lose(&mut self, job: Box<Job>, error: Error) -> Why {
        tracing::error!(function = %self.function.arn, error = &error as &dyn std::error::Error, "container lost");
        job.refuse(error);
        Why::Failed
    }

    fn tell(&self, event: Event) {
        self.fleet.pool().tell(self.id, event);
    }

    fn say(&mut self, line: &Platform) {
        self.log.platform(line, self.fleet.clock.now());
    }

    fn init_start(&self) -> PlatformEvent {
        let function = &self.function;
        // `python:3.13.v1`, as AWS numbers its runtimes; ours have one version, and the ARN says which content that is.
        let runtime = match &function.runtime {
            Runtime::Python { minor } => format!("python:3.{minor}.v1"),
            Runtime::Node { major } => format!("nodejs:{major}.v1"),
            Runtime::Provided(Provided::Al2) => "provided:al2.v1".to_owned(),
            Runtime::Provided(Provided::Al2023) => "provided:al2023.v1".to_owned(),
            Runtime::Wasm => "provided:wasm.v1".to_owned(),
        };
        let arn = format!("arn:aws:lambda:{}::runtime:{}", function.arn.region, self.fleet.bootstraps.digest);
        PlatformEvent::InitStart {
            initialization_type: self.initialization,
            phase: InitPhase::Init,
            function_name: function.arn.name.to_string(),
            function_version: function.version.to_string(),
            instance_id: self.id.to_string(),
            instance_max_memory: u64::from(function.memory_mib) * lambent_model::limits::MIB,
            runtime_version: Some(runtime),
            runtime_version_arn: Some(arn),
        }
    }

    fn say_init(&mut self, phase: InitPhase, took: Duration, fault: Option<&Fault>) {
        let status = fault.map_or(Status::Success, Fault::status);
        let error_type = fault.filter(|_| status != Status::Timeout).map(|fault| fault.error_type().to_owned());
        let initialization_type = self.initialization;
        let done =
            PlatformEvent::InitRuntimeDone { initialization_type, phase, status, error_type: error_type.clone() };
        self.say(&Platform::Event(done));
        let metrics = InitMetrics { duration_ms: millis(took) };
        self.say(&Platform::Event(PlatformEvent::InitReport {
            initialization_type,
            phase,
            status,
            error_type,
            metrics,
        }));
    }
}

/// Milliseconds, with the two decimals that AWS shows.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

//! Taking the snapshot of a version, and making containers from it.
//!
//! ```text
//! version ── ordinary start, init, before-snapshot hooks ──► snapshot; this container ends without having had a call
//! call    ── a fork of the same template, in a cell of its own ──► becomes what the snapshot was taken of ── after-restore hooks ──► call
//! ```
//!
//! A container that should be a clone and cannot is started ordinarily, in the same call: its instance is of another template, or its
//! process died while it became one (then the snapshot is not used again). A hook's failure is the function's: the call ends with it.

use std::sync::Arc;
use std::time::Duration;

use lambent_model::{ContainerId, FunctionVersion};
use lambent_runtime_api::{InitPhase, InitializationType, PlatformEvent, RestoreMetrics, Snapshot as Offered, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::fault::Fault;
use super::live::{Failure, Live};
use super::meter::{Memory, Meters};
use super::state::Why;
use super::{Command, Entry, Job, Owner, millis};
use crate::fleet::Inner;
use crate::log::{ContainerLog, Platform};
use crate::snapshots::{NO_FORK, Untaken};
use crate::warming::Kind;
use crate::{Error, Stage, Stages};

/// What a snapshot may take beyond a function's memory and `/tmp`: files that it has mapped and changed, and its own table.
const BESIDE_BYTES: u64 = 64 << 20;
/// The time in which a snapshot must be written down once init is over.
const TAKE_WITHIN: Duration = Duration::from_secs(120);

/// Whether a container was made from a snapshot.
pub(super) enum Restored {
    Yes,
    /// It must be started ordinarily.
    No,
}

/// Runs a container that exists for its snapshot alone.
pub(crate) async fn run_for_snapshot(
    fleet: Arc<Inner>,
    id: ContainerId,
    function: Arc<FunctionVersion>,
    commands: mpsc::Receiver<Command>,
    outcome: oneshot::Sender<Result<(), Untaken>>,
) {
    let _entry = Entry { fleet: Arc::clone(&fleet), id };
    let code = match fleet.code.of(&function).await {
        Ok(code) => code,
        Err(error) => {
            // Nobody waits for it any more when the node ends.
            let _ = outcome.send(Err(Untaken::Init(error.to_string())));
            return;
        }
    };
    let log = ContainerLog::new(fleet.writer(), &function, fleet.clock.now());
    let meters = Meters::of(&function);
    let (live, memory, initialization) = (None, Memory::default(), InitializationType::SnapStart);
    let mut owner =
        Owner { fleet, id, function, code, log, live, meters, memory, commands, initialization, restored: None };
    let taken = owner.take_snapshot().await;
    let why = if taken.is_ok() { Why::Idle } else { Why::Failed };
    owner.finish(why).await;
    let _ = outcome.send(taken);
}

impl Owner {
    /// Initialises the function and takes its snapshot.
    async fn take_snapshot(&mut self) -> Result<(), Untaken> {
        let event = self.init_start();
        self.say(&Platform::Event(event));
        let node = |error: Error| Untaken::Node(error.to_string());
        let can_fork = Kind::of(&self.function).is_some()
            && self.fleet.warming.templates.of(&self.fleet, &self.function.runtime).await.is_some();
        if !can_fork {
            return Err(Untaken::Refused(NO_FORK.to_owned()));
        }
        let mut stages = Stages::since(std::time::Instant::now());
        let made = Live::make(&self.fleet, self.id, &self.function, &self.code, None, &mut stages).await;
        let live = self.live.insert(made.map_err(node)?);
        self.log.subscribe(Some(Arc::clone(&live.api)));
        // One that was started before there was a template, say. The next cold start asks again.
        let Some(template) = live.template.clone() else { return Err(Untaken::Node("it was not forked".to_owned())) };
        let unkept = |error: std::io::Error| Untaken::Node(error.to_string());
        let file = self.fleet.snapshots.file().map_err(unkept)?;
        let (file, path) = file.into_parts();
        let most = u64::from(self.function.memory_mib + self.function.ephemeral_mib) * lambent_model::limits::MIB;
        let offered = live.api.keep_snapshot(file, most + BESIDE_BYTES);
        let began = Instant::now();
        let limit = self.function.timeout.max(lambent_model::limits::PROVISIONED_INIT_TIMEOUT);
        let taken = live.take(&self.fleet, &self.function, &self.code, &mut self.log, offered, began + limit).await;
        live.drain(&self.fleet, &mut self.log);
        let took = began.elapsed();
        let fault = match &taken {
            Err(Failure::Function(fault)) => Some(fault),
            Ok(_) | Err(Failure::Node(_)) => None,
        };
        self.say_init(InitPhase::Init, took, fault);
        match taken {
            Ok(Offered::Taken { bytes }) => {
                self.fleet.snapshots.keep(self.function.generation, path, template, bytes);
                tracing::info!(function = %self.function.arn, bytes, ?took, "took a snapshot");
                Ok(())
            }
            Ok(Offered::Unsafe(reason)) => Err(Untaken::Refused(reason)),
            Err(Failure::Function(Fault::NodeStops)) => Err(Untaken::Node(Error::ShuttingDown.to_string())),
            Err(Failure::Function(fault)) => {
                Err(Untaken::Init(format!("Error occurred during initialization: {}", fault.error_type())))
            }
            Err(Failure::Node(error)) => Err(node(error)),
        }
    }

    /// Makes the container from its version's snapshot. `No` may leave a cell that is made and in which nothing was started.
    pub(super) async fn restore(&mut self, stages: &mut Stages) -> Result<Restored, Failure> {
        let generation = self.function.generation;
        let Some(snapshot) = self.fleet.snapshots.of(generation) else {
            self.fleet.snapshot_later(&self.function);
            return Ok(Restored::No);
        };
        let made = Live::make(&self.fleet, self.id, &self.function, &self.code, Some(&snapshot), stages).await;
        let live = self.live.insert(made.map_err(Failure::Node)?);
        self.log.subscribe(Some(Arc::clone(&live.api)));
        self.fleet.cells().insert(self.id, Arc::downgrade(&live.cell));
        if live.snapshot.is_none() {
            // Its template is gone, or this instance was made without one.
            self.fleet.snapshots.forget(generation);
            self.fleet.snapshot_later(&self.function);
            return Ok(Restored::No);
        }
        let event = self.restore_start();
        self.log.platform(&Platform::Event(event), self.fleet.clock.now());
        let began = Instant::now();
        let until = began + lambent_model::limits::RESTORE_TIMEOUT;
        let Some(live) = &mut self.live else { return Ok(Restored::No) };
        let snap_start = InitializationType::SnapStart;
        let done = live.init(&self.fleet, &self.function, &self.code, &mut self.log, snap_start, until).await;
        if let Some(at) = live.runtime_started {
            stages.end_at(Stage::RuntimeInit, at);
        }
        stages.end(Stage::UserInit);
        live.drain(&self.fleet, &mut self.log);
        let took = began.elapsed();
        if let Err(Failure::Function(Fault::Exited(status))) = done {
            let reason = format!("a container could not be restored from its snapshot ({status:?})");
            tracing::warn!(function = %self.function.arn, reason, "starting it ordinarily");
            self.fleet.snapshots.refuse(generation, reason);
            if let Some(live) = self.live.take() {
                live.end(&self.fleet, &mut self.log, Why::Failed).await;
            }
            return Ok(Restored::No);
        }
        self.say_restore(took, done.as_ref().err());
        done?;
        self.restored = Some(took);
        self.initialization = snap_start;
        Ok(Restored::Yes)
    }

    fn say_restore(&mut self, took: Duration, failure: Option<&Failure>) {
        let fault = match failure {
            Some(Failure::Function(fault)) => Some(fault),
            Some(Failure::Node(_)) => return,
            None => None,
        };
        let status = fault.map_or(Status::Success, Fault::status);
        let error_type = fault.filter(|_| status != Status::Timeout).map(|fault| fault.error_type().to_owned());
        self.say(&Platform::Event(PlatformEvent::RestoreRuntimeDone { status, error_type: error_type.clone() }));
        let metrics = RestoreMetrics { duration_ms: millis(took) };
        self.say(&Platform::Event(PlatformEvent::RestoreReport { status, error_type, metrics }));
    }

    /// `RESTORE_START` has what `INIT_START` has.
    fn restore_start(&self) -> PlatformEvent {
        match self.init_start() {
            PlatformEvent::InitStart {
                function_name,
                function_version,
                instance_id,
                instance_max_memory,
                runtime_version,
                runtime_version_arn,
                ..
            } => PlatformEvent::RestoreStart {
                function_name,
                function_version,
                instance_id,
                instance_max_memory,
                runtime_version,
                runtime_version_arn,
            },
            other => other,
        }
    }

    /// Ends a call whose container was restored, and then failed by what the function does after that.
    pub(super) fn fail_restore(&mut self, job: Box<Job>, fault: Fault) -> Why {
        let error = match &fault {
            Fault::InitTimedOut => Error::RestoreTimedOut(lambent_model::limits::RESTORE_TIMEOUT),
            Fault::NodeStops => Error::ShuttingDown,
            fault => Error::Restore(fault.error_type().to_owned()),
        };
        job.refuse(error);
        fault.why()
    }
}

impl Live {
    /// Starts everything, and waits for the runtime's snapshot.
    async fn take(
        &mut self,
        fleet: &Inner,
        function: &FunctionVersion,
        code: &crate::code::Code,
        log: &mut ContainerLog,
        offered: oneshot::Receiver<Offered>,
        until: Instant,
    ) -> Result<Offered, Failure> {
        self.launch(fleet, function, code, log, InitializationType::SnapStart, Some("take"), until).await?;
        let api = Arc::clone(&self.api);
        let either = async {
            tokio::select! {
                biased;
                offered = offered => Ok(offered.unwrap_or_else(|_| Offered::Unsafe("it was not offered".to_owned()))),
                ended = api.ready() => Err(ended),
            }
        };
        let waited = self.tend(fleet, log, tokio::time::timeout_at(until + TAKE_WITHIN, either)).await;
        Err(Failure::Function(match waited {
            Ok(Ok(Ok(offered))) => return Ok(offered),
            Ok(Ok(Err(lambent_runtime_api::Init::Error(error)))) => {
                Fault::InitError { error_type: error.error_type, body: error.body }
            }
            // It went on without having been asked to.
            Ok(Ok(Err(lambent_runtime_api::Init::Ready))) => {
                return Ok(Offered::Unsafe("its runtime takes no snapshot".to_owned()));
            }
            Ok(Err(_elapsed)) => Fault::InitTimedOut,
            Err(fault) => fault,
        }))
    }
}

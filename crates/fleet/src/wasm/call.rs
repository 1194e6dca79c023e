//! One call of a WebAssembly function: START, what the guest writes, END, REPORT; the answer in between.
//!
//! The same words as for a container's call, with what differs: a guest that traps or leaves is `Runtime.Trap` or `Runtime.ExitError`,
//! and its host process goes on. Only the first call after a version was loaded is a cold start; its init duration is what loading and
//! the first instance took.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambent_model::limits::{MIB, SYNC_RESPONSE_BYTES};
use lambent_model::{FunctionVersion, RequestId};
use lambent_runtime_api::{
    InitPhase, InitializationType, PlatformEvent, ReportMetrics, RuntimeDoneMetrics, Status, StreamError, TraceContext,
};
use lambent_sandbox::ExitStatus;
use lambent_sandbox::wasm::{Answer, CALLS, Done, Event, Host, Outcome, Request, monotonic_ns};
use tokio::sync::{mpsc, oneshot};

use super::Loaded;
use crate::call::Permit;
use crate::container::fault::{Fault, document};
use crate::container::meter::Outcome as Metered;
use crate::container::{Job, millis};
use crate::fleet::Inner;
use crate::log::{ContainerLog, Kind, Platform, Source, Splitter};
use crate::{
    Body, Call, Error, ErrorKind, FunctionResponse, LogTail, PrepareError, Report, ResponseMode, Stage, Stages,
    StartKind,
};

/// How often a call looks for a host process when the one it found had ended.
const ATTEMPTS: usize = 3;
/// Pieces of a streamed answer under way to the caller.
const PIECES: usize = 4;

type Pieces = mpsc::Sender<Result<Bytes, StreamError>>;

/// Runs a call to its end.
pub(crate) async fn run(fleet: Arc<Inner>, version: Arc<FunctionVersion>, job: Box<Job>) {
    let Job { call, response, finished, mut stages, .. } = *job;
    stages.end(Stage::Queue);
    let (request, mut caller) = Caller::of(call, &version, &fleet, (response, stages));
    let began = Instant::now();
    match place(&fleet, &version, request).await {
        Err(error) => {
            tracing::error!(function = %version.arn, error = &error as &dyn std::error::Error, "a wasm call was not run");
            caller.refuse(error);
        }
        Ok((host, loaded, answer)) => {
            caller.stages.end(Stage::Container);
            let start = match loaded.fresh.swap(false, Ordering::AcqRel) {
                true => StartKind::Cold,
                false => StartKind::Warm,
            };
            let log = loaded.log.beside();
            let running = Running { fleet, version, loaded, log, lines: Splitter::new(Kind::Text), start, caller };
            if let Some(report) = running.run(&host, answer, began).await {
                let _ = finished.send(report);
            }
        }
    }
}

/// Hands the call to a host process that takes it.
async fn place(
    fleet: &Arc<Inner>,
    version: &FunctionVersion,
    mut request: Request,
) -> Result<(Arc<Host>, Arc<Loaded>, Answer), Error> {
    for _ in 0..ATTEMPTS {
        let (host, loaded) = match fleet.wasm.ready(version) {
            Some(ready) => ready,
            None => match fleet.wasm.place(fleet, version).await {
                // The one it was given had ended, too, and nobody had noticed.
                Err(Error::Sandbox(lambent_sandbox::Error::Ended)) => continue,
                placed => placed?,
            },
        };
        request.slot = loaded.slot();
        match host.call(request) {
            Ok(answer) => return Ok((host, loaded, answer)),
            // It ended in between; nothing of the call had begun.
            Err(back) => request = *back,
        }
    }
    Err(Error::Lost)
}

/// Who waits for the answer, and what is known of the call.
struct Caller {
    request_id: RequestId,
    trace: Option<String>,
    received_at: Instant,
    log_tail: LogTail,
    permit: Option<Permit>,
    response: Option<oneshot::Sender<Result<FunctionResponse, Error>>>,
    stages: Stages,
    streaming: bool,
    pieces: Option<Pieces>,
}

impl Caller {
    fn of(
        call: Call,
        version: &FunctionVersion,
        fleet: &Inner,
        (response, stages): (oneshot::Sender<Result<FunctionResponse, Error>>, Stages),
    ) -> (Request, Self) {
        let now = fleet.clock.now();
        let deadline = now.saturating_add(version.timeout).unwrap_or(jiff::Timestamp::MAX).as_millisecond();
        let streaming = call.mode == ResponseMode::Streaming;
        let request = Request {
            slot: 0,
            streaming,
            deadline_ms: u64::try_from(deadline).unwrap_or(0),
            timeout: version.timeout,
            request_id: call.request_id.to_string(),
            invoked_arn: call.invoked_arn,
            trace: call.trace.clone(),
            client_context: call.client_context,
            identity: call.cognito_identity,
            event: call.payload,
        };
        let caller = Self {
            request_id: call.request_id,
            trace: call.trace,
            received_at: call.received_at,
            log_tail: call.log_tail,
            permit: call.permit,
            response: Some(response),
            stages,
            streaming,
            pieces: None,
        };
        (request, caller)
    }

    fn answer(&mut self, response: Result<FunctionResponse, Error>) {
        if let Some(sender) = self.response.take() {
            let _ = sender.send(response);
        }
    }

    fn succeed(&mut self, content_type: String, body: Bytes) {
        self.permit = None;
        self.stages.end(Stage::Handler);
        let (body, stages) = (Body::Buffered(body), self.stages);
        self.answer(Ok(FunctionResponse::Success { content_type, body, stages, affinity: None }));
    }

    /// Fails the call; a stream that has begun is broken off.
    async fn fail(&mut self, error_type: &str, payload: Bytes) {
        self.permit = None;
        if let Some(pieces) = self.pieces.take() {
            let error = StreamError { error_type: error_type.to_owned(), body: payload.clone() };
            let _ = pieces.send(Err(error)).await;
        }
        let stage = if self.response.is_some() { Stage::Handler } else { Stage::Answer };
        self.stages.end(stage);
        let stages = self.stages;
        self.answer(Ok(FunctionResponse::FunctionError {
            kind: ErrorKind::Unhandled,
            payload,
            stages,
            affinity: None,
        }));
    }

    fn refuse(mut self, error: Error) {
        self.permit = None;
        self.answer(Err(error));
    }

    /// Passes a piece on; whoever is gone does not stop the function.
    async fn piece(&mut self, bytes: Bytes) {
        if self.response.is_some() && self.streaming {
            let (sender, pieces) = mpsc::channel(PIECES);
            self.pieces = Some(sender);
            let content_type = "application/vnd.awslambda.http-integration-response".to_owned();
            self.stages.end(Stage::Handler);
            let (body, stages) = (Body::Stream(pieces), self.stages);
            self.answer(Ok(FunctionResponse::Success { content_type, body, stages, affinity: None }));
        }
        if let Some(pieces) = &self.pieces {
            let _ = pieces.send(Ok(bytes)).await;
        }
    }
}

/// How a call went, as logs, metrics and the report have it.
struct End {
    status: Status,
    error_type: Option<String>,
    metered: Metered,
}

/// A call under way.
struct Running {
    fleet: Arc<Inner>,
    version: Arc<FunctionVersion>,
    loaded: Arc<Loaded>,
    log: ContainerLog,
    lines: Splitter,
    start: StartKind,
    caller: Caller,
}

impl Running {
    /// None: the call never ran, which its caller was told.
    async fn run(mut self, host: &Host, mut answer: Answer, began: Instant) -> Option<Report> {
        // The monotonic clock of the other process, in this one's terms.
        let received_ns = monotonic_ns().saturating_sub(nanos(self.caller.received_at.elapsed()));
        self.log.room().await;
        self.log.keep_tail(self.caller.log_tail == LogTail::Tail);
        self.begin();
        let done = loop {
            match answer.next().await {
                Some(Event::Log(bytes)) => {
                    self.log.room().await;
                    self.write(&bytes);
                }
                Some(Event::Piece(bytes)) => self.caller.piece(bytes).await,
                Some(Event::Done(done)) => break *done,
                None => {
                    let end = self.lost(host.ended().await).await;
                    return Some(self.report(end, began.elapsed(), 0, None, Duration::ZERO));
                }
            }
        };
        self.write(&done.log);
        if let Some(line) = self.lines.finish() {
            self.log.line(Source::Function, line, self.fleet.clock.now());
        }
        match done.outcome {
            Outcome::NotRun => {
                self.not_run(&done).await;
                return None;
            }
            Outcome::Busy => {
                self.caller.refuse(Error::Full { containers: CALLS, memory_mib: 0 });
                return None;
            }
            _ => {}
        }
        let latency = match done.began_ns {
            0 => self.caller.received_at.elapsed(),
            at => Duration::from_nanos(at.saturating_sub(received_ns)),
        };
        self.loaded.meters.started(self.start, latency);
        let took = match done.outcome {
            Outcome::TimedOut => self.version.timeout,
            _ => began.elapsed(),
        };
        // Everything before the guest's first instruction: a host process, loading, an instance.
        let init = (self.start == StartKind::Cold && done.began_ns > 0).then(|| {
            let before = Duration::from_nanos(done.began_ns.saturating_sub(received_ns));
            before.saturating_sub(began.duration_since(self.caller.received_at)).min(took)
        });
        let memory = done.memory_bytes;
        let end = self.end(done).await;
        Some(self.report(end, took - init.unwrap_or_default(), memory, init, latency))
    }

    fn begin(&mut self) {
        if self.start == StartKind::Cold {
            let version = &self.version;
            self.say(&Platform::Event(PlatformEvent::InitStart {
                initialization_type: InitializationType::OnDemand,
                phase: InitPhase::Init,
                function_name: version.arn.name.to_string(),
                function_version: version.version.to_string(),
                instance_id: self.caller.request_id.to_string(),
                instance_max_memory: u64::from(version.memory_mib) * MIB,
                runtime_version: Some("provided:wasm.v1".to_owned()),
                runtime_version_arn: None,
            }));
        }
        let (request_id, version) = (self.caller.request_id, self.version.version.to_string());
        let tracing = self.tracing();
        self.say(&Platform::Event(PlatformEvent::Start { request_id, version, tracing }));
    }

    fn tracing(&self) -> Option<TraceContext> {
        self.caller.trace.as_deref().map(TraceContext::of_header)
    }

    fn say(&mut self, line: &Platform) {
        self.log.platform(line, self.fleet.clock.now());
    }

    /// What the guest wrote.
    fn write(&mut self, bytes: &[u8]) {
        let (now, log) = (self.fleet.clock.now(), &mut self.log);
        self.lines.feed(bytes, |line| log.line(Source::Function, line, now));
    }

    /// Tells the caller how the call ended.
    async fn end(&mut self, done: Done) -> End {
        let request_id = self.caller.request_id;
        match done.outcome {
            Outcome::Success => {
                // Closes a stream, where there is one.
                self.caller.pieces = None;
                self.caller.succeed(done.content_type, done.answer);
                End { status: Status::Success, error_type: None, metered: Metered::Success }
            }
            Outcome::Error => {
                let payload = document(&done.error_type, &done.message);
                self.caller.fail(&done.error_type, payload).await;
                End { status: Status::Error, error_type: Some(done.error_type), metered: Metered::FunctionError }
            }
            Outcome::TooLarge => {
                let message = format!(
                    "Response payload size exceeded maximum allowed payload size ({SYNC_RESPONSE_BYTES} bytes)."
                );
                let error_type = "Function.ResponseSizeTooLarge".to_owned();
                self.caller.fail(&error_type, document(&error_type, &message)).await;
                End { status: Status::Error, error_type: Some(error_type), metered: Metered::FunctionError }
            }
            Outcome::TimedOut => {
                let fault = Fault::TimedOut(self.version.timeout);
                self.caller.fail(fault.error_type(), fault.document(request_id)).await;
                self.say(&Platform::TimedOut(request_id, self.version.timeout));
                End { status: Status::Timeout, error_type: None, metered: Metered::TimedOut }
            }
            Outcome::Trapped | Outcome::OutOfMemory | Outcome::OutOfFuel | Outcome::NotRun | Outcome::Busy => {
                let message = format!("RequestId: {request_id} Error: {}", done.message);
                self.caller.fail(&done.error_type, document(&done.error_type, &message)).await;
                self.died(done.message, done.error_type)
            }
        }
    }

    fn died(&mut self, error: String, error_type: String) -> End {
        let request_id = self.caller.request_id;
        self.say(&Platform::Died { request_id, error, error_type: error_type.clone() });
        End { status: Status::Failure, error_type: Some(error_type), metered: Metered::Crashed }
    }

    /// The host process ended under the call.
    async fn lost(&mut self, status: ExitStatus) -> End {
        let fault = Fault::Exited(status);
        self.caller.fail(fault.error_type(), fault.document(self.caller.request_id)).await;
        self.died(fault.error(), fault.error_type().to_owned())
    }

    /// The host process did not run it.
    async fn not_run(mut self, done: &Done) {
        tracing::error!(function = %self.version.arn, reason = done.message, "a wasm host did not run a call");
        self.fleet.wasm.distrust(&self.version).await;
        let (digest, reason) = (self.version.code.digest, done.message.clone());
        self.caller.answer(Err(Error::Prepare(PrepareError::Component { digest, reason })));
    }

    /// END, REPORT and metrics; the report for the caller.
    fn report(mut self, end: End, took: Duration, memory: u64, init: Option<Duration>, latency: Duration) -> Report {
        self.caller.permit = None;
        let billed_millis = (took + init.unwrap_or_default()).as_nanos().div_ceil(1_000_000);
        let billed = u64::try_from(billed_millis).unwrap_or(u64::MAX);
        let memory = u32::try_from(memory.div_ceil(MIB)).unwrap_or(u32::MAX).min(self.version.memory_mib);
        let (request_id, tracing) = (self.caller.request_id, self.tracing());
        let End { status, error_type, metered } = end;
        let metrics = RuntimeDoneMetrics { duration_ms: millis(took), produced_bytes: None };
        self.say(&Platform::Event(PlatformEvent::RuntimeDone {
            request_id,
            status,
            error_type: error_type.clone(),
            metrics: Some(metrics),
            spans: Vec::new(),
            tracing: tracing.clone(),
        }));
        self.say(&Platform::End(request_id));
        let metrics = ReportMetrics {
            duration_ms: millis(took),
            billed_duration_ms: billed,
            memory_size_mb: self.version.memory_mib,
            max_memory_used_mb: memory,
            init_duration_ms: init.map(millis),
            restore_duration_ms: None,
            billed_restore_duration_ms: None,
            waited_duration_ms: None,
        };
        let (stages, event) =
            (self.caller.stages, PlatformEvent::Report { request_id, status, error_type, metrics, tracing });
        self.say(&Platform::Report(event, self.fleet.config.report_stages.then_some(stages)));
        self.fleet.stages.record(self.start, &stages);
        self.loaded.meters.ended(metered, took);
        Report {
            duration: took,
            billed: Duration::from_millis(billed),
            init,
            max_memory_mib: memory,
            start: self.start,
            start_latency: latency,
            stages,
            log_tail: self.log.take_tail(),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! One call in a container: the invoke phase.
//!
//! ```text
//! START ─► event handed over ─► answer (handed back at once) ─► runtime and extensions ask for the next event ─► END, REPORT
//!                    └──────────────── time-out, or a process dies ────────────────┘
//! ```
//!
//! The caller's answer never waits for what comes after it: draining output, metering and reporting happen while the answer travels.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambent_model::limits::SYNC_RESPONSE_BYTES;
use lambent_runtime_api::{
    InFlight, Invoke, PlatformEvent, ReportMetrics, Response, RuntimeDoneMetrics, Seat, Span, Status, StreamError,
    TraceContext,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, info_span};

use super::fault::{Fault, document};
use super::meter::Outcome;
use super::rest::Rest;
use super::state::{Event, Why};
use super::stream::{Breaker, relay};
use super::{Job, Owner, millis};
use crate::call::Permit;
use crate::log::Platform;
use crate::{AffinityOutcome, Body, Error, ErrorKind, FunctionResponse, LogTail, Report, Stage, Stages, StartKind};

/// A call under way: what is known of it, and what its caller still waits for.
struct Current {
    request_id: lambent_model::RequestId,
    trace: Option<String>,
    start: StartKind,
    start_latency: Duration,
    stages: Stages,
    init: Option<Duration>,
    restore: Option<Duration>,
    began: Instant,
    permit: Option<Permit>,
    seat: Option<Arc<dyn Seat>>,
    response: Option<oneshot::Sender<Result<FunctionResponse, Error>>>,
    finished: oneshot::Sender<Report>,
    breaker: Option<Breaker>,
    /// What the function itself reported as its error.
    error_type: Option<String>,
    outcome: Outcome,
    affinity: Option<AffinityOutcome>,
}

impl Current {
    fn answer(&mut self, response: Result<FunctionResponse, Error>) {
        if let Some(sender) = self.response.take() {
            // A caller who left does not stop the function.
            let _ = sender.send(response);
        }
    }

    fn fail(&mut self, payload: Bytes) {
        self.permit = None;
        let (kind, stages, affinity) = (ErrorKind::Unhandled, self.stages, self.affinity);
        self.answer(Ok(FunctionResponse::FunctionError { kind, payload, stages, affinity }));
    }

    fn tracing(&self) -> Option<TraceContext> {
        self.trace.as_deref().map(TraceContext::of_header)
    }
}

/// What a call's end is reported with.
struct End<'a> {
    fault: Option<&'a Fault>,
    duration: Duration,
    runtime_done: Option<RuntimeDoneMetrics>,
    spans: Vec<Span>,
}

impl Owner {
    /// Runs one call; an error says why the container cannot take another. `began` is where its duration is counted from.
    pub(super) async fn call(
        &mut self,
        job: Box<Job>,
        start: StartKind,
        init: Option<Duration>,
        began: Instant,
    ) -> Result<(), Why> {
        let Some(live) = &self.live else { return Err(self.lose(job, Error::Lost)) };
        let api = Arc::clone(&live.api);
        let rest = Rest::of(job.call.permit.as_ref().and_then(Permit::pause), live, &self.fleet, self.id);
        let span = info_span!(parent: &job.span, "run", container = %self.id, start = ?start);
        let (mut current, invoke) = self.begin(*job, start, init, began);
        let until = began + self.function.timeout;
        let inflight = api.invoke(invoke);
        let worked = self.work(&mut current, rest.as_ref(), inflight, until).instrument(span).await;
        drop(rest);
        let fault = match worked {
            Ok(end) => {
                // The pool may hand over the next call from here on; it waits in the queue while this one is reported.
                self.report(current, end).await;
                self.log.room().await;
                self.fleet.pool().finished(self.id);
                return Ok(());
            }
            Err(fault) => fault,
        };
        Err(self.fail(current, fault).await)
    }

    /// A call whose container never came up.
    pub(super) async fn fail_unstarted(&mut self, job: Box<Job>, began: Instant, fault: Fault) -> Why {
        let (current, _invoke) = self.begin(*job, StartKind::Cold, None, began);
        self.fail(current, fault).await
    }

    fn begin(&mut self, job: Job, start: StartKind, init: Option<Duration>, began: Instant) -> (Current, Invoke) {
        let Job { call, response, finished, mut stages, affinity, span: _ } = job;
        if start == StartKind::Warm {
            stages.end(Stage::Queue);
        }
        if start == StartKind::Warm || init.is_some() || self.restored.is_some() {
            self.log.keep_tail(call.log_tail == LogTail::Tail);
        }
        let start_latency = call.received_at.elapsed();
        let seat = call.permit.as_ref().and_then(Permit::seat);
        let current = Current {
            request_id: call.request_id,
            trace: call.trace.clone(),
            start,
            start_latency,
            stages,
            init,
            restore: self.restored.take(),
            began,
            permit: call.permit,
            seat: seat.clone(),
            response: Some(response),
            finished,
            breaker: None,
            error_type: None,
            outcome: Outcome::Success,
            affinity,
        };
        self.meters.started(start, start_latency);
        let version = self.function.version.to_string();
        self.say(&Platform::Event(PlatformEvent::Start {
            request_id: call.request_id,
            version,
            tracing: current.tracing(),
        }));
        let left = self.function.timeout.saturating_sub(began.elapsed());
        let invoke = Invoke {
            request_id: call.request_id,
            deadline: self.fleet.clock.now().saturating_add(left).unwrap_or(jiff::Timestamp::MAX),
            invoked_arn: call.invoked_arn,
            payload: call.payload,
            client_context: call.client_context,
            cognito_identity: call.cognito_identity,
            trace: call.trace,
            tenant: call.tenant.as_deref().map(str::to_owned),
            mode: call.mode,
            seat,
        };
        (current, invoke)
    }

    /// Waits for the answer, hands it back, and waits for everybody to be done.
    async fn work(
        &mut self,
        current: &mut Current,
        rest: Option<&Rest>,
        inflight: InFlight,
        until: Instant,
    ) -> Result<End<'static>, Fault> {
        let InFlight { response, done, idle } = inflight;
        let response = self.wait(until, rest, response).await?;
        self.hand_back(current, response);
        self.tell(Event::Answered);
        let done = self.wait(until, rest, done).await?;
        current.stages.end(Stage::Answer);
        let duration = current.began.elapsed();
        self.wait(until, rest, idle).await?;
        let runtime_done =
            RuntimeDoneMetrics { duration_ms: millis(duration), produced_bytes: Some(done.produced_bytes) };
        let latency = done.latency.unwrap_or_default();
        let spans = spans(self.fleet.clock.now(), duration, latency, done.duration);
        // Extensions count into the duration, as on AWS.
        Ok(End { fault: None, duration: current.began.elapsed(), runtime_done: Some(runtime_done), spans })
    }

    /// One of the Runtime API's promises, or what kept it from being kept. Meanwhile the container may be frozen; whoever keeps a promise runs.
    async fn wait<T>(
        &mut self,
        until: Instant,
        rest: Option<&Rest>,
        promise: oneshot::Receiver<T>,
    ) -> Result<T, Fault> {
        let timeout = self.function.timeout;
        let Some(live) = &mut self.live else { return Err(Fault::NodeStops) };
        let promise = timeout_at(until, promise);
        let promise = async {
            let Some(rest) = rest else { return promise.await };
            tokio::select! {
                biased;
                kept = promise => kept,
                never = rest.keep() => match never {},
            }
        };
        match live.tend(&self.fleet, &mut self.log, promise).await {
            Ok(Ok(Ok(kept))) => {
                if let Some(rest) = rest {
                    rest.settle().await;
                }
                Ok(kept)
            }
            Ok(Ok(Err(_gone))) => {
                // Refused or shut down under us; only a fault of this node does that, or a runtime that never was idle.
                tracing::error!(container = %self.id, "the Runtime API gave a call up");
                Err(Fault::NodeStops)
            }
            Ok(Err(_elapsed)) => Err(Fault::TimedOut(timeout)),
            Err(fault) => Err(fault),
        }
    }

    /// Gives the caller what the runtime answered.
    fn hand_back(&mut self, current: &mut Current, response: Response) {
        current.stages.end(Stage::Handler);
        let (stages, affinity) = (current.stages, current.affinity);
        match response {
            Response::Success { content_type, body: Body::Buffered(body), .. } => {
                current.permit = None;
                current.answer(Ok(FunctionResponse::Success {
                    content_type,
                    body: Body::Buffered(body),
                    stages,
                    affinity,
                }));
            }
            Response::Success { content_type, body: Body::Stream(pieces), .. } => {
                let (pieces, breaker) = relay(pieces);
                current.breaker = Some(breaker);
                current.answer(Ok(FunctionResponse::Success {
                    content_type,
                    body: Body::Stream(pieces),
                    stages,
                    affinity,
                }));
            }
            Response::Error { error_type, body, .. } => {
                current.error_type = Some(error_type.unwrap_or_else(|| "Runtime.Unknown".to_owned()));
                current.outcome = Outcome::FunctionError;
                current.fail(body);
            }
            Response::TooLarge { .. } => {
                let error_type = "Function.ResponseSizeTooLarge";
                let message = format!(
                    "Response payload size exceeded maximum allowed payload size ({SYNC_RESPONSE_BYTES} bytes)."
                );
                current.error_type = Some(error_type.to_owned());
                current.outcome = Outcome::FunctionError;
                current.fail(document(error_type, &message));
            }
        }
    }

    /// Ends a call that the platform found at fault; the container ends with it.
    async fn fail(&mut self, mut current: Current, fault: Fault) -> Why {
        let duration = match fault {
            // What went beyond the time-out is the platform's, not the function's.
            Fault::TimedOut(timeout) => timeout,
            _ => current.began.elapsed(),
        };
        let stage = if current.response.is_some() { Stage::Handler } else { Stage::Answer };
        current.stages.end(stage);
        let payload = fault.document(current.request_id);
        if let Some(breaker) = current.breaker.take() {
            breaker.break_off(StreamError { error_type: fault.error_type().to_owned(), body: payload.clone() });
        }
        match fault {
            Fault::NodeStops => current.answer(Err(Error::ShuttingDown)),
            _ => current.fail(payload),
        }
        current.outcome = if let Fault::TimedOut(_) = fault { Outcome::TimedOut } else { Outcome::Crashed };
        let request_id = current.request_id;
        if let Some(live) = &mut self.live {
            live.drain(&self.fleet, &mut self.log);
            self.memory.read(live.cell.as_ref()).await;
        }
        let line = match &fault {
            Fault::TimedOut(timeout) => Some(Platform::TimedOut(request_id, *timeout)),
            Fault::InitError { .. } => None,
            fault => {
                let (error, error_type) = (fault.error(), fault.error_type().to_owned());
                Some(Platform::Died { request_id, error, error_type })
            }
        };
        if let Some(line) = line {
            self.say(&line);
        }
        let why = fault.why();
        // In the books it ends now, so that nobody waits for it.
        self.tell(Event::Broken(why));
        self.report(current, End { fault: Some(&fault), duration, runtime_done: None, spans: Vec::new() }).await;
        why
    }

    /// END, REPORT and their telemetry; metrics; the report for the caller.
    async fn report(&mut self, mut current: Current, end: End<'_>) {
        if let Some(live) = &mut self.live {
            live.drain(&self.fleet, &mut self.log);
            self.memory.refresh(live.cell.as_ref()).await;
        }
        current.permit = None;
        let status = match (end.fault, &current.error_type) {
            (Some(fault), _) => fault.status(),
            (None, Some(_)) => Status::Error,
            (None, None) => Status::Success,
        };
        let error_type = match end.fault {
            Some(_) if status == Status::Timeout => None,
            Some(fault) => Some(fault.error_type().to_owned()),
            None => current.error_type.take(),
        };
        // Whoever waits for calls of its own is not at work; it is said beside what is billed.
        let waited = current.seat.take().map(|seat| seat.waited().min(end.duration)).filter(|waited| !waited.is_zero());
        let worked = end.duration.saturating_sub(waited.unwrap_or_default());
        let billed_millis = (worked + current.init.unwrap_or_default()).as_nanos().div_ceil(1_000_000);
        let billed = u64::try_from(billed_millis).unwrap_or(u64::MAX);
        let memory = self.memory.peak_mib(self.function.memory_mib);
        let (request_id, tracing) = (current.request_id, current.tracing());
        self.say(&Platform::Event(PlatformEvent::RuntimeDone {
            request_id,
            status,
            error_type: error_type.clone(),
            metrics: end.runtime_done,
            spans: end.spans,
            tracing: tracing.clone(),
        }));
        self.say(&Platform::End(request_id));
        let metrics = ReportMetrics {
            duration_ms: millis(end.duration),
            billed_duration_ms: billed,
            memory_size_mb: self.function.memory_mib,
            max_memory_used_mb: memory,
            init_duration_ms: current.init.map(millis),
            restore_duration_ms: current.restore.map(millis),
            billed_restore_duration_ms: current.restore.map(whole_millis),
            waited_duration_ms: waited.map(millis),
        };
        let event = PlatformEvent::Report { request_id, status, error_type, metrics, tracing };
        let stages = self.fleet.config.report_stages.then_some(current.stages);
        self.say(&Platform::Report(event, stages));
        self.fleet.stages.record(current.start, &current.stages);
        self.meters.ended(current.outcome, end.duration);
        if let Some(waited) = waited {
            metrics::counter!("lambent_waited_milliseconds_total").increment(whole_millis(waited));
        }
        if let Some(affinity) = current.affinity {
            let took = (current.outcome == Outcome::Success).then_some(end.duration);
            // What was not there before is stored now.
            if let (AffinityOutcome::Miss | AffinityOutcome::Spill, Some(live)) = (affinity, &self.live) {
                self.memory.read(live.cell.as_ref()).await;
            }
            self.fleet.pool().served(self.id, affinity, took, self.memory.bytes());
        }
        let report = Report {
            duration: end.duration,
            billed: Duration::from_millis(billed),
            init: current.init,
            max_memory_mib: memory,
            start: current.start,
            start_latency: current.start_latency,
            stages: current.stages,
            log_tail: self.log.take_tail(),
        };
        let _ = current.finished.send(report);
    }
}

/// Begun milliseconds.
fn whole_millis(took: Duration) -> u64 {
    u64::try_from(took.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The parts of a runtime's time, as telemetry has them.
fn spans(now: jiff::Timestamp, took: Duration, latency: Duration, response: Duration) -> Vec<Span> {
    let began = now.saturating_sub(took).unwrap_or(now);
    let answered = began.saturating_add(latency).unwrap_or(now);
    let span = |name, start, duration| Span {
        name,
        start: lambent_model::clock::rfc3339_millis(start),
        duration_ms: millis(duration),
    };
    vec![span("responseLatency", began, latency), span("responseDuration", answered, response)]
}

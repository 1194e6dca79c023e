//! An invocation: resolve, check, admit, run, answer. In that order, because AWS's errors show that order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use lambent_fleet::{
    AffinityOutcome, AffinityValue, Body, Call, ErrorKind, Fleet, FunctionResponse, LogTail, Permit, Report,
    ResponseMode, Stages,
};
use lambent_model::{Clock, FunctionArn, FunctionVersion, Qualifier, RequestId, Version, limits};
use lambent_registry::{EventSettings, Registry, Resolved, State};
use tokio::sync::oneshot;

use crate::admission::{Admission, Concurrency, ThrottleReason};
use crate::busy_poll::BusyPoll;
use crate::calls::{Books, Seat, Turn};
use crate::choice::Choice;
use crate::deadlines::Deadlines;
use crate::deadlines::line::Room;
use crate::executions::{Ask, Execution, Executions, Run};
use crate::{Error, affinity, trace};

/// What an invoker needs of the control plane: an in-memory snapshot.
pub trait Directory: Send + Sync + 'static {
    /// What function and qualifier stand for now.
    fn resolve(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error>;

    /// The sum of all reserved concurrency of the account.
    fn reserved_total(&self) -> u32;

    /// What is to become of events of this function.
    fn event_settings(
        &self,
        arn: &FunctionArn,
        qualifier: Option<&Qualifier>,
    ) -> Result<EventSettings, lambent_registry::Error>;
}

impl Directory for Registry {
    fn resolve(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error> {
        Registry::resolve(self, arn, qualifier)
    }

    fn reserved_total(&self) -> u32 {
        Registry::reserved_total(self)
    }

    fn event_settings(
        &self,
        arn: &FunctionArn,
        qualifier: Option<&Qualifier>,
    ) -> Result<EventSettings, lambent_registry::Error> {
        Registry::event_settings(self, arn, qualifier)
    }
}

/// A request to run a function.
#[derive(Debug)]
pub struct Invocation {
    /// Which function.
    pub function: FunctionArn,
    /// Which version of it.
    pub qualifier: Option<Qualifier>,
    /// The id the caller is told.
    pub request_id: RequestId,
    /// The event.
    pub payload: Bytes,
    /// `X-Amz-Client-Context`, decoded to JSON text.
    pub client_context: Option<String>,
    /// The Cognito identity, as JSON text.
    pub cognito_identity: Option<String>,
    /// `X-Amzn-Trace-Id` as the caller sent it.
    pub trace: Option<String>,
    /// `X-Amz-Tenant-Id`, checked against its pattern.
    pub tenant: Option<String>,
    /// What it shares with the calls that belong to the same container; none: what is in the payload, where that is configured.
    pub affinity: Option<AffinityValue>,
    /// How the answer is wanted.
    pub mode: Mode,
    /// When the request reached this node.
    pub received_at: Instant,
    /// What it says of itself, beside what is configured for the function.
    pub idempotency: Option<Ask>,
    /// The turn it had in the line of calls; none: it takes a place or is throttled.
    pub turn: Option<Turn>,
}

/// How the answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whole.
    Buffered {
        /// Whether with the end of the log.
        log_tail: LogTail,
    },
    /// As it comes.
    Streaming {
        /// Whether with the end of the log, after the stream.
        log_tail: LogTail,
    },
}

/// What a function answered.
#[derive(Debug)]
pub struct Answer {
    /// `X-Amz-Executed-Version`.
    pub executed_version: Version,
    /// The id of the invocation.
    pub request_id: RequestId,
    /// `X-Amz-Function-Error`; the body then is the error document.
    pub error: Option<ErrorKind>,
    /// What the function said its answer is.
    pub content_type: String,
    /// The answer.
    pub body: Body,
    /// Where the time went until the answer began.
    pub stages: Stages,
    /// The end of the log, for [`Mode::Buffered`] that asked for it.
    pub log_tail: Option<Bytes>,
    /// What the invocation took, once it is over; none when that was waited for already. Streams learn their log tail here.
    pub finished: Option<oneshot::Receiver<Report>>,
    /// How it came about, where executions are kept; none: it ran, and that is all.
    pub execution: Option<Execution>,
    /// Whether a call that belongs to a container found it; none: it belongs to none, or did not run.
    pub affinity: Option<AffinityOutcome>,
}

/// The one door.
pub struct Invoker {
    directory: Arc<dyn Directory>,
    fleet: Arc<Fleet>,
    admission: Arc<Admission>,
    choice: Choice,
    busy_poll: Arc<BusyPoll>,
    clock: Arc<dyn Clock>,
    draining: AtomicBool,
    /// Set once, when a node is put together.
    executions: OnceLock<Arc<Executions>>,
    /// What the calls hold that functions have started.
    books: Arc<Books>,
    /// What is told how long functions run.
    deadlines: Arc<Deadlines>,
    me: Weak<Self>,
}

impl Invoker {
    /// A door in front of `fleet`. `seed` decides what is left to chance.
    pub fn new(
        directory: Arc<dyn Directory>,
        fleet: Arc<Fleet>,
        limits: Concurrency,
        busy_poll: Arc<BusyPoll>,
        clock: Arc<dyn Clock>,
        deadlines: Arc<Deadlines>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            directory,
            fleet,
            admission: Admission::new(limits),
            choice: Choice::seeded(seed),
            busy_poll,
            clock,
            draining: AtomicBool::new(false),
            executions: OnceLock::new(),
            books: Arc::default(),
            deadlines,
            me: me.clone(),
        })
    }

    /// Runs a function and gives its answer. When this future is dropped the function runs on, as on AWS.
    #[tracing::instrument(name = "invoke", level = "info", skip_all, fields(function = %invocation.function, request_id = %invocation.request_id))]
    pub async fn invoke(&self, invocation: Invocation) -> Result<Answer, Error> {
        let mut resolved = self.resolve(&invocation)?;
        resolved.version = self.choice.version(resolved.version, resolved.additional.take());
        if (resolved.idempotency.is_some() || invocation.idempotency.is_some())
            && let (Some(executions), Some(me)) = (self.executions.get(), self.me.upgrade())
        {
            let answer = executions.invoke(me, resolved, invocation).await;
            // An answer on record is there at once, and the caller's next call comes as soon as after one that ran.
            self.busy_poll.expect(self.running());
            return answer;
        }
        self.run_here(resolved, invocation).await
    }

    /// Has executions kept from now on, for functions and requests that want it.
    pub fn keep_executions(&self, executions: Arc<Executions>) {
        // A second call changes nothing.
        let _ = self.executions.set(executions);
    }

    /// Admits and runs what was resolved; its version was chosen.
    async fn run_here(&self, resolved: Resolved, mut invocation: Invocation) -> Result<Answer, Error> {
        let permit = match invocation.turn.take() {
            Some(turn) => turn.place(|| self.admit(&invocation, &resolved))?,
            None => self.admit(&invocation, &resolved)?,
        };
        let begun = Instant::now();
        if let (Some(setting), None) = (&resolved.affinity, invocation.affinity) {
            invocation.affinity = affinity::in_payload(setting, &invocation.payload);
        }
        let (version, invoked_arn) = (resolved.version, resolved.invoked_arn);
        let request_id = invocation.request_id;
        let (mode, log_tail) = match invocation.mode {
            Mode::Buffered { log_tail } => (ResponseMode::Buffered, log_tail),
            Mode::Streaming { log_tail } => (ResponseMode::Streaming, log_tail),
        };
        let call = self.call(invocation, &version, invoked_arn, (mode, log_tail), permit);
        let executed_version = version.version;
        let running = self.fleet.invoke(version.clone(), call).await?;
        self.busy_poll.expect(self.running());
        let response = running.response.await.unwrap_or(Err(lambent_fleet::Error::Lost))?;
        self.busy_poll.expect(self.running());
        let (error, content_type, body, stages, affinity) = match response {
            FunctionResponse::Success { content_type, body, stages, affinity } => {
                (None, content_type, body, stages, affinity)
            }
            FunctionResponse::FunctionError { kind, payload, stages, affinity } => {
                (Some(kind), "application/json".to_owned(), Body::Buffered(payload), stages, affinity)
            }
        };
        // Of a stream nobody knows yet how long it will take.
        if matches!(body, Body::Buffered(_)) {
            self.deadlines.ran(&version, begun.elapsed());
        }
        let mut answer = Answer {
            executed_version,
            request_id,
            error,
            content_type,
            body,
            stages,
            log_tail: None,
            finished: None,
            execution: None,
            affinity,
        };
        match (mode, log_tail) {
            // The tail holds the END and REPORT lines, so it is there only when all is over.
            (ResponseMode::Buffered, LogTail::Tail) => {
                answer.log_tail = running.finished.await.ok().and_then(|report| report.log_tail);
            }
            _ => answer.finished = Some(running.finished),
        }
        Ok(answer)
    }

    /// `InvocationType=DryRun`: whether the invocation would be let in. Nothing runs.
    pub fn dry_run(&self, invocation: &Invocation) -> Result<Version, Error> {
        let resolved = self.resolve(invocation)?;
        let _permit = self.admit(invocation, &resolved)?;
        Ok(resolved.version.version)
    }

    /// Refuses new invocations and waits until the running ones have been answered, at most `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.draining.store(true, Ordering::Release);
        let _ = tokio::time::timeout(grace, self.admission.empty()).await;
    }

    /// Invocations running now.
    pub fn running(&self) -> u32 {
        self.admission.running()
    }

    /// What is told how long functions run.
    pub fn deadlines(&self) -> &Arc<Deadlines> {
        &self.deadlines
    }

    /// The version that a call would run, as far as that is decided before it does; and whether its answer may be on record.
    pub(crate) fn callee(
        &self,
        function: &FunctionArn,
        qualifier: Option<&Qualifier>,
    ) -> Result<(Version, bool), Error> {
        let resolved = self.directory.resolve(function, qualifier)?;
        Ok((resolved.version.version, resolved.idempotency.is_some()))
    }

    /// Places that are free now of those that functions without a reservation share.
    pub(crate) fn free_places(&self) -> usize {
        self.admission.free(self.directory.reserved_total()) as usize
    }

    /// Where a call of a function would run now. One that is turned off, or gone, will be told so when it runs.
    pub(crate) fn room(&self, function: &FunctionArn) -> Room {
        match self.reservation(function) {
            Ok(None) => Room::Shared,
            Ok(Some(reservation)) if reservation == 0 || self.admission.has_reserved(function, reservation) => {
                Room::Own
            }
            Ok(Some(_)) => Room::None,
            Err(_) => Room::Own,
        }
    }

    /// A place for a call; none: there is something wrong with the function.
    pub(crate) fn place(&self, function: &FunctionArn) -> Result<Option<crate::admission::Permit>, ThrottleReason> {
        match self.reservation(function) {
            Ok(reservation) if reservation != Some(0) => {
                self.admission.admit(function, reservation, self.directory.reserved_total()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether a function is turned off: it will not find a place, however long it waits.
    pub(crate) fn is_off(&self, function: &FunctionArn) -> bool {
        matches!(self.reservation(function), Ok(Some(0)))
    }

    fn reservation(&self, function: &FunctionArn) -> Result<Option<u32>, lambent_registry::Error> {
        self.directory.resolve(function, None).map(|resolved| resolved.reserved_concurrency)
    }

    /// Ends when an invocation gives its place back.
    pub(crate) fn place_left(&self) -> tokio::sync::futures::Notified<'_> {
        self.admission.place_left()
    }

    fn resolve(&self, invocation: &Invocation) -> Result<Resolved, Error> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Error::ShuttingDown);
        }
        let resolved = self.directory.resolve(&invocation.function, invocation.qualifier.as_ref())?;
        if invocation.payload.len() > limits::SYNC_REQUEST_BYTES {
            return Err(Error::TooLarge { limit: limits::SYNC_REQUEST_BYTES });
        }
        if let state @ (State::Pending | State::Failed) = resolved.state {
            return Err(Error::NotReady { state });
        }
        check_tenant(&resolved, invocation.tenant.as_deref())?;
        Ok(resolved)
    }

    fn admit(&self, invocation: &Invocation, resolved: &Resolved) -> Result<crate::admission::Permit, Error> {
        self.admission
            .admit(&invocation.function, resolved.reserved_concurrency, self.directory.reserved_total())
            .map_err(|reason| {
                metrics::counter!("lambent_throttles_total", "function" => invocation.function.name.to_string())
                    .increment(1);
                Error::Throttled { reason }
            })
    }

    fn call(
        &self,
        invocation: Invocation,
        version: &FunctionVersion,
        invoked_arn: String,
        (mode, log_tail): (ResponseMode, LogTail),
        permit: crate::admission::Permit,
    ) -> Call {
        let (seat, ticket) = Seat::of(permit, Arc::clone(&self.books));
        let trace = trace::header(invocation.trace, version.tracing, self.clock.now(), self.choice.trace());
        Call {
            request_id: invocation.request_id,
            invoked_arn,
            payload: invocation.payload,
            client_context: invocation.client_context,
            cognito_identity: invocation.cognito_identity,
            trace: Some(trace),
            tenant: invocation.tenant.map(Arc::from),
            affinity: invocation.affinity,
            received_at: invocation.received_at,
            mode,
            log_tail,
            permit: Some(Permit::seated(ticket, seat)),
        }
    }
}

#[async_trait]
impl Run for Invoker {
    async fn run(&self, resolved: Resolved, invocation: Invocation) -> Result<Answer, Error> {
        self.run_here(resolved, invocation).await
    }
}

/// Who isolates tenants must be told which; who does not must not.
pub(crate) fn check_tenant(resolved: &Resolved, tenant: Option<&str>) -> Result<(), Error> {
    match (resolved.version.per_tenant, tenant) {
        (true, None) => Err(Error::TenantMissing),
        (false, Some(_)) => Err(Error::TenantUnwanted),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

//! One call: what goes in, what comes out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambent_model::RequestId;
use lambent_runtime_api::{Body, ResponseMode, Seat};
use tokio::sync::oneshot;

use crate::affinity::{Outcome, Value};
use crate::{Error, Pause, Stages};

/// Whether the caller wants the last 4 KB of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTail {
    /// `LogType=None`.
    None,
    /// `LogType=Tail`.
    Tail,
}

/// An invocation that was resolved and admitted.
#[derive(Debug)]
pub struct Call {
    /// Its id.
    pub request_id: RequestId,
    /// The ARN it was called by, with the qualifier the caller used.
    pub invoked_arn: String,
    /// The event.
    pub payload: Bytes,
    /// `X-Amz-Client-Context`, decoded to JSON text.
    pub client_context: Option<String>,
    /// The Cognito identity, as JSON text.
    pub cognito_identity: Option<String>,
    /// `X-Amzn-Trace-Id`.
    pub trace: Option<String>,
    /// `X-Amz-Tenant-Id`, of a version that isolates tenants.
    pub tenant: Option<Arc<str>>,
    /// What it shares with the calls that belong to the same container.
    pub affinity: Option<Value>,
    /// When the request reached this node.
    pub received_at: Instant,
    /// How the answer is wanted.
    pub mode: ResponseMode,
    /// Whether the log tail is wanted.
    pub log_tail: LogTail,
    /// The caller's place among running calls; dropped just before the whole answer is handed back (for a stream: after its end).
    pub permit: Option<Permit>,
}

/// Whatever the caller holds while the call runs. The fleet only drops it.
pub struct Permit {
    #[allow(dead_code, reason = "its drop is what counts")]
    held: Box<dyn std::any::Any + Send>,
    seat: Option<(Arc<dyn Seat>, Arc<Pause>)>,
}

impl Permit {
    /// Wraps what is to be dropped.
    pub fn holding(held: impl std::any::Any + Send) -> Self {
        Self { held: Box::new(held), seat: None }
    }

    /// The same, of an invocation that has a seat, and tells by `pause` when its code is blocked.
    pub fn seated(held: impl std::any::Any + Send, seat: Arc<dyn Seat>, pause: Arc<Pause>) -> Self {
        Self { held: Box::new(held), seat: Some((seat, pause)) }
    }

    pub(crate) fn seat(&self) -> Option<Arc<dyn Seat>> {
        self.seat.as_ref().map(|(seat, _)| Arc::clone(seat))
    }

    pub(crate) fn pause(&self) -> Option<Arc<Pause>> {
        self.seat.as_ref().map(|(_, pause)| Arc::clone(pause))
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { held: _, seat: _ } = self;
        f.write_str("Permit")
    }
}

/// An accepted call. The response may come long before the report: extensions may run on after it.
#[derive(Debug)]
pub struct Running {
    /// What the function answered. An error of the channel means the same as `Err(Error::Lost)`.
    pub response: oneshot::Receiver<Result<FunctionResponse, Error>>,
    /// What it took. Comes after the response, and for a stream after its end.
    pub finished: oneshot::Receiver<Report>,
}

/// What a function answered.
#[derive(Debug)]
pub enum FunctionResponse {
    /// It returned.
    Success {
        /// What it said the body is; `application/json` unless it streams.
        content_type: String,
        /// The answer.
        body: Body,
        /// What led to it took so long.
        stages: Stages,
        /// Whether a call with a value found it.
        affinity: Option<Outcome>,
    },
    /// It failed; the caller gets `X-Amz-Function-Error` and the document.
    FunctionError {
        /// How it failed.
        kind: ErrorKind,
        /// The error document, JSON.
        payload: Bytes,
        /// What led to it took so long.
        stages: Stages,
        /// Whether a call with a value found it.
        affinity: Option<Outcome>,
    },
}

/// AWS's `FunctionError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The only kind AWS still sends.
    Unhandled,
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unhandled => f.write_str("Unhandled"),
        }
    }
}

/// How a call found its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKind {
    /// It had run before.
    Warm,
    /// It was made for this call.
    Cold,
}

/// What a call took.
#[derive(Debug, Clone)]
pub struct Report {
    /// From handing the event over until the answer was whole and extensions were done.
    pub duration: Duration,
    /// What AWS would bill: whole milliseconds, init included.
    pub billed: Duration,
    /// The init phase, where this call waited for one.
    pub init: Option<Duration>,
    /// Most memory the container ever used, rounded up.
    pub max_memory_mib: u32,
    /// How the container was found.
    pub start: StartKind,
    /// From the request's arrival until user code got the event.
    pub start_latency: Duration,
    /// Where the time went.
    pub stages: Stages,
    /// The last 4 KB of the call's log, where wanted.
    pub log_tail: Option<Bytes>,
}

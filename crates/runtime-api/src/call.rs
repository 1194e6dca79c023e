//! What goes in and out of a [`crate::RuntimeApi`].

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::{AccountId, ContainerId, FunctionVersion, RequestId};
use tokio::sync::{mpsc, oneshot};

pub use crate::answer::Done;

/// Opens connections to ports on the container's own loopback, where telemetry subscribers listen.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// A connection to `127.0.0.1:port` as seen from inside the container.
    async fn connect(&self, port: u16) -> io::Result<tokio::net::TcpStream>;
}

/// Whom a Runtime API serves.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What the container runs.
    pub function: Arc<FunctionVersion>,
    /// The container.
    pub container: ContainerId,
    /// The handler, as extensions are told; empty where the function has none.
    pub handler: String,
    /// The account, as extensions are told that ask for it.
    pub account: AccountId,
}

/// How the caller wants the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseMode {
    /// Whole, at most 6 MiB. A runtime that streams is read to its end first.
    Buffered,
    /// As the runtime sends it.
    Streaming,
}

/// One invocation, as the runtime is to see it.
#[derive(Debug, Clone)]
pub struct Invoke {
    /// Its id.
    pub request_id: RequestId,
    /// When the function must be done.
    pub deadline: Timestamp,
    /// The function as the caller named it, qualifier included.
    pub invoked_arn: String,
    /// The event, handed over as it is.
    pub payload: Bytes,
    /// The client context, decoded: a JSON text.
    pub client_context: Option<String>,
    /// The Cognito identity, a JSON text.
    pub cognito_identity: Option<String>,
    /// The X-Ray tracing header.
    pub trace: Option<String>,
    /// The tenant, for functions that isolate tenants.
    pub tenant: Option<String>,
    /// How the caller wants the response.
    pub mode: ResponseMode,
    /// Where it sits, for the services that it asks.
    pub seat: Option<Arc<dyn Seat>>,
}

/// The seat of a running invocation: whoever admitted it knows by it who asks for services.
pub trait Seat: std::any::Any + Send + Sync + std::fmt::Debug {
    /// How long it has waited for calls of its own.
    fn waited(&self) -> std::time::Duration;
}

/// An invocation under way. A receiver that errs means that the Runtime API was dropped or shut down first.
#[derive(Debug)]
pub struct InFlight {
    /// What the runtime answered; for a streamed response as soon as it begins.
    pub response: oneshot::Receiver<Response>,
    /// The runtime answered and asked for the next event; extensions may still be at work. What `platform.runtimeDone` says.
    pub done: oneshot::Receiver<Done>,
    /// The runtime and every extension registered for `INVOKE` asked for the next event: the container can be frozen or used again.
    pub idle: oneshot::Receiver<()>,
}

/// What the runtime answered.
#[derive(Debug)]
pub enum Response {
    /// The function's result.
    Success {
        /// The `Content-Type` that the runtime gave.
        content_type: String,
        /// The result.
        body: Body,
        /// How the runtime sent it; a [`Body::Stream`] only ever comes with [`ResponseMode::Streaming`].
        mode: ResponseMode,
    },
    /// The function failed; the body is the error document for the caller.
    Error {
        /// `Lambda-Runtime-Function-Error-Type`.
        error_type: Option<String>,
        /// The error document as the runtime wrote it.
        body: Bytes,
        /// `Lambda-Runtime-Function-XRay-Error-Cause`.
        xray_cause: Option<String>,
    },
    /// The result was larger than a buffered response may be.
    TooLarge {
        /// Its size, or what was read of it before it went too far.
        bytes: u64,
    },
}

/// The result of a function.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Buffered(Bytes),
    /// Piece by piece. The function waits while the channel is full; dropping the receiver lets it run on unheard. The channel
    /// closes after the last piece, or after an error, which is then the last item.
    Stream(mpsc::Receiver<Result<Bytes, StreamError>>),
}

/// Why a streamed response broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the response stream broke off: {error_type}")]
pub struct StreamError {
    /// From the trailer `Lambda-Runtime-Function-Error-Type`, else one of AWS's (`Runtime.TruncatedResponse`, `Function.ResponseSizeTooLarge`).
    pub error_type: String,
    /// The error document: the decoded trailer `Lambda-Runtime-Function-Error-Body`, else one of ours.
    pub body: Bytes,
}

/// How the init phase ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// The runtime and every extension asked for their first event.
    Ready,
    /// The runtime or an extension reported that it cannot start.
    Error(InitError),
}

/// What was reported as an init error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitError {
    /// The error type header.
    pub error_type: Option<String>,
    /// The error document.
    pub body: Bytes,
    /// The extension that reported it; none: the runtime.
    pub extension: Option<String>,
}

/// Why a container ends, as extensions are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownReason {
    /// No longer needed.
    Spindown,
    /// An invocation ran into its time-out.
    Timeout,
    /// The runtime or an extension died or failed.
    Failure,
}

/// Lifecycle events that an extension registers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Lifecycle {
    /// Each invocation.
    Invoke,
    /// The end of the container.
    Shutdown,
}

/// Where an extension runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtensionKind {
    /// Inside the runtime's process.
    Internal,
    /// A process of its own, started from `/opt/extensions`.
    External,
}

/// An extension that registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionInfo {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub kind: ExtensionKind,
    /// What it registered for.
    pub events: Vec<Lifecycle>,
    /// The error that it reported, if it did.
    pub error_type: Option<String>,
}

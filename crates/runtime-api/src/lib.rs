//! The Lambda Runtime API, Extensions API and Telemetry API, served into one container.
//!
//! A [`RuntimeApi`] answers what runs inside one container: the runtime that asks for events and posts responses, the extensions
//! that register and follow along, and whoever subscribes to telemetry. Its owner (`fleet`) hands it invocations with
//! [`RuntimeApi::invoke`] and learns how each ended. It never learns about processes: that a runtime died is the owner's to
//! notice, who then drops the handle.
//!
//! Everything that arrives here was written by code that nobody trusts. What it can make this process hold is bounded: connections,
//! header sizes, bodies, queued telemetry.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod call;
mod core;
mod deliver;
mod event;
mod handle;
mod machine;
mod reply;
mod server;
mod services;
mod snapshot;
mod subscription;
mod telemetry;

pub use call::{
    Body, Connect, Done, ExtensionInfo, ExtensionKind, Identity, InFlight, Init, InitError, Invoke, Lifecycle,
    Response, ResponseMode, Seat, ShutdownReason, StreamError,
};
pub use event::{
    InitMetrics, InitPhase, InitializationType, PlatformEvent, ReportMetrics, RestoreMetrics, RuntimeDoneMetrics, Span,
    Status, TraceContext,
};
pub use handle::RuntimeApi;
pub use machine::MAX_EXTENSIONS;
pub use services::{Caller, Credentials, Services, Streamed, StreamedBody};
pub use snapshot::Snapshot;

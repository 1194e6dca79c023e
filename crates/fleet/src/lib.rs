//! Instances and containers: placement, lifecycle, metering, logs.
//!
//! A [`Fleet`] runs invocations. It keeps unpacked code on disk, makes a container for a call that finds none warm, drives it
//! through init, invoke and shutdown as AWS Lambda does, writes what it logs, and measures what it uses. It admits whatever it
//! is given: who may call and how often is decided above it (`invoker`).
//!
//! Promises: a call that was accepted by [`Fleet::invoke`] always gets a response and a report, whatever becomes of its
//! container; nothing of a call that failed is seen by the next one; nothing is left behind by [`Fleet::shutdown`].
#![forbid(unsafe_code)]

mod affinity;
mod bootstraps;
mod call;
mod code;
mod config;
mod container;
mod dispatch;
mod environment;
mod error;
mod fleet;
mod interpreters;
mod log;
mod placement;
mod processors;
mod provisioned;
mod snapshots;
mod stage;
mod turns;
mod warming;
mod wasm;

pub use affinity::{AffinityStatus, Outcome as AffinityOutcome, Value as AffinityValue};
pub use call::{Call, ErrorKind, FunctionResponse, LogTail, Permit, Report, Running, StartKind};
pub use config::{FleetConfig, PoolConfig, WasmConfig};
pub use container::Pause;
pub use error::{Error, PrepareError};
pub use fleet::{ContainerStatus, ContainerUsage, Fleet, FleetStatus, KindStatus, WasmHostStatus};
pub use lambent_runtime_api::{
    Body, Caller, Credentials, Identity, ResponseMode, Seat, Services, StreamError, Streamed,
};
pub use provisioned::Provisioned;
pub use snapshots::{SnapStart, SnapshotStatus};
pub use stage::{Stage, Stages};
pub use warming::pressure::{Pressure, PressureProbe};

//! The words every part of Lambent shares: functions and their versions, names and ARNs, ids, limits, time.
//!
//! Nothing here does I/O, spawns a task or reads a clock, and nothing here knows HTTP. A type belongs in this crate
//! when at least two subsystems must agree on it to the letter; everything else stays with its subsystem.
#![forbid(unsafe_code)]

pub mod affinity;
pub mod arn;
pub mod clock;
pub mod destination;
pub mod function;
pub mod id;
pub mod idempotency;
pub mod limits;
pub mod service;
pub mod wasm;

pub use arn::{FunctionArn, FunctionName, FunctionRef, Qualifier, Version};
pub use clock::{Clock, SystemClock};
pub use function::FunctionVersion;
pub use id::{AccountId, ContainerId, Digest, InstanceId, Region, RequestId};

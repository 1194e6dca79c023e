//! The Runtime, Extensions and Telemetry API as their clients see them: raw HTTP over 127.0.0.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod client;
mod extensions;
mod hostile;
mod official;
mod runtime;
mod telemetry;

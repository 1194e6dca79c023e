//! The binary as its users see it: processes, exit codes, what stands on standard output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod calls;
mod commands;
mod lifecycle;
mod node;
mod traces;
mod wasm;

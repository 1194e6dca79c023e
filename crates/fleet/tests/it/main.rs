//! The fleet, from a call to its report, on the simulated sandbox: no privilege needed. What needs an interpreter or curl says so and
//! skips when the machine has none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod chaos;
mod extensions;
mod faults;
mod frozen;
mod harness;
mod life;
mod logs;
mod provisioned;
mod snapshots;
mod warming;

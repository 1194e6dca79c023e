//! One door for every invocation.
//!
//! An [`Invoker`] resolves function and qualifier in the registry's snapshot, checks that the version can run, admits the call
//! or throttles it exactly as AWS Lambda does, hands it to the fleet and gives the answer back. Whoever invokes, be it the Lambda API, a
//! function URL or the queue of events ([`events`]), comes through here and nowhere else.
#![forbid(unsafe_code)]

mod admission;
pub mod affinity;
mod busy_poll;
pub mod calls;
mod choice;
pub mod deadlines;
mod error;
pub mod events;
pub mod executions;
mod invoke;
pub mod schedules;
mod trace;

pub use admission::{Concurrency, ThrottleReason};
pub use busy_poll::BusyPoll;
pub use error::Error;
pub use invoke::{Answer, Directory, Invocation, Invoker, Mode};
pub use lambent_fleet::{AffinityOutcome, AffinityValue, Body, ErrorKind, LogTail, Report, Stage, Stages, StreamError};

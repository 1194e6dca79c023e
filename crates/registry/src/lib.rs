//! The control plane: functions, versions, aliases, layers and what belongs to them.
//!
//! State is documents in a [`Catalog`] and code in [`Blobs`]; what runs is read from an in-memory snapshot that a watch
//! of the catalog keeps fresh ([`Registry::resolve`] does no I/O and takes no lock). Each operation of the Lambda API
//! is one method with AWS's input and output shapes; [`Error`] says what AWS would say.
#![forbid(unsafe_code)]

mod code;
mod configure;
mod deploy;
mod error;
mod key;
mod locate;
mod ops;
mod page;
mod provision;
mod record;
mod registry;
mod render;
pub mod shape;
mod snapshot;
mod source;
mod sweep;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use registry::{
    Allocation, Caller, CodeSource, Deployer, EventSettings, FetchError, FunctionUrl, Optimization, Registry, Resolved,
    Settings,
};
pub use shape::State;
pub use source::S3;

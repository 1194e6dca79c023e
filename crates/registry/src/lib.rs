//! The control plane: functions, versions, aliases, layers and what belongs to them.
//!
//! State is documents in a [`Catalog`] and code in [`Blobs`]; what runs is read from an in-memory snapshot that a watch
//! of the catalog keeps fresh ([`Registry::resolve`] does no I/O and takes no lock). Each operation of the Lambda API is
//! one method with AWS's input and output shapes; [`Error`] says what AWS would say.
#![forbid(unsafe_code)]

mod error;
mod ops;
mod registry;
pub mod shape;

pub use error::Error;
pub use registry::{Caller, CodeSource, Deployer, FetchError, FunctionUrl, Registry, Resolved, Settings};
pub use shape::State;

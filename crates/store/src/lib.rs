//! Ports to durable state, and their back ends.
//!
//! A port is a promise, not a database: [`Catalog`] keeps versioned documents, [`Blobs`] keeps content under its digest,
//! [`Logs`] keeps what functions and the platform wrote. Each back end passes the same conformance suite.
//! The embedded back end is SQLite and plain files under one directory.
#![forbid(unsafe_code)]

mod error;
pub mod package;
pub mod port;

pub use error::Error;
pub use port::{Blobs, Catalog, Logs};

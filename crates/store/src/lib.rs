//! Ports to durable state, and their back ends.
//!
//! A port is a promise, not a database: [`Catalog`] keeps versioned documents, [`Blobs`] keeps content under its
//! digest, [`Logs`] keeps what functions and the platform wrote, [`EventQueue`] keeps events until they are done,
//! [`Records`] keeps what executions returned. Each back end passes the same conformance suite
//! (`tests/it`). The embedded back end is SQLite and plain files under one directory; [`Embedded`] opens it.
//! [`package`] reads the zips that strangers send.
#![forbid(unsafe_code)]

mod embedded;
mod error;
pub mod files;
pub mod package;
pub mod port;
pub mod queue;
pub mod record;
pub mod records;
pub mod sqlite;

pub use embedded::Embedded;
pub use error::Error;
pub use port::{Blobs, Catalog, Logs};
pub use queue::EventQueue;
pub use records::Records;

//! Auxiliary services against the real thing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod postgresql;
mod server;

//! One file a resource, one method an operation.

mod affinity;
mod alias;
mod concurrency;
pub(crate) mod event;
mod function;
mod idempotency;
mod layer;
mod mapping;
mod permission;
mod settings;
mod signing;
mod tags;
mod url;
mod version;

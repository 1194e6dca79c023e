//! The AWS Lambda REST API, and CloudWatch Logs beside it, on one port.
//!
//! A request goes through these files in this order:
//!
//! ```text
//! serve.rs     bytes to requests; slow and oversized heads are refused
//! service.rs   which service and operation; signature; body within bounds
//! route.rs     method and path to an operation of the model
//! request.rs   labels, query, headers and body to one JSON object
//! check.rs     the model's constraints, in AWS's words
//! dispatch.rs  control-plane operations to the registry   | invoke.rs, stream.rs  invocations to the invoker
//! inside.rs    the same for the SDKs in containers, behind the Runtime API's address
//! calls.rs     beside it: calls that code in containers starts, and waits for
//! dependencies.rs  the same: what their code says its answer depends on
//! events.rs    `/_lambent/events`: what people see of the queue of events, and do about it
//! learned.rs   `/_lambent/calls`: what was learned of such calls
//! executions.rs  `/_lambent/executions`: answers that are kept and given again, and what decides about it
//! respond.rs   the output where the model wants it        | failure.rs            what went wrong, as AWS says it
//! ```
//!
//! Paths, names, limits and patterns are data ([`model`], taken from botocore by `cargo xtask model`). An operation of
//! the model that is not built answers 501 and says its name, once its signature and constraints are found in order.
#![forbid(unsafe_code)]

mod affinity;
mod calls;
mod check;
mod dependencies;
mod dispatch;
mod events;
mod executions;
mod failure;
mod inside;
mod invoke;
mod learned;
mod logs;
mod model;
mod pattern;
mod payload;
#[cfg(test)]
mod probe;
mod request;
mod respond;
mod route;
mod scheduler;
mod serve;
mod service;
mod stream;
mod sts;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use lambent_invoker::Invoker;
use lambent_invoker::calls::Calls;
use lambent_invoker::events::Events;
use lambent_invoker::executions::Executions;
use lambent_invoker::schedules::Schedules;
use lambent_model::{AccountId, Clock, Region};
use lambent_policy::sigv4::Verifier;
use lambent_registry::Registry;
use lambent_store::Logs;

pub use inside::Inside;
pub use serve::serve;

/// A document that is made when it is asked for.
pub type StatusDocument = Pin<Box<dyn Future<Output = serde_json::Value> + Send>>;

/// What the API is built from.
#[derive(Clone)]
pub struct Parts {
    /// The region this node answers for.
    pub region: Region,
    /// The account that owns this node.
    pub account: AccountId,
    /// Whether the credentials of a function may do with its account what the account's own keys may. Else they may invoke.
    pub functions_manage: bool,
    /// Checks signatures.
    pub verifier: Arc<Verifier>,
    /// Control-plane operations.
    pub registry: Arc<Registry>,
    /// Invocations.
    pub invoker: Arc<Invoker>,
    /// Calls that functions start.
    pub calls: Calls,
    /// Asynchronous invocations.
    pub events: Arc<Events>,
    /// What executions returned.
    pub executions: Arc<Executions>,
    /// Schedules.
    pub schedules: Arc<Schedules>,
    /// Log groups, streams and events.
    pub logs: Arc<dyn Logs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The document of `/_lambent/status`.
    pub status: Arc<dyn Fn() -> StatusDocument + Send + Sync>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether `/_lambent/ready` says so.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// The API: a router for one port, and one for what asks from inside containers.
pub fn routers(parts: Parts) -> (Router, Router) {
    service::routers(parts)
}

//! The AWS Lambda REST API, and the read side of CloudWatch Logs beside it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use axum::Router;
use lambent_model::{AccountId, Clock, Region};
use lambent_policy::sigv4::Verifier;
use lambent_store::Logs;

/// What the API is built from.
#[derive(Clone)]
pub struct Parts {
    /// The region this node answers for.
    pub region: Region,
    /// The account that owns this node.
    pub account: AccountId,
    /// Checks signatures.
    pub verifier: Arc<Verifier>,
    /// Log groups, streams and events.
    pub logs: Arc<dyn Logs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether `/_lambent/ready` says so.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// The API as a router for one port.
pub fn router(_parts: Parts) -> Router {
    Router::new()
}

/// Serves `router` on `listener` until `shutdown` completes, then lets running requests end for at most `grace`.
/// Slow or oversized request heads are refused; use it for every port that strangers reach.
pub async fn serve(
    _listener: tokio::net::TcpListener,
    _router: Router,
    shutdown: impl Future<Output = ()> + Send,
    _grace: std::time::Duration,
) {
    shutdown.await;
}

//! The API as containers reach it: through the socket of the Runtime API that is in each of them, with short-lived credentials.
//!
//! It is the same API; only what a node tells without a signature (metrics, health, links to code) and the addresses for people
//! (`/_lambent`) are not there. Beside it is what only containers reach: calls that they start (`calls.rs`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use lambent_model::Clock;
use lambent_policy::sessions::Sessions;
use lambent_runtime_api::{Caller, Credentials, Identity, Services, Streamed};
use tower::ServiceExt as _;

/// Serves what is inside containers.
pub struct Inside {
    router: Router,
    sessions: Arc<Sessions>,
    clock: Arc<dyn Clock>,
}

impl Inside {
    /// In front of the second of [`crate::routers`].
    pub fn new(router: Router, sessions: Arc<Sessions>, clock: Arc<dyn Clock>) -> Self {
        Self { router, sessions, clock }
    }
}

#[async_trait]
impl Services for Inside {
    fn credentials(&self, identity: &Identity, life: Duration) -> Option<Credentials> {
        match self.sessions.mint(&identity.function.arn, self.clock.now(), life) {
            Ok(made) => Some(Credentials {
                access_key_id: made.access_key_id,
                secret_access_key: made.secret_access_key,
                session_token: made.session_token,
                expires_at: made.expires_at,
            }),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no credentials for a container");
                None
            }
        }
    }

    async fn answer(&self, caller: Caller, mut request: Request<Incoming>) -> Streamed {
        // Calls belong to who starts them; a signed request says by itself who it is.
        request.extensions_mut().insert(caller);
        let answered = self.router.clone().oneshot(request.map(Body::new)).await;
        let response = answered.unwrap_or_else(|never| match never {});
        response.map(|body| body.map_err(std::io::Error::other).boxed_unsync())
    }
}

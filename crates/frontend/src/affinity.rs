//! Which calls of a function belong together: what people set and see of it, and what a request says of itself.
//!
//! ```text
//! PUT    /_lambent/functions/NAME/affinity     {"by": "$.user.id"}: sets where the value of a request is
//! GET    /_lambent/functions/NAME/affinity     what was set; {"by": null}: nothing
//! DELETE /_lambent/functions/NAME/affinity     any container does for any call again
//! ```
//! Signed as a request of Lambda is, and for the account that the function is of.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::Request;
use lambent_model::affinity::Affinity;
use serde_json::{Value, json};

use crate::executions::{caller, respond};
use crate::failure::Failure;
use crate::service::Service;

fn shown(setting: Option<&Affinity>) -> Value {
    json!({ "by": setting.map(|setting| &setting.by) })
}

pub(crate) async fn put(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, body) = service.signed(&head, body).await?;
        let setting: Affinity = serde_json::from_slice(&body)
            .map_err(|error| Failure::invalid_parameter(format!("The body is no affinity setting: {error}")))?;
        service.parts.registry.set_affinity(&caller(&by), &name, Some(setting.clone())).await?;
        Ok(shown(Some(&setting)))
    };
    respond(answer.await)
}

pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        Ok(shown(service.parts.registry.affinity(&caller(&by), &name)?.as_deref()))
    };
    respond(answer.await)
}

pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        service.parts.registry.set_affinity(&caller(&by), &name, None).await?;
        Ok(shown(None))
    };
    respond(answer.await)
}

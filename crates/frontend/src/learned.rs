//! `GET /_lambent/calls?function=`: what was learned of the calls that an account's functions start: when their results are needed, and how long
//! versions run. Signed as a request of Lambda is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;
use serde_json::json;

use crate::executions::{function, respond};
use crate::service::Service;

pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let function = function(&service, &by.account, head.uri.query().unwrap_or_default())?;
        let known = service.parts.invoker.deadlines().show(&by.account, function.as_ref());
        Ok(json!({ "calls": known }))
    };
    respond(answer.await)
}

//! EventBridge Scheduler's API (`scheduler`), for schedules of functions; and what it lacks: running one now.
//!
//! Requests are checked against the service's own model, as Lambda's are; what the operations mean is in `lambent_invoker::schedules`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Request, header, request};
use lambent_model::RequestId;
use lambent_policy::sigv4::Principal;
use serde_json::json;

use crate::failure::{Dialect, Failure};
use crate::model::SCHEDULER;
use crate::route::Match;
use crate::service::Service;
use crate::{check, request as input, respond};

pub(crate) async fn answer(
    service: &Service,
    head: &request::Parts,
    by: &Principal,
    found: &Match<'_>,
    body: &Bytes,
    id: RequestId,
) -> Result<Response, Failure> {
    let query = head.uri.query().unwrap_or_default();
    let shape =
        found.operation.input.as_deref().and_then(|name| SCHEDULER.shape(name)).ok_or_else(Failure::internal)?;
    let members = input::read(&SCHEDULER, shape, &found.labels, query, &head.headers, body)?;
    if let Some(violations) = check::violations(&SCHEDULER, shape, &members) {
        return Err(Failure::validation(violations));
    }
    let called = service.parts.schedules.call(&by.account, found.name, members).await;
    let output = called.unwrap_or_else(|| Err(lambent_invoker::schedules::Error::NotBuilt(found.name.to_owned())))?;
    Ok(respond::success(&SCHEDULER, found.operation, output, id))
}

/// `POST /_lambent/schedules/GROUP/NAME/run`: its target is called now, beside its plan. Signed as a request of Lambda is.
pub(crate) async fn run(
    State(service): State<Arc<Service>>,
    Path((group, name)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let by = service.principal(&head, body).await?;
        match service.parts.schedules.run(&by.account, &group, &name).await? {
            true => Ok(json!({ "started": 1 })),
            false => Err(Failure::new(404, "ResourceNotFoundException", format!("Schedule {name} does not exist."))),
        }
    };
    match answer.await {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response(),
        Err(failure) => failure.into_response(Dialect::RestJson, RequestId::random()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::route::{ROUTES, SCHEDULER_ROUTES};

    #[test]
    fn every_operation_has_a_path_of_its_own() {
        for (name, operation) in &SCHEDULER.operations {
            let path = operation.http.request_uri.replace(['{', '}'], "");
            assert_eq!(SCHEDULER_ROUTES.find(&operation.http.method, &path, "").unwrap().name, name);
            assert!(ROUTES.find(&operation.http.method, &path, "").is_none(), "{name} is one of Lambda's paths");
        }
    }
}

//! `/lambent/2026-11-24/dependencies`: what code in a container says its answer depends on. Only containers reach it (`inside.rs`).
//!
//! ```text
//! POST  ["https://…", "s3://…", …]   when the answer comes, their states are known; the code reads after that
//! 200   {"recorded": true, "unchecked": [{"name": …, "problem": …}]}
//! 200   {"recorded": false, "unchecked": []}       this invocation's dependencies are not kept; nothing was done
//! ```
//! What is refused leaves the invocation without a record that is ever reused: something is read that nobody knows of.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lambent_invoker::executions::{ReportError, Reported};
use lambent_model::idempotency::{MAX_DEPENDENCY_BYTES, MAX_REPORTED};
use lambent_runtime_api::Caller;
use serde_json::json;

use crate::calls::{document, respond};
use crate::failure::Failure;
use crate::service::Service;

/// Room for the longest names with some of their characters escaped.
const BODY_BYTES: usize = 2 * MAX_REPORTED * MAX_DEPENDENCY_BYTES;

/// Takes a report.
pub(crate) async fn report(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Response {
    let answered = async {
        let Some(invoke) = &caller.invoke else {
            let text = "Dependencies are reported during an invocation: none is under way";
            return Err(Failure::new(403, "NoInvocationException", text));
        };
        let executions = &service.parts.executions;
        let names = names(request.into_body()).await.inspect_err(|_| executions.misreported(invoke.request_id))?;
        let unchecked = match executions.report(invoke.request_id, &names).await? {
            Reported::Ignored => return Ok(document(StatusCode::OK, &json!({"recorded": false, "unchecked": []}))),
            Reported::Noted(unchecked) => unchecked,
        };
        let each = unchecked.iter().map(|(name, problem)| json!({"name": name, "problem": problem.to_string()}));
        let unchecked: Vec<_> = each.collect();
        Ok(document(StatusCode::OK, &json!({"recorded": true, "unchecked": unchecked})))
    };
    respond(answered.await)
}

async fn names(body: Body) -> Result<Vec<String>, Failure> {
    let body = match Limited::new(body, BODY_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("A report has at most {BODY_BYTES} bytes");
            return Err(Failure::new(413, "RequestEntityTooLargeException", text));
        }
        Err(_) => return Err(Failure::new(400, "RequestAbortedException", "The body broke off.")),
    };
    serde_json::from_slice(&body)
        .map_err(|error| Failure::invalid_parameter(format!("The body is no JSON list of dependencies: {error}")))
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        let code = match error {
            ReportError::Dependency(_) => "InvalidParameterValueException",
            ReportError::TooMany { .. } => "TooManyDependenciesException",
        };
        Self::new(400, code, error.to_string())
    }
}

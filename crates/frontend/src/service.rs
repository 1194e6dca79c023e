//! What every request goes through, whatever it asks for: service, operation, signature, body, check, answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lambent_model::affinity::Affinity;
use lambent_model::{FunctionArn, Qualifier, RequestId, limits};
use lambent_policy::document::{Decision, Request as PolicyRequest, Who};
use lambent_policy::sigv4::{Pending, Principal};
use lambent_registry::Caller;
use tokio::sync::Semaphore;

use crate::failure::{Dialect, Failure};
use crate::invoke::Incoming;
use crate::model::{LAMBDA, LOGS};
use crate::route::{Match, ROUTES, SCHEDULER_ROUTES};
use crate::{
    Parts, affinity, calls, check, dispatch, events, executions, invoke, learned, logs, request as input, respond,
    scheduler, sts,
};

/// Most bytes of a request that brings code: 50 MB of zip as base64, and the rest.
const CODE_REQUEST_BYTES: usize = 70_167_211;
/// Requests that bring code and are read at the same time; others wait, so that strangers cannot fill the memory.
const CODE_REQUESTS_AT_ONCE: usize = 8;
/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// The API and what it needs.
pub(crate) struct Service {
    pub parts: Parts,
    code_requests: Semaphore,
    /// Live tail sessions that may begin.
    pub live_tails: Arc<Semaphore>,
}

/// Everything on one port, and what containers reach.
pub(crate) fn routers(parts: Parts) -> (Router, Router) {
    let service = Arc::new(Service {
        parts,
        code_requests: Semaphore::new(CODE_REQUESTS_AT_ONCE),
        live_tails: logs::tail::turns(),
    });
    let inside = Router::new()
        .route("/lambent/2026-11-24/calls", get(calls::wait).post(calls::start))
        .route("/lambent/2026-11-24/calls/{id}", get(calls::take).delete(calls::forget))
        .fallback(answer)
        .with_state(Arc::clone(&service));
    let all = Router::new()
        .route("/metrics", get(metrics))
        .route("/_lambent/health", get(|| async { "ok\n" }))
        .route("/_lambent/ready", get(ready))
        .route("/_lambent/status", get(status))
        .route("/_lambent/code/{digest}", get(code))
        .route("/_lambent/schedules/{group}/{name}/run", post(scheduler::run))
        .route("/_lambent/queues", get(events::queues))
        .route("/_lambent/events", get(events::list).delete(events::purge))
        .route("/_lambent/events/{id}", get(events::show).delete(events::discard))
        .route("/_lambent/events/{id}/retry", post(events::retry))
        .route("/_lambent/calls", get(learned::list))
        .route("/_lambent/executions", get(executions::list).delete(executions::purge))
        .route("/_lambent/executions/{id}", get(executions::show).delete(executions::discard))
        .route("/_lambent/executions/{id}/why", get(executions::why))
        .route(
            "/_lambent/functions/{name}/idempotency",
            get(executions::get_setting).put(executions::put_setting).delete(executions::delete_setting),
        )
        .route("/_lambent/functions/{name}/affinity", get(affinity::get).put(affinity::put).delete(affinity::delete))
        .fallback(answer)
        .with_state(service);
    (all, inside)
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (service.parts.metrics)()).into_response()
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    if (service.parts.ready)() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

/// What the node is doing, for whoever owns it; signed as a request of Lambda is.
async fn status(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    match service.owner(&head, body).await {
        Ok(()) => {
            let document = (service.parts.status)().await.to_string();
            ([(header::CONTENT_TYPE, "application/json")], document).into_response()
        }
        Err(failure) => failure.into_response(Dialect::RestJson, RequestId::random()),
    }
}

/// The query of a code link.
#[derive(serde::Deserialize)]
struct Link {
    expires: i64,
    signature: String,
}

/// Code behind a `Code.Location` link, which needs no other signature than its own.
async fn code(
    State(service): State<Arc<Service>>,
    Path(digest): Path<String>,
    link: Result<Query<Link>, QueryRejection>,
) -> Response {
    let Ok(Query(link)) = link else { return StatusCode::FORBIDDEN.into_response() };
    match service.parts.registry.download(&digest, link.expires, &link.signature).await {
        Ok(zip) => ([(header::CONTENT_TYPE, "application/zip")], zip).into_response(),
        Err(error) => Failure::from(error).into_response(Dialect::RestJson, RequestId::random()),
    }
}

/// What a request is addressed to.
enum Target<'a> {
    Lambda(Option<Match<'a>>),
    Logs(&'a str),
    Scheduler(Match<'a>),
    Sts,
}

impl Target<'_> {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Logs(_) => Dialect::Json,
            Self::Scheduler(_) => Dialect::Scheduler,
            Self::Lambda(_) | Self::Sts => Dialect::RestJson,
        }
    }

    /// The service's name in signatures.
    fn signing_name(&self) -> &'static str {
        match self {
            Self::Lambda(_) => "lambda",
            Self::Logs(_) => "logs",
            Self::Scheduler(_) => "scheduler",
            Self::Sts => "sts",
        }
    }

    fn operation(&self) -> &str {
        match self {
            Self::Lambda(Some(found)) | Self::Scheduler(found) => found.name,
            Self::Lambda(None) => "unknown",
            Self::Logs(operation) => operation,
            Self::Sts => "GetCallerIdentity",
        }
    }

    /// The operation's name for metrics: only names of the models, whatever strangers send.
    fn label(&self) -> &'static str {
        match self {
            Self::Lambda(Some(found)) | Self::Scheduler(found) => found.name,
            Self::Logs(operation) => {
                LOGS.operations.get_key_value(*operation).map_or("unknown", |(name, _)| name.as_str())
            }
            Self::Lambda(None) => "unknown",
            Self::Sts => "GetCallerIdentity",
        }
    }

    /// How large a body may be.
    fn body_limit(&self) -> usize {
        match self.operation() {
            "CreateFunction" | "UpdateFunctionCode" | "PublishLayerVersion" => CODE_REQUEST_BYTES,
            _ => limits::SYNC_REQUEST_BYTES,
        }
    }
}

fn target(head: &request::Parts) -> Target<'_> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(operation) = text("x-amz-target").and_then(|target| target.strip_prefix("Logs_20140328.")) {
        return Target::Logs(operation);
    }
    let is_form = text("content-type").is_some_and(|media| media.starts_with("application/x-www-form-urlencoded"));
    if head.uri.path() == "/" && head.method == http::Method::POST && is_form {
        return Target::Sts;
    }
    let (method, path, query) = (head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default());
    match ROUTES.find(method, path, query) {
        Some(found) => Target::Lambda(Some(found)),
        None => SCHEDULER_ROUTES.find(method, path, query).map_or(Target::Lambda(None), Target::Scheduler),
    }
}

async fn answer(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let received_at = Instant::now();
    let id = RequestId::random();
    let (head, body) = request.into_parts();
    let target = target(&head);
    let (dialect, operation) = (target.dialect(), target.label());
    let answered = service.serve(&head, body, target, received_at, id).await;
    let code = answered.as_ref().err().map_or("", |failure| failure.code);
    metrics::counter!("lambent_api_requests_total", "operation" => operation, "error" => code).increment(1);
    match answered {
        Ok(response) => response,
        Err(failure) => {
            tracing::debug!(operation, request_id = %id, code = failure.code, message = failure.message, "refused");
            let closes = matches!(failure.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT);
            let mut response = failure.into_response(dialect, id);
            if closes {
                // What is left of the body is not worth reading.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }
}

impl Service {
    async fn serve(
        &self,
        head: &request::Parts,
        body: Body,
        target: Target<'_>,
        received_at: Instant,
        id: RequestId,
    ) -> Result<Response, Failure> {
        let pending = self.parts.verifier.begin(head, target.signing_name())?;
        self.may_ask(pending.claimed(), &target)?;
        let (by, body) = self.admitted(head, body, pending, &target).await?;
        match target {
            Target::Logs(operation) => logs::answer(self, &by, operation, &body, id).await,
            Target::Scheduler(found) => scheduler::answer(self, head, &by, &found, &body, id).await,
            Target::Sts => sts::answer(&by, &body, id),
            Target::Lambda(None) => Err(Failure::unknown_operation()),
            Target::Lambda(Some(found)) => self.lambda(head, body, &by, found, received_at, id).await,
        }
    }

    /// Refuses everybody but the account that owns the node.
    async fn owner(&self, head: &request::Parts, body: Body) -> Result<(), Failure> {
        let by = self.principal(head, body).await?;
        if by.account == self.parts.account {
            return Ok(());
        }
        let text = format!("User: {} is not authorized to see the node's status", by.arn);
        Err(Failure::new(403, "AccessDeniedException", text))
    }

    /// Who sent a request to an address of our own.
    pub async fn principal(&self, head: &request::Parts, body: Body) -> Result<Arc<Principal>, Failure> {
        self.signed(head, body).await.map(|(by, _)| by)
    }

    /// The same, and what was sent.
    pub async fn signed(&self, head: &request::Parts, body: Body) -> Result<(Arc<Principal>, Bytes), Failure> {
        let target = Target::Lambda(None);
        let pending = self.parts.verifier.begin(head, target.signing_name())?;
        self.may_ask(pending.claimed(), &target)?;
        self.admitted(head, body, pending, &target).await
    }

    /// What a function's credentials are for: to invoke, and to ask who one is.
    fn may_ask(&self, by: &Principal, target: &Target<'_>) -> Result<(), Failure> {
        let may = match (&by.function, target) {
            (None, _) | (Some(_), Target::Sts) => true,
            (Some(_), Target::Lambda(Some(found))) => {
                self.parts.functions_manage || dispatch::INVOCATIONS.contains(&found.name)
            }
            (Some(_), Target::Logs(_) | Target::Scheduler(_)) => self.parts.functions_manage,
            // Addresses of our own, which are for people.
            (Some(_), Target::Lambda(None)) => false,
        };
        if may {
            return Ok(());
        }
        let text = format!(
            "User: {} is not authorized to perform: {}:{} because no identity-based policy allows the {1}:{2} action",
            by.arn,
            target.signing_name(),
            target.label()
        );
        Err(Failure::new(403, "AccessDeniedException", text))
    }

    /// The body, within its bounds, and who sent it.
    async fn admitted(
        &self,
        head: &request::Parts,
        body: Body,
        pending: Pending,
        target: &Target<'_>,
    ) -> Result<(Arc<Principal>, Bytes), Failure> {
        let limit = target.body_limit();
        let too_large = || Failure::too_large(limit, target.operation());
        let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: usize| length > limit) {
            return Err(too_large());
        }
        let _place = match limit {
            CODE_REQUEST_BYTES => self.code_requests.acquire().await.ok(),
            _ => None,
        };
        let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
        let body = match read {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => return Err(Failure::new(400, "RequestAbortedException", "The body broke off.")),
            Err(_) => return Err(Failure::new(408, "RequestTimeoutException", "The body took too long to arrive.")),
        };
        Ok((pending.finish(&body)?, body))
    }

    async fn lambda(
        &self,
        head: &request::Parts,
        body: Bytes,
        by: &Principal,
        found: Match<'_>,
        received_at: Instant,
        id: RequestId,
    ) -> Result<Response, Failure> {
        let query = head.uri.query().unwrap_or_default();
        let shape =
            found.operation.input.as_deref().and_then(|name| LAMBDA.shape(name)).ok_or_else(Failure::internal)?;
        let members = input::read(&LAMBDA, shape, &found.labels, query, &head.headers, &body)?;
        if let Some(violations) = check::violations(&LAMBDA, shape, &members) {
            return Err(Failure::validation(violations));
        }
        if dispatch::INVOCATIONS.contains(&found.name) {
            let headers = &head.headers;
            let address = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
            let input = &members;
            let incoming = Incoming { operation: found.name, input, headers, query, address, body, received_at, id };
            return invoke::invoke(self, by, incoming).await;
        }
        dispatch::check_layer_version(&members)?;
        let caller = Caller { account: by.account.clone(), arn: by.arn.clone() };
        let gone = executions::of_deleted(self, by, found.name, &members);
        let called = dispatch::call(&self.parts.registry, &caller, found.name, members).await;
        let output = called.unwrap_or_else(|| Err(Failure::not_built(found.name)))?;
        if let Some(function) = gone {
            // One of the same name that comes later has nothing to do with it.
            self.parts.executions.purge(&function.account, function.to_string()).await?;
            self.parts.invoker.deadlines().forget(&function).await;
        }
        Ok(respond::success(&LAMBDA, found.operation, output, id))
    }

    /// Whether the caller may invoke, and which calls of the function belong together: its own account's functions unless a policy denies it, others' where one allows.
    pub fn may_invoke(
        &self,
        by: &Principal,
        function: &FunctionArn,
        qualifier: Option<&Qualifier>,
    ) -> Result<Option<Arc<Affinity>>, Failure> {
        let resource = || qualifier.map_or_else(|| function.to_string(), |qualifier| function.qualified(qualifier));
        let own = by.account == function.account;
        let (decision, affinity) = match self.parts.registry.resolve(function, qualifier) {
            Ok(resolved) => (
                match &resolved.policy {
                    None => Decision::Silent,
                    Some(policy) => policy.evaluate(&PolicyRequest {
                        who: Who::Account { account: by.account.as_str(), arn: &by.arn },
                        action: "lambda:InvokeFunction",
                        resource: &resource(),
                        context: &[],
                    }),
                },
                resolved.affinity,
            ),
            Err(error) if own => return Err(error.into()),
            Err(_) => (Decision::Silent, None),
        };
        match (decision, own) {
            (Decision::Allow, _) | (Decision::Silent, true) => Ok(affinity),
            (Decision::Deny, _) | (Decision::Silent, false) => {
                let why = if decision == Decision::Deny {
                    "with an explicit deny in a resource-based policy"
                } else {
                    "because no resource-based policy allows the lambda:InvokeFunction action"
                };
                let text = format!(
                    "User: {} is not authorized to perform: lambda:InvokeFunction on resource: {} {why}",
                    by.arn,
                    resource()
                );
                Err(Failure::new(403, "AccessDeniedException", text))
            }
        }
    }
}

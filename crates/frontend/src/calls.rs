//! `/lambent/2026-11-24/calls`: calls that code in a container starts, and waits for. Only containers reach it (`inside.rs`).

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::Timestamp;
use lambent_invoker::affinity::{self, Origin};
use lambent_invoker::calls::{Blocked, Error, Outcome, Seat, Start, Wanted};
use lambent_invoker::executions::Ask;
use lambent_model::{RequestId, limits};
use lambent_policy::sigv4::Principal;
use lambent_runtime_api::Caller;
use serde::Deserialize;
use serde_json::json;

use crate::failure::{Dialect, Failure};
use crate::invoke::{named, payload};
use crate::respond;
use crate::service::Service;

/// When the answer is needed, in milliseconds from now.
pub(crate) const DEADLINE: &str = "x-lambent-deadline-ms";
/// The latest that a call can say: no caller runs for as long.
const MOST_DEADLINE: Duration = Duration::from_secs(86_400);
/// Where in the caller's code the call is started.
const SITE: &str = "x-lambent-site";
/// The longest.
const SITE_CHARS: usize = 256;
/// What one request waits for at most.
const IDS: usize = lambent_invoker::calls::MOST_CALLS;
/// The status of an answer that is not there yet.
const PENDING: StatusCode = StatusCode::ACCEPTED;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartQuery {
    function: String,
    qualifier: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitQuery {
    ids: String,
    #[serde(default)]
    mode: WaitMode,
    within_ms: Option<u64>,
    /// Nothing else goes on in the container: it may be frozen.
    #[serde(default)]
    blocked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TakeQuery {
    within_ms: Option<u64>,
    /// As in [`WaitQuery`].
    #[serde(default)]
    blocked: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum WaitMode {
    Any,
    #[default]
    All,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

/// Starts a call: 202 and its id at once.
pub(crate) async fn start(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    query: Asked<StartQuery>,
    request: Request<Body>,
) -> Response {
    let answered = async {
        let query = asked(query)?;
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, limits::SYNC_REQUEST_BYTES).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(lambent_invoker::Error::TooLarge { limit: limits::SYNC_REQUEST_BYTES }.into());
            }
            Err(_) => return Err(Failure::new(400, "RequestAbortedException", "The body broke off.")),
        };
        let seat = seat(&caller)?;
        let start = read(&service, &caller, query, &head.headers, body)?;
        let id = service.parts.calls.start(&seat, start)?;
        Ok(document(StatusCode::ACCEPTED, &json!({ "id": id.to_string() })))
    };
    respond(answered.await)
}

fn read(
    service: &Service,
    caller: &Caller,
    query: StartQuery,
    headers: &HeaderMap,
    body: bytes::Bytes,
) -> Result<Start, Failure> {
    let by = principal(caller);
    let (function, qualifier) = named(service, &by, &query.function, query.qualifier.as_deref())?;
    let setting = service.may_invoke(&by, &function, qualifier.as_ref())?;
    let origin = Origin { headers, query: "", account: Some(by.account.as_str()), address: None };
    let invoke = caller.invoke.as_ref().ok_or_else(outside)?;
    let trace = match invoke.trace.clone() {
        Some(trace) => Some(service.parts.events.pass(&function, qualifier.as_ref(), trace)?),
        None => None,
    };
    let until = invoke.deadline;
    let deadline = deadline(headers, service.parts.clock.now(), MOST_DEADLINE)?.map(|deadline| deadline.min(until));
    let site = headers.get(SITE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let site = site.unwrap_or_default();
    let long = site.chars().count();
    if long > SITE_CHARS {
        return Err(Failure::invalid_parameter(format!("{SITE} has {long} characters; it may have {SITE_CHARS}")));
    }
    Ok(Start {
        affinity: affinity::value(setting.as_deref(), origin)?,
        idempotency: Ask::read(headers).map_err(lambent_invoker::Error::from)?,
        payload: payload(body)?,
        function,
        qualifier,
        trace,
        deadline,
        until,
        caller: Arc::clone(&caller.identity.function),
        site,
    })
}

/// When the result is needed, where a request says so.
pub(crate) fn deadline(headers: &HeaderMap, now: Timestamp, most: Duration) -> Result<Option<Timestamp>, Failure> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let within = text.parse().ok().map(Duration::from_millis).filter(|within| *within <= most);
    let within = within.ok_or_else(|| {
        let most = most.as_millis();
        Failure::invalid_parameter(format!("{DEADLINE} is {text:?}; it must be a number of milliseconds up to {most}"))
    })?;
    Ok(Some(now.saturating_add(within).unwrap_or(Timestamp::MAX)))
}

/// Waits for one or all of some calls; says which are done.
pub(crate) async fn wait(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    query: Asked<WaitQuery>,
) -> Response {
    let answered = async {
        let query = asked(query)?;
        let ids: Result<Vec<RequestId>, Failure> = query.ids.split(',').take(IDS + 1).map(id).collect();
        let ids = ids?;
        if ids.len() > IDS {
            return Err(Failure::invalid_parameter(format!("ids has more than {IDS} calls, which is the most")));
        }
        let wanted = match query.mode {
            WaitMode::Any => Wanted::Any,
            WaitMode::All => Wanted::All,
        };
        let within = query.within_ms.map(Duration::from_millis);
        let done = service.parts.calls.wait(&seat(&caller)?, &ids, wanted, within, blocked(query.blocked)).await?;
        let text = |ids: &mut dyn Iterator<Item = &RequestId>| ids.map(RequestId::to_string).collect::<Vec<_>>();
        let pending = text(&mut ids.iter().filter(|id| !done.contains(id)));
        Ok(document(StatusCode::OK, &json!({ "done": text(&mut done.iter()), "pending": pending })))
    };
    respond(answered.await)
}

/// Waits for a call's answer and hands it out, once.
pub(crate) async fn take(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    query: Asked<TakeQuery>,
) -> Response {
    let answered = async {
        let (id, query) = (id(&name)?, asked(query)?);
        let within = query.within_ms.map(Duration::from_millis);
        let Some(outcome) = service.parts.calls.take(&seat(&caller)?, id, within, blocked(query.blocked)).await? else {
            return Ok(document(PENDING, &json!({ "id": name })));
        };
        let Outcome { executed_version, error, body } = outcome;
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(version) = HeaderValue::try_from(executed_version.to_string()) {
            headers.insert("x-amz-executed-version", version);
        }
        if let Some(Ok(kind)) = error.map(|kind| HeaderValue::try_from(kind.to_string())) {
            headers.insert("x-amz-function-error", kind);
        }
        respond::set_request_id(headers, id);
        Ok(response)
    };
    respond(answered.await)
}

/// Lets go of a call.
pub(crate) async fn forget(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Response {
    let forgotten = || {
        service.parts.calls.forget(&*seat(&caller)?, id(&name)?)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    respond(forgotten())
}

pub(crate) fn respond(answered: Result<Response, Failure>) -> Response {
    answered.unwrap_or_else(|failure| failure.into_response(Dialect::RestJson, RequestId::random()))
}

pub(crate) fn document(status: StatusCode, document: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

fn asked<T>(query: Asked<T>) -> Result<T, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid_parameter(rejection.body_text()))?;
    Ok(query)
}

fn blocked(said: bool) -> Blocked {
    if said { Blocked::Yes } else { Blocked::No }
}

fn id(text: &str) -> Result<RequestId, Failure> {
    text.parse().map_err(|_| Error::NotFound(text.chars().take(64).collect()).into())
}

fn outside() -> Failure {
    Failure::new(403, "NoInvocationException", "Calls are started during an invocation: none is under way")
}

/// Where the invocation sits that asks.
fn seat(caller: &Caller) -> Result<Arc<Seat>, Failure> {
    let seat = caller.invoke.as_ref().and_then(|invoke| invoke.seat.clone()).ok_or_else(outside)?;
    let seat: Arc<dyn Any + Send + Sync> = seat;
    seat.downcast().map_err(|_| Failure::internal())
}

/// The same as with the credentials of the container.
fn principal(caller: &Caller) -> Principal {
    let function = caller.identity.function.arn.clone();
    Principal {
        account: function.account.clone(),
        arn: format!("arn:aws:sts::{}:assumed-role/lambda/{}", function.account, function.name),
        access_key_id: String::new(),
        function: Some(function),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invoke(error) => error.into(),
            error => {
                let (code, status) = error.code();
                Self::new(status, code, error.to_string())
            }
        }
    }
}

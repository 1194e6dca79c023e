//! `Invoke` and `InvokeWithResponseStream`: the hot path. Payloads stay bytes from the socket to the function and back.

use std::net::IpAddr;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use lambent_invoker::affinity::{self, Origin};
use lambent_invoker::events::Sent;
use lambent_invoker::executions::{self as kept, Ask};
use lambent_invoker::{AffinityValue, Answer, Body as AnswerBody, Invocation, LogTail, Mode, Stage};
use lambent_model::{FunctionArn, FunctionRef, Qualifier, RequestId, limits};
use lambent_policy::sigv4::Principal;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::respond::set_request_id;
use crate::service::Service;
use crate::{calls, executions, payload, stream};

/// A caller who sends this header, whatever its value, is told where the time went: in the same header, in the syntax of `Server-Timing`.
pub(crate) const STAGES: &str = "x-lambent-stages";

/// An invocation as it came in.
pub(crate) struct Incoming<'a> {
    /// `Invoke`, `InvokeAsync` or `InvokeWithResponseStream`.
    pub operation: &'static str,
    /// The checked members of the input.
    pub input: &'a Map<String, Value>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The query, as it was sent.
    pub query: &'a str,
    /// The other end of the connection.
    pub address: Option<IpAddr>,
    /// The event.
    pub body: Bytes,
    /// When the request's head was read.
    pub received_at: Instant,
    /// Its id.
    pub id: RequestId,
}

/// Runs a function and answers as Lambda does.
pub(crate) async fn invoke(service: &Service, by: &Principal, incoming: Incoming<'_>) -> Result<Response, Failure> {
    let text = |name: &str| incoming.input.get(name).and_then(Value::as_str);
    let (function, qualifier) = named(service, by, text("FunctionName").unwrap_or_default(), text("Qualifier"))?;
    let setting = service.may_invoke(by, &function, qualifier.as_ref())?;
    let origin = Origin {
        headers: incoming.headers,
        query: incoming.query,
        account: Some(by.account.as_str()),
        address: incoming.address,
    };
    let affinity = affinity::value(setting.as_deref(), origin)?;
    let streaming = incoming.operation == "InvokeWithResponseStream";
    match text("InvocationType") {
        Some("Event") => return event(service, function, qualifier, text("ClientContext"), affinity, incoming).await,
        None if incoming.operation == "InvokeAsync" => {
            return event(service, function, qualifier, None, affinity, incoming).await;
        }
        Some("DryRun") => {
            service.parts.registry.resolve(&function, qualifier.as_ref())?;
            return Ok(empty(StatusCode::NO_CONTENT, incoming.id));
        }
        _ => {}
    }
    if incoming.headers.contains_key(calls::DEADLINE) {
        let text = format!("{} is for events: whoever waits for an answer needs it now", calls::DEADLINE);
        return Err(Failure::invalid_parameter(text));
    }
    let client_context = text("ClientContext").map(client_context).transpose()?;
    let log_tail = if text("LogType") == Some("Tail") { LogTail::Tail } else { LogTail::None };
    let payload = payload(incoming.body)?;
    let trace = trace(incoming.headers, incoming.id, service.parts.clock.now());
    let trace = service.parts.events.pass(&function, qualifier.as_ref(), trace)?;
    let idempotency = Ask::read(incoming.headers).map_err(lambent_invoker::Error::from)?;
    let answer = service
        .parts
        .invoker
        .invoke(Invocation {
            function,
            qualifier,
            request_id: incoming.id,
            payload,
            client_context,
            cognito_identity: None,
            tenant: text("TenantId").map(str::to_owned),
            affinity,
            trace: Some(trace.clone()),
            mode: if streaming { Mode::Streaming { log_tail } } else { Mode::Buffered { log_tail } },
            received_at: incoming.received_at,
            idempotency,
            turn: None,
        })
        .await?;
    let mut stages = answer.stages;
    let (execution, found) = (answer.execution, answer.affinity);
    let mut response = if streaming { stream::response(answer, log_tail) } else { buffered(answer).await? };
    set_request_id(response.headers_mut(), incoming.id);
    if incoming.headers.contains_key(STAGES) {
        stages.end(Stage::Answer);
        if let Ok(stages) = HeaderValue::try_from(stages.server_timing()) {
            response.headers_mut().insert(STAGES, stages);
        }
    }
    if let Some(Ok(execution)) = execution.map(|execution| HeaderValue::try_from(execution.to_string())) {
        response.headers_mut().insert(kept::HEADER, execution);
    }
    if let Some(found) = found {
        response.headers_mut().insert(affinity::HEADER, HeaderValue::from_static(found.as_str()));
    }
    if let Ok(trace) = HeaderValue::try_from(trace) {
        response.headers_mut().insert("x-amzn-trace-id", trace);
    }
    Ok(response)
}

/// The event of an invocation; none is an empty one.
pub(crate) fn payload(body: Bytes) -> Result<Bytes, Failure> {
    let payload = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    payload::check(&payload).map_err(Failure::invalid_content)?;
    Ok(payload)
}

/// `InvocationType=Event`, and `InvokeAsync`: 202 when the event is on disk.
async fn event(
    service: &Service,
    function: FunctionArn,
    qualifier: Option<Qualifier>,
    client_context: Option<&str>,
    affinity: Option<AffinityValue>,
    incoming: Incoming<'_>,
) -> Result<Response, Failure> {
    executions::refuse_for_events(incoming.headers)?;
    let client_context = client_context.map(self::client_context).transpose()?;
    if incoming.body.len() > limits::ASYNC_REQUEST_BYTES {
        return Err(Failure::event_too_large(incoming.body.len()));
    }
    let trace = trace(incoming.headers, incoming.id, service.parts.clock.now());
    let sent = Sent {
        function,
        qualifier,
        request_id: incoming.id,
        payload: payload(incoming.body)?,
        client_context,
        tenant: incoming.input.get("TenantId").and_then(Value::as_str).map(str::to_owned),
        affinity,
        trace: Some(trace.clone()),
        deadline: calls::deadline(incoming.headers, service.parts.clock.now(), limits::EVENT_AGE)?,
    };
    service.parts.events.accept(sent).await?;
    let mut response = empty(StatusCode::ACCEPTED, incoming.id);
    let headers = response.headers_mut();
    headers.insert("x-amzn-remapped-content-length", HeaderValue::from_static("0"));
    if let Ok(trace) = HeaderValue::try_from(trace) {
        headers.insert("x-amzn-trace-id", trace);
    }
    Ok(response)
}

/// The function that a caller names, and the qualifier from whichever place has it.
pub(crate) fn named(
    service: &Service,
    by: &Principal,
    name: &str,
    qualifier: Option<&str>,
) -> Result<(FunctionArn, Option<Qualifier>), Failure> {
    let region = &service.parts.region;
    let not_found = |shown: &str| {
        let text = format!("Function not found: arn:aws:lambda:{region}:{}:function:{shown}", by.account);
        Failure::new(404, "ResourceNotFoundException", text)
    };
    let reference: FunctionRef = name.parse().map_err(|_| not_found(name))?;
    let arn = reference.resolve(&by.account, region);
    if arn.region != *region {
        let text = format!("Functions from '{}' are not reachable in this region ('{region}')", arn.region);
        return Err(Failure::new(404, "ResourceNotFoundException", text));
    }
    let given: Option<Qualifier> = match qualifier {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| not_found(&format!("{}:{text}", arn.name)))?),
    };
    match (reference.qualifier, given) {
        (Some(derived), Some(given)) if derived != given => Err(Failure::invalid_parameter(
            "The derived qualifier from the function name does not match the specified qualifier.",
        )),
        (derived, given) => Ok((arn, given.or(derived))),
    }
}

/// The trace that the caller sent, or a new one; the invoker adds what is missing of it.
fn trace(headers: &HeaderMap, id: RequestId, now: jiff::Timestamp) -> String {
    match headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok()) {
        Some(sent) if sent.contains("Root=") => sent.to_owned(),
        _ => {
            // The request's id is as random as a trace's root has to be.
            let random: String = id.to_string().chars().filter(char::is_ascii_hexdigit).skip(8).collect();
            format!("Root=1-{:08x}-{random}", now.as_second())
        }
    }
}

/// `X-Amz-Client-Context` as JSON text.
fn client_context(encoded: &str) -> Result<String, Failure> {
    if encoded.len() > limits::CLIENT_CONTEXT_BYTES.div_ceil(3) * 4 {
        let text = format!("Client context must be no more than {} bytes.", limits::CLIENT_CONTEXT_BYTES);
        return Err(Failure::invalid_content(text));
    }
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded
        .filter(|text| serde_json::from_str::<Map<String, Value>>(text).is_ok())
        .ok_or_else(|| Failure::invalid_content("Client context must be a valid Base64-encoded JSON object."))
}

async fn buffered(answer: Answer) -> Result<Response, Failure> {
    let body = match answer.body {
        AnswerBody::Buffered(bytes) => bytes,
        AnswerBody::Stream(pieces) => collect(pieces).await?,
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-amzn-remapped-content-length", HeaderValue::from_static("0"));
    if let Ok(version) = HeaderValue::try_from(answer.executed_version.to_string()) {
        headers.insert("x-amz-executed-version", version);
    }
    if let Some(Ok(kind)) = answer.error.map(|kind| HeaderValue::try_from(kind.to_string())) {
        headers.insert("x-amz-function-error", kind);
    }
    if let Some(Ok(tail)) = answer.log_tail.map(|tail| HeaderValue::try_from(STANDARD.encode(tail))) {
        headers.insert("x-amz-log-result", tail);
    }
    Ok(response)
}

/// A stream that the caller wants whole. The bound is that of a buffered answer.
async fn collect(
    mut pieces: tokio::sync::mpsc::Receiver<Result<Bytes, lambent_invoker::StreamError>>,
) -> Result<Bytes, Failure> {
    let mut whole = Vec::new();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Ok(piece) if whole.len() + piece.len() <= limits::SYNC_RESPONSE_BYTES => whole.extend_from_slice(&piece),
            Ok(_) | Err(_) => return Err(Failure::internal()),
        }
    }
    Ok(whole.into())
}

fn empty(status: StatusCode, id: RequestId) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    set_request_id(response.headers_mut(), id);
    response
}

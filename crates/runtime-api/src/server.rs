//! Accepts connections from inside the container and answers their requests.
//!
//! What bounds it: [`CONNECTIONS`] at once, further ones wait in the listener's backlog until one ends. A connection's buffer grows to
//! [`SMALL_BUFFER`], for [`LARGE_BUFFERS`] of them to [`LARGE_BUFFER`]: 21 MiB altogether, of which a container that behaves uses
//! kilobytes. Bodies that may be large come one at a time (the machine lets one answer begin), all others are small.
//! Connections are not closed for being idle or slow: a runtime may compute for 15 minutes between two requests on the same
//! connection, and a slow client holds nothing but its own place. All of it ends with the container.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::answer::{self, ERROR_TYPE, text};
use crate::body::{self, Read};
use crate::call::Lifecycle;
use crate::core::Core;
use crate::machine::{AnswerKind, Failing};
use crate::reply::{self, EXTENSION_ID, INVOCATION_ID, Reply};
use crate::services::{Either, TRACE};
use crate::subscription::{self, Api};
use crate::telemetry::Refused;

/// Connections that are served at once.
const CONNECTIONS: usize = 64;
/// What is buffered of a connection, which bounds the head of a request: the official clients put up to a mebibyte of stack trace in a
/// header.
const LARGE_BUFFER: usize = 1024 * 1024 + 64 * 1024;
/// Connections that get such a buffer, first come, first served; a runtime opens one or two.
const LARGE_BUFFERS: usize = 16;
/// What is buffered of the others.
const SMALL_BUFFER: usize = 64 * 1024;
/// The body of a request that is not an answer to an invocation.
const SMALL_BODY_BYTES: usize = 256 * 1024;
/// The wait after the system refused to accept, for want of file descriptors say.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What is kept of a runtime's reason for having no snapshot.
const REASON_CHARS: usize = 256;

const EXTENSION_NAME: HeaderName = HeaderName::from_static("lambda-extension-name");
const EXTENSION_FEATURES: HeaderName = HeaderName::from_static("lambda-extension-accept-feature");
const EXTENSION_ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-extension-function-error-type");

/// Serves until it is dropped, and all connections with it.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>) {
    let mut connections = JoinSet::new();
    let large = Arc::new(Semaphore::new(LARGE_BUFFERS));
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it an answer may wait for the acknowledgement of the one before. Where it fails, it is only slower.
                    let _ = stream.set_nodelay(true);
                    let large = Arc::clone(&large).try_acquire_owned().ok();
                    connections.spawn(connection(TokioIo::new(stream), Arc::clone(&core), large));
                }
                Err(error) => {
                    tracing::debug!(%error, container = %core.identity.container, "runtime API cannot accept");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

async fn connection(stream: TokioIo<TcpStream>, core: Arc<Core>, large: Option<OwnedSemaphorePermit>) {
    let buffer = if large.is_some() { LARGE_BUFFER } else { SMALL_BUFFER };
    let service = service_fn(|request| {
        let core = Arc::clone(&core);
        async move { Ok::<_, std::convert::Infallible>(either(&core, request).await) }
    });
    let served = http1::Builder::new()
        .max_buf_size(buffer)
        .max_header_size(buffer)
        // AWS's own spelling, for scripts that look for it literally.
        .title_case_headers(true)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        // What a client does wrong is the client's affair.
        tracing::trace!(%error, container = %core.identity.container, "runtime API connection ended");
    }
}

/// Signed requests are for the services of the account, and so is what code says of its invocation; all others are for this server.
async fn either(core: &Arc<Core>, request: Request<Incoming>) -> Response<Either> {
    match &core.services {
        Some(services) if is_signed(&request) || is_of_invocation(&request) => {
            let (caller, mut request) = (core.caller(), request);
            // SDKs pass it on where they know that they run in a function; for the others, and so that no chain can hide.
            let trace = caller.invoke.as_ref().and_then(|invoke| HeaderValue::try_from(invoke.trace.as_deref()?).ok());
            if let Some(trace) = trace.filter(|_| !request.headers().contains_key(TRACE)) {
                request.headers_mut().insert(TRACE, trace);
            }
            services.answer(caller, request).await.map(Either::Services)
        }
        _ => route(core, request).await.map(Either::Own),
    }
}

/// Calls that it starts, and dependencies that it reports.
fn is_of_invocation(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    ["/lambent/2026-11-24/calls", "/lambent/2026-11-24/dependencies"].iter().any(|place| {
        let below = path.strip_prefix(place);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn is_signed(request: &Request<Incoming>) -> bool {
    let algorithm = "AWS4-HMAC-SHA256";
    let header = request.headers().get(header::AUTHORIZATION);
    header.is_some_and(|value| value.as_bytes().starts_with(algorithm.as_bytes()))
        || request.uri().query().is_some_and(|query| query.contains("X-Amz-Algorithm="))
}

/// One request: an edge that knows paths and headers, and behind it `Core`, which knows neither.
async fn route(core: &Arc<Core>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let Some((version, path)) = head.uri.path().strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return reply::nowhere(StatusCode::NOT_FOUND);
    };
    let (method, headers) = (&head.method, &head.headers);
    match (version, path) {
        ("lambent", "2026-11-24/credentials") => on(method, &Method::GET, credentials(core)).await,
        ("2018-06-01", path) => runtime(core, method, path, headers, body).await,
        ("2020-01-01", "extension/register") => on(method, &Method::POST, register(core, headers, body)).await,
        ("2020-01-01", "extension/event/next") => on(method, &Method::GET, extension_next(core, headers)).await,
        ("2020-01-01", "extension/init/error") => {
            on(method, &Method::POST, extension_error(core, Failing::Init, headers, body)).await
        }
        ("2020-01-01", "extension/exit/error") => {
            on(method, &Method::POST, extension_error(core, Failing::Exit, headers, body)).await
        }
        ("2022-07-01", "telemetry" | "telemetry/") => {
            on(method, &Method::PUT, subscribe(core, Api::Telemetry, headers, body)).await
        }
        ("2020-08-15", "logs" | "logs/") => on(method, &Method::PUT, subscribe(core, Api::Logs, headers, body)).await,
        _ => reply::nowhere(StatusCode::NOT_FOUND),
    }
}

async fn on(method: &Method, expected: &Method, reply: impl Future<Output = Reply>) -> Reply {
    if method == expected { reply.await } else { reply::nowhere(StatusCode::METHOD_NOT_ALLOWED) }
}

async fn runtime(core: &Arc<Core>, method: &Method, path: &str, headers: &HeaderMap, body: Incoming) -> Reply {
    if path == "runtime/invocation/next" {
        return on(method, &Method::GET, next(core)).await;
    }
    if let Some((request, kind)) = path.strip_prefix("runtime/invocation/").and_then(|rest| rest.split_once('/')) {
        let kind = match kind {
            "response" => AnswerKind::Response,
            "error" => AnswerKind::Error,
            _ => return reply::nowhere(StatusCode::NOT_FOUND),
        };
        return on(method, &Method::POST, answer(core, request, kind, headers, body)).await;
    }
    match path {
        "runtime/init/error" => on(method, &Method::POST, init_error(core, headers, body)).await,
        // What goes wrong after a restore is told in the place of what goes wrong in the init phase.
        "runtime/restore/error" => on(method, &Method::POST, init_error(core, headers, body)).await,
        "runtime/restore/snapshot" => on(method, &Method::POST, snapshot(core, body)).await,
        "runtime/restore/unsafe" => on(method, &Method::POST, no_snapshot(core, body)).await,
        "ping" if method == Method::GET => reply::json(StatusCode::OK, Bytes::from_static(b"pong")),
        // `restore/next` among them: by it runtimes of AWS's say that they can be frozen, and ours do that themselves.
        _ => reply::nowhere(StatusCode::NOT_FOUND),
    }
}

async fn next(core: &Arc<Core>) -> Reply {
    match core.next() {
        Ok(poll) => reply::runtime_event(&poll.event().await),
        Err(refusal) => reply::refused(&refusal),
    }
}

async fn answer(core: &Arc<Core>, request: &str, kind: AnswerKind, headers: &HeaderMap, body: Incoming) -> Reply {
    // What is no identifier is not the right one either.
    let invocation = headers.get(INVOCATION_ID).map(|id| Uuid::try_parse_ascii(id.as_bytes()).unwrap_or_default());
    match core.begin(request.parse().ok(), invocation, kind) {
        Ok(answer) => {
            let reply = answer::take(answer, kind, headers, body).await;
            // The caller waits for what has just been handed over; the runtime's acknowledgement is sent after it.
            tokio::task::yield_now().await;
            reply
        }
        Err(refusal) => {
            let mut body = body;
            // Clients that send all before they listen would otherwise see a broken connection in place of the refusal.
            let reply = reply::refused(&refusal);
            if body::drain(&mut body).await { reply } else { reply::closing(reply) }
        }
    }
}

async fn init_error(core: &Arc<Core>, headers: &HeaderMap, mut body: Incoming) -> Reply {
    let bytes = match small(&mut body).await {
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    match core.init_error(text(headers, &ERROR_TYPE), bytes) {
        Ok(()) => reply::accepted(),
        Err(refusal) => reply::refused(&refusal),
    }
}

async fn snapshot(core: &Arc<Core>, mut body: Incoming) -> Reply {
    let Some(sink) = core.take_sink() else { return reply::closing(reply::nowhere(StatusCode::NOT_FOUND)) };
    match sink.fill(&mut body).await {
        true => reply::accepted(),
        false => reply::closing(reply::nowhere(StatusCode::PAYLOAD_TOO_LARGE)),
    }
}

async fn no_snapshot(core: &Arc<Core>, mut body: Incoming) -> Reply {
    let Some(sink) = core.take_sink() else { return reply::nowhere(StatusCode::NOT_FOUND) };
    match small(&mut body).await {
        Ok(reason) => {
            sink.refuse(String::from_utf8_lossy(&reason).chars().take(REASON_CHARS).collect());
            reply::accepted()
        }
        Err(reply) => reply,
    }
}

/// How long credentials are good that are asked for, and those that a snapshot may hold: SDKs renew the latter before each use, because
/// they are nearly over from the start.
const LIFE: Duration = Duration::from_secs(3600);
const LIFE_IN_SNAPSHOT: Duration = Duration::from_secs(300);

/// Credentials in the form in which SDKs ask the host of a container for them.
async fn credentials(core: &Arc<Core>) -> Reply {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        access_key_id: String,
        secret_access_key: String,
        token: String,
        expiration: String,
    }
    let life = if core.makes_snapshot() { LIFE_IN_SNAPSHOT } else { LIFE };
    let made = core.services.as_ref().and_then(|services| services.credentials(&core.identity, life));
    let Some(made) = made else { return reply::nowhere(StatusCode::NOT_FOUND) };
    let document = Document {
        access_key_id: made.access_key_id,
        secret_access_key: made.secret_access_key,
        token: made.session_token,
        expiration: lambent_model::clock::rfc3339_millis(made.expires_at),
    };
    reply::json(StatusCode::OK, reply::body_of(&document))
}

async fn small(body: &mut Incoming) -> Result<Bytes, Reply> {
    match body::read(body, SMALL_BODY_BYTES).await {
        Read::Whole(bytes, _) => Ok(bytes),
        Read::TooLarge(_) => Err(reply::body_too_large(SMALL_BODY_BYTES)),
        Read::Broken => Err(reply::truncated()),
    }
}

async fn register(core: &Arc<Core>, headers: &HeaderMap, mut body: Incoming) -> Reply {
    let forbidden = |error_type, message: &str| reply::error(StatusCode::FORBIDDEN, error_type, message);
    let Some(name) = text(headers, &EXTENSION_NAME) else {
        return forbidden("Extension.InvalidExtensionName", "Empty extension name");
    };
    let bytes = match small(&mut body).await {
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    let request = match serde_json::from_slice::<Registration>(&bytes) {
        Ok(request) => request,
        Err(error) => return forbidden("InvalidRequestFormat", &error.to_string()),
    };
    if !request.configuration_keys.unwrap_or_default().is_empty() {
        let message = "configurationKeys are deprecated; use environment variables instead";
        return forbidden("InvalidRequestFormat", message);
    }
    let mut events = Vec::new();
    for event in request.events.unwrap_or_default() {
        let known = match event.as_str() {
            "INVOKE" => Lifecycle::Invoke,
            "SHUTDOWN" => Lifecycle::Shutdown,
            _ => return forbidden("Extension.InvalidEventType", &format!("{event}: ErrorInvalidEventType")),
        };
        if !events.contains(&known) {
            events.push(known);
        }
    }
    let with_account = headers
        .get_all(EXTENSION_FEATURES)
        .iter()
        .flat_map(|features| features.as_bytes().split(|byte| *byte == b','))
        .any(|feature| feature.trim_ascii() == b"accountId");
    match core.register(name, events) {
        Ok(id) => reply::registered(id, &core.identity, with_account),
        Err(refusal) => reply::refused(&refusal),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    events: Option<Vec<String>>,
    configuration_keys: Option<Vec<String>>,
}

#[allow(clippy::result_large_err, reason = "the error is the answer, and is moved once")]
fn extension_id(headers: &HeaderMap) -> Result<Uuid, Reply> {
    let Some(id) = text(headers, &EXTENSION_ID) else {
        let message = "Missing Lambda-Extension-Identifier header";
        return Err(reply::error(StatusCode::FORBIDDEN, "Extension.MissingExtensionIdentifier", message));
    };
    id.parse().map_err(|_| {
        let message = "Invalid Lambda-Extension-Identifier";
        reply::error(StatusCode::FORBIDDEN, "Extension.InvalidExtensionIdentifier", message)
    })
}

async fn extension_next(core: &Arc<Core>, headers: &HeaderMap) -> Reply {
    let poll = match extension_id(headers) {
        Ok(id) => core.extension_next(id),
        Err(reply) => return reply,
    };
    match poll {
        Ok(poll) => reply::extension_event(&poll.event().await),
        Err(refusal) => reply::refused(&refusal),
    }
}

async fn extension_error(core: &Arc<Core>, failing: Failing, headers: &HeaderMap, mut body: Incoming) -> Reply {
    let id = match extension_id(headers) {
        Ok(id) => id,
        Err(reply) => return reply,
    };
    let Some(error_type) = text(headers, &EXTENSION_ERROR_TYPE) else {
        let message = "Lambda-Extension-Function-Error-Type not found";
        return reply::error(StatusCode::FORBIDDEN, "Extension.MissingHeader", message);
    };
    let bytes = match small(&mut body).await {
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    match core.extension_error(id, failing, error_type, bytes) {
        Ok(()) => reply::accepted(),
        Err(refusal) => reply::refused(&refusal),
    }
}

async fn subscribe(core: &Arc<Core>, api: Api, headers: &HeaderMap, mut body: Incoming) -> Reply {
    let name = match extension_id(headers).map(|id| (id, core.extension_name(id))) {
        Ok((_, Some(name))) => name,
        Ok((id, None)) => return reply::refused(&crate::machine::Refusal::UnknownExtension(id)),
        Err(reply) => return reply,
    };
    let bytes = match small(&mut body).await {
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    let invalid = |message: &str| reply::error(StatusCode::BAD_REQUEST, "ValidationError", message);
    let (dialect, subscription) = match subscription::read(api, &bytes) {
        Ok(read) => read,
        Err(message) => return invalid(&message),
    };
    match core.telemetry.subscribe(&name, dialect, subscription) {
        Ok(()) => reply::json(StatusCode::OK, Bytes::from_static(br#""OK""#)),
        Err(Refused::OtherApi) => {
            invalid("The extension is subscribed through the other of the Logs API and the Telemetry API")
        }
        Err(Refused::Closed) => {
            let (error_type, message) = match api {
                Api::Telemetry => ("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already"),
                Api::Logs => ("Logs.SubscriptionClosed", "Logs API subscription is closed already"),
            };
            reply::error(StatusCode::FORBIDDEN, error_type, message)
        }
    }
}

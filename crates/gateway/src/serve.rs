//! One request, from its first line to its answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::HOST;
use http::request::Parts as Head;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lambent_invoker::executions::{self, Ask};
use lambent_invoker::{AffinityValue, Answer, Body as AnswerBody, Invocation, LogTail, Mode, affinity};
use lambent_model::{RequestId, limits};
use lambent_policy::sigv4::Principal;
use lambent_registry::shape::{AuthType, InvokeMode};
use lambent_registry::{FunctionUrl, Resolved};
use tokio::time::timeout;

use crate::address::{self, Address};
use crate::event::{self, Origin};
use crate::refusal::Refusal;
use crate::{Parts, access, cors, response, stream};

/// The name requests to function URLs are signed for.
const SERVICE: &str = "lambda";

/// Answers a request. Never fails: every fault is a response.
pub(crate) async fn serve(State(parts): State<Arc<Parts>>, request: Request<Body>) -> Response {
    let received_at = Instant::now();
    let request_id = RequestId::random();
    let (head, body) = request.into_parts();
    let host = host(&head);
    let target = address::read(&host, &head.uri, &parts.settings)
        .and_then(|address| Some((parts.directory.function_url(&address.id)?, address)));
    let Some((url, address)) = target else { return finish(Refusal::Unknown.response(), request_id) };

    if let Some(configured) = url.cors.as_ref().filter(|_| cors::is_preflight(&head.method, &head.headers)) {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = cors::preflight(configured, &head.headers);
        return finish(response, request_id);
    }
    let call = Call { parts: &parts, url: &url, address: &address, head: &head, host: &host, request_id, received_at };
    let mut response = call.answer(body).await.unwrap_or_else(|refusal| {
        tracing::debug!(%request_id, url = url.id, reason = %refusal, "function URL refused");
        refusal.response()
    });
    if let Some(configured) = &url.cors {
        cors::apply(configured, &head.headers, response.headers_mut());
    }
    metrics::counter!("lambent_function_url_requests_total", "status" => status_class(response.status())).increment(1);
    finish(response, request_id)
}

/// A request to a URL that exists.
struct Call<'a> {
    parts: &'a Parts,
    url: &'a FunctionUrl,
    address: &'a Address,
    head: &'a Head,
    host: &'a str,
    request_id: RequestId,
    received_at: Instant,
}

impl Call<'_> {
    async fn answer(&self, body: Body) -> Result<Response, Refusal> {
        let resolved = self
            .parts
            .directory
            .resolve(&self.url.function, self.url.qualifier.as_ref())
            .map_err(|error| Refusal::Invoke(error.into()))?;
        let (principal, body) = self.admit(&resolved, body).await?;
        let affinity = self.affinity(&resolved, principal.as_deref())?;
        let ask = access::ask(&resolved, principal.as_deref(), &self.head.headers)?;
        let invocation = Invocation { affinity, ..self.invocation(principal.as_deref(), &body, ask)? };
        let answer = self.parts.invoker.invoke(invocation).await.map_err(Refusal::Invoke)?;
        let (found, execution) = (answer.affinity, answer.execution);
        let mut response = respond(self.url.invoke_mode, answer).await?;
        if let Some(Ok(execution)) = execution.map(|execution| HeaderValue::try_from(execution.to_string())) {
            response.headers_mut().insert(executions::HEADER, execution);
        }
        if let Some(found) = found {
            response.headers_mut().insert(affinity::HEADER, HeaderValue::from_static(found.as_str()));
        }
        Ok(response)
    }

    /// Who calls, and the body: nothing of a stranger's body is read where the head alone shows that it is one.
    async fn admit(&self, resolved: &Resolved, body: Body) -> Result<(Option<Arc<Principal>>, Bytes), Refusal> {
        let allowed = |principal: Option<&Principal>| {
            if access::is_allowed(self.url, resolved, principal) { Ok(()) } else { Err(Refusal::Forbidden) }
        };
        match self.url.auth_type {
            AuthType::None => {
                allowed(None)?;
                Ok((None, self.read(body).await?))
            }
            AuthType::AwsIam => {
                let pending = self.parts.verifier.begin(self.head, SERVICE).map_err(Refusal::Signature)?;
                let body = self.read(body).await?;
                let principal = pending.finish(&body).map_err(Refusal::Signature)?;
                allowed(Some(&principal))?;
                Ok((Some(principal), body))
            }
        }
    }

    fn affinity(&self, resolved: &Resolved, by: Option<&Principal>) -> Result<Option<AffinityValue>, Refusal> {
        let origin = affinity::Origin {
            headers: &self.head.headers,
            query: self.head.uri.query().unwrap_or_default(),
            account: by.map(|by| by.account.as_str()),
            address: Some(source(self.head)),
        };
        affinity::value(resolved.affinity.as_deref(), origin).map_err(Refusal::Invoke)
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let limit = limits::SYNC_REQUEST_BYTES;
        let read = timeout(self.parts.settings.body_timeout, Limited::new(body, limit).collect());
        match read.await.map_err(|_| Refusal::BodyTooSlow)? {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge { limit }),
            Err(error) => Err(Refusal::BodyBroken(axum::Error::new(error))),
        }
    }

    fn invocation(&self, principal: Option<&Principal>, body: &[u8], ask: Option<Ask>) -> Result<Invocation, Refusal> {
        let at = self.parts.clock.now();
        let sent = self.head.headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok());
        let trace = sent.map_or_else(|| fresh_trace(at), str::to_owned);
        let origin = Origin {
            address: self.address,
            principal,
            source: source(self.head),
            scheme: self.parts.settings.scheme,
            port: port(self.host, self.parts.settings.scheme),
            trace: &trace,
            request_id: self.request_id,
            at,
        };
        // Every member is text or a number, so this cannot fail; if it does, it is no fault of the caller.
        let event = event::build(self.head, body, &origin).map_err(|_| Refusal::Function)?;
        let input = || event::input(self.head, body, &origin).map_err(|_| Refusal::Function);
        let idempotency = match ask {
            Some(ask) => Some(Ask { input: Some(input()?.into()), ..ask }),
            None => None,
        };
        let log_tail = LogTail::None;
        Ok(Invocation {
            function: self.url.function.clone(),
            qualifier: self.url.qualifier.clone(),
            request_id: self.request_id,
            payload: event.into(),
            client_context: None,
            cognito_identity: None,
            tenant: None,
            affinity: None,
            trace: Some(trace),
            mode: match self.url.invoke_mode {
                InvokeMode::Buffered => Mode::Buffered { log_tail },
                InvokeMode::ResponseStream => Mode::Streaming { log_tail },
            },
            received_at: self.received_at,
            idempotency,
            turn: None,
        })
    }
}

async fn respond(mode: InvokeMode, answer: Answer) -> Result<Response, Refusal> {
    if answer.error.is_some() {
        return Err(Refusal::Function);
    }
    match (mode, answer.body) {
        (InvokeMode::Buffered, AnswerBody::Buffered(whole)) if answer.content_type != stream::WITH_PRELUDE => {
            response::infer(whole)
        }
        // A function that streams says what its response is in its own way, also where the URL waits for the whole.
        (InvokeMode::Buffered | InvokeMode::ResponseStream, body) => stream::respond(&answer.content_type, body).await,
    }
}

fn finish(mut response: Response, request_id: RequestId) -> Response {
    // Hyphens and hexadecimal digits are always a valid value.
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

fn host(head: &Head) -> String {
    let header = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| head.uri.authority().map(|authority| authority.as_str())).unwrap_or_default().to_owned()
}

/// The port the client meant.
fn port<'a>(host: &'a str, scheme: &str) -> &'a str {
    match host.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => port,
        _ if scheme == "https" => "443",
        _ => "80",
    }
}

/// The other end of the connection, an IPv4 address in IPv4's form.
fn source(head: &Head) -> IpAddr {
    let connection = head.extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip().to_canonical())
}

fn fresh_trace(at: jiff::Timestamp) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("Root=1-{:08x}-{}", at.as_second(), random.get(..24).unwrap_or_default())
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

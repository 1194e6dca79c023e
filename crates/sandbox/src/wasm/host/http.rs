//! Events of payload format 2.0 as requests to a guest, and its responses as answers.
//!
//! A function URL hands over such events by itself; a direct invoke may bring one, or any other JSON: that becomes the body of a
//! `POST /`, so that a component that only knows HTTP can be invoked with whatever one likes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

/// The type of answers with a prelude.
pub(super) const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    raw_path: Cow<'a, str>,
    #[serde(borrow, default)]
    raw_query_string: Cow<'a, str>,
    #[serde(borrow, default)]
    headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default)]
    cookies: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    request_context: RequestContext<'a>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    #[serde(borrow)]
    http: Http<'a>,
}

#[derive(Deserialize)]
struct Http<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
}

/// The scheme that guests are told.
pub(super) fn scheme() -> Scheme {
    Scheme::Http
}

/// The request that an event means; an error says what is wrong with it.
pub(super) fn request(event: &Bytes) -> Result<Request<Body>, String> {
    match serde_json::from_slice::<Event<'_>>(event) {
        Ok(parsed) => from_event(parsed),
        Err(_) => Ok(direct(event)),
    }
}

/// A body that cannot fail.
type Body = http_body_util::combinators::MapErr<Full<Bytes>, fn(std::convert::Infallible) -> wasmtime_wasi_http::Error>;

fn body(bytes: Bytes) -> Body {
    http_body_util::BodyExt::map_err(Full::new(bytes), |never| match never {})
}

/// What is no event of payload format 2.0.
fn direct(event: &Bytes) -> Request<Body> {
    let mut request = Request::new(body(event.clone()));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(event.len()));
    request
}

fn from_event(event: Event<'_>) -> Result<Request<Body>, String> {
    let bytes = match (event.body, event.is_base64_encoded) {
        (None, _) => Bytes::new(),
        (Some(text), false) => Bytes::from(text.into_owned()),
        (Some(text), true) => STANDARD.decode(text.as_bytes()).map_err(|error| format!("body: {error}"))?.into(),
    };
    let length = bytes.len();
    let path = if event.raw_path.starts_with('/') { event.raw_path } else { format!("/{}", event.raw_path).into() };
    let target = match event.raw_query_string.is_empty() {
        true => path.into_owned(),
        false => format!("{path}?{}", event.raw_query_string),
    };
    let mut request = Request::new(body(bytes));
    *request.method_mut() =
        event.request_context.http.method.parse().map_err(|error| format!("requestContext.http.method: {error}"))?;
    *request.uri_mut() = target.parse().map_err(|error| format!("rawPath: {error}"))?;
    let headers = request.headers_mut();
    for (name, value) in event.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("headers: {name:?} is no name of a header"))?;
        // Latin-1 came in as text; what is no value any more is left out.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    }
    if !event.cookies.is_empty()
        && !headers.contains_key(COOKIE)
        && let Ok(value) = HeaderValue::from_str(&event.cookies.join("; "))
    {
        headers.insert(COOKIE, value);
    }
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    if length > 0 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(request)
}

/// A response as payload format 2.0 has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_base64_encoded: Option<bool>,
}

fn describe(head: &Parts) -> Answer<'_> {
    let mut headers: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
    let mut cookies = Vec::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        if name == SET_COOKIE {
            cookies.push(value);
        } else {
            let all = headers.entry(name.as_str()).or_default();
            *all = if all.is_empty() { value } else { format!("{all},{value}").into() };
        }
    }
    Answer { status_code: head.status.as_u16(), headers, cookies, body: None, is_base64_encoded: None }
}

/// The answer that a whole response is; a body that is no text goes as base64.
pub(super) fn answer(head: &Parts, body: Bytes) -> Bytes {
    let mut answer = describe(head);
    match std::str::from_utf8(&body) {
        Ok(text) => (answer.body, answer.is_base64_encoded) = (Some(text.into()), Some(false)),
        Err(_) => (answer.body, answer.is_base64_encoded) = (Some(STANDARD.encode(&body).into()), Some(true)),
    }
    serde_json::to_vec(&answer).unwrap_or_default().into()
}

/// What goes before the pieces of a streamed response.
pub(super) fn prelude(head: &Parts) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&describe(head)).unwrap_or_default();
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    async fn shown(event: serde_json::Value) -> String {
        let (head, body) = match request(&event.to_string().into()) {
            Ok(request) => request.into_parts(),
            Err(reason) => return reason,
        };
        let headers: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        let body = body.collect().await.unwrap().to_bytes();
        format!("{} {} [{}] {}", head.method, head.uri, headers.join(", "), String::from_utf8_lossy(&body))
    }

    #[tokio::test]
    async fn events_become_requests() {
        let event = json!({
            "version": "2.0", "rawPath": "/a%20b", "rawQueryString": "x=1&y", "headers": {"host": "h:1", "x-a": "b"},
            "cookies": ["a=1", "b=2"], "requestContext": {"http": {"method": "PUT", "path": "/a%20b"}},
            "body": "aGk=", "isBase64Encoded": true
        });
        let expected = "PUT /a%20b?x=1&y [host: h:1, x-a: b, cookie: a=1; b=2, content-length: 2] hi";
        assert_eq!(shown(event).await, expected);
        let least = json!({"rawPath": "", "requestContext": {"http": {"method": "GET"}}});
        assert_eq!(shown(least).await, "GET / [host: localhost] ");
        let wrong = json!({"rawPath": "/", "requestContext": {"http": {"method": "GET"}}, "headers": {"a b": "c"}});
        assert_eq!(shown(wrong).await, "headers: \"a b\" is no name of a header");
    }

    #[tokio::test]
    async fn any_other_event_is_the_body_of_a_post() {
        let expected = "POST / [host: localhost, content-type: application/json, content-length: 7] {\"a\":1}";
        assert_eq!(shown(json!({"a": 1})).await, expected);
    }

    #[test]
    fn responses_become_answers() {
        let response = http::Response::builder()
            .status(201)
            .header("x-a", "1")
            .header("x-a", "2")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2");
        let (head, ()) = response.body(()).unwrap().into_parts();
        let text: serde_json::Value = serde_json::from_slice(&answer(&head, "hi".into())).unwrap();
        let expected = json!({"statusCode": 201, "headers": {"x-a": "1,2"}, "cookies": ["a=1", "b=2"], "body": "hi", "isBase64Encoded": false});
        assert_eq!(text, expected);
        let binary: serde_json::Value = serde_json::from_slice(&answer(&head, vec![255].into())).unwrap();
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
        assert!(prelude(&head).ends_with(b"}\0\0\0\0\0\0\0\0"));
    }
}

//! From what a function returned to an HTTP response.
//!
//! An object with `statusCode` describes the response; any other JSON is its body (200, `application/json`). What is no JSON, or
//! describes no response, is the function's failure: 502.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::is_hop_by_hop;
use crate::refusal::Refusal;

#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow, rename = "statusCode")]
    status_code: Option<&'a RawValue>,
}

/// What a function says of its response, in its answer or in front of its stream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    status_code: Option<Number>,
    #[serde(default)]
    headers: Option<BTreeMap<String, Scalar>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// A status, also as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u16),
    Text(String),
}

/// A header's value; numbers and truth values are written out.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Truth(bool),
}

/// Status and headers of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

impl Head {
    pub fn respond(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The response that a whole answer means.
pub(crate) fn infer(answer: Bytes) -> Result<Response, Refusal> {
    let whole: &RawValue = serde_json::from_slice(&answer).map_err(|_| Refusal::Function)?;
    let is_described = whole.get().starts_with('{')
        && serde_json::from_str::<Probe<'_>>(whole.get()).is_ok_and(|probe| probe.status_code.is_some());
    if !is_described {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        return Ok(Head { status: StatusCode::OK, headers }.respond(Body::from(answer)));
    }
    let described: Described<'_> = serde_json::from_str(whole.get()).map_err(|_| Refusal::Function)?;
    let mut head = described.head()?;
    head.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    let body = described.body.unwrap_or_default();
    let body = match described.is_base64_encoded {
        Some(true) => STANDARD.decode(body.as_bytes()).map_err(|_| Refusal::Function)?,
        _ => body.into_owned().into_bytes(),
    };
    Ok(head.respond(Body::from(body)))
}

/// Status and headers from the JSON in front of a stream. A stream that names no type is bytes.
pub(crate) fn prelude(json: &[u8]) -> Result<Head, Refusal> {
    let described: Described<'_> = serde_json::from_slice(json).map_err(|_| Refusal::Function)?;
    let mut head = described.head()?;
    head.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    Ok(head)
}

impl Described<'_> {
    fn head(&self) -> Result<Head, Refusal> {
        let status = match &self.status_code {
            None => 200,
            Some(Number::Plain(status)) => *status,
            Some(Number::Text(text)) => text.parse().map_err(|_| Refusal::Function)?,
        };
        // 1xx would announce another response that never comes.
        let status = Some(status).filter(|status| (200..600).contains(status)).ok_or(Refusal::Function)?;
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().flatten() {
            let name: HeaderName = name.parse().map_err(|_| Refusal::Function)?;
            // The length and the connection are this server's to say.
            if !is_hop_by_hop(&name) && name != CONTENT_LENGTH {
                let value = value.text();
                headers.insert(name, HeaderValue::from_str(&value).map_err(|_| Refusal::Function)?);
            }
        }
        for cookie in self.cookies.iter().flatten() {
            headers.append(SET_COOKIE, HeaderValue::from_str(cookie).map_err(|_| Refusal::Function)?);
        }
        Ok(Head { status: StatusCode::from_u16(status).map_err(|_| Refusal::Function)?, headers })
    }
}

impl Scalar {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Truth(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn shown(answer: &str) -> String {
        let Ok(response) = infer(Bytes::copy_from_slice(answer.as_bytes())) else { return "502".to_owned() };
        let (head, body) = response.into_parts();
        let headers: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        let body = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        format!("{} [{}] {body}", head.status.as_u16(), headers.join(", "))
    }

    #[tokio::test]
    async fn json_without_a_status_is_the_body() {
        for answer in [r#""Hello, world!""#, r#"{ "message": "hi" }"#, "null", "[1,2]", "7", r#"{"statuscode":201}"#] {
            assert_eq!(shown(answer).await, format!("200 [content-type: application/json] {answer}"));
        }
    }

    #[tokio::test]
    async fn an_object_with_a_status_describes_the_response() {
        let table = [
            (r#"{"statusCode":204}"#, "204 [content-type: application/json] "),
            (r#"{"statusCode":"404","body":"no"}"#, "404 [content-type: application/json] no"),
            (
                r#"{"statusCode":201,"headers":{"Content-Type":"text/plain","X-N":7,"X-T":true},"body":"a\"b","cookies":["a=1","b=2"]}"#,
                "201 [content-type: text/plain, x-n: 7, x-t: true, set-cookie: a=1, set-cookie: b=2] a\"b",
            ),
            (
                r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true,"headers":null,"cookies":null}"#,
                "200 [content-type: application/json] hi",
            ),
            (
                r#"{"statusCode":200,"headers":{"Content-Length":"9999","Transfer-Encoding":"chunked","Connection":"close"},"body":null}"#,
                "200 [content-type: application/json] ",
            ),
        ];
        for (answer, expected) in table {
            assert_eq!(shown(answer).await, expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn what_describes_no_response_is_the_functions_failure() {
        for answer in [
            "plain text",
            "",
            r#"{"statusCode":"ok"}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":600}"#,
            r#"{"statusCode":99999}"#,
            r#"{"statusCode":200,"body":{"a":1}}"#,
            r#"{"statusCode":200,"headers":{"bad name":"x"}}"#,
            r#"{"statusCode":200,"headers":{"x":"a\r\nset-cookie: b"}}"#,
            r#"{"statusCode":200,"headers":{"x":["a"]}}"#,
            r#"{"statusCode":200,"headers":[]}"#,
            r#"{"statusCode":200,"cookies":["a\nb"]}"#,
            r#"{"statusCode":200,"body":"***","isBase64Encoded":true}"#,
        ] {
            assert_eq!(shown(answer).await, "502", "{answer}");
        }
    }
}

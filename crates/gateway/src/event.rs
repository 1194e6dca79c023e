//! The event a function gets for an HTTP request: payload format 2.0.
//!
//! As observed on AWS where its documentation leaves something open: the `cookie` header stays among the headers beside `cookies`;
//! members that would be empty (`body`, `cookies`, `queryStringParameters`) are left out; `accountId` is `anonymous` for unsigned
//! callers; forms and bodies of no known text type come as base64; `x-forwarded-*` are those of the connection, whatever was sent.
//!
//! No two events are the same, as each says which request it is of and when that came. [`input`] is what two of them have in common that ask
//! for the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use jiff::Timestamp;
use lambent_invoker::executions;
use lambent_model::RequestId;
use lambent_policy::sigv4::Principal;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use uuid::Uuid;

use crate::address::Address;

/// What a request is besides its head and body.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub address: &'a Address,
    pub principal: Option<&'a Principal>,
    pub source: IpAddr,
    pub scheme: &'static str,
    pub port: &'a str,
    pub trace: &'a str,
    pub request_id: RequestId,
    pub at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: &'static str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<&'a str>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    account_id: &'a str,
    api_id: &'a str,
    authentication: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<Authorizer<'a>>,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: String,
    route_key: &'static str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Serialize)]
struct Authorizer<'a> {
    iam: Iam<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Iam<'a> {
    access_key: &'a str,
    account_id: &'a str,
    caller_id: &'a str,
    cognito_identity: (),
    principal_org_id: (),
    user_arn: &'a str,
    user_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    source_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

/// Room for most events.
const EVENT_BYTES: usize = 1_024;

/// The event as JSON.
pub(crate) fn build(head: &Parts, body: &[u8], origin: &Origin<'_>) -> Result<Vec<u8>, serde_json::Error> {
    written(head, body, &head.headers, origin)
}

/// The event without what differs each time that the same is asked for: the request's id, its time, its trace, what it is signed with, and
/// what it says of its idempotency. All else counts, who asks and from where among it: the function sees it, and may answer by it.
pub(crate) fn input(head: &Parts, body: &[u8], origin: &Origin<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut headers = head.headers.clone();
    let signed = if origin.principal.is_some() { &["x-amz-date", "x-amz-security-token"][..] } else { &[] };
    for name in signed.iter().chain(&[executions::MODE, executions::KEY]) {
        headers.remove(*name);
    }
    let origin = Origin { trace: "", request_id: Uuid::nil().into(), at: Timestamp::UNIX_EPOCH, ..*origin };
    written(head, body, &headers, &origin)
}

fn written(head: &Parts, body: &[u8], sent: &HeaderMap, origin: &Origin<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let query = head.uri.query().unwrap_or_default();
    let text = text_of(&head.headers, body);
    let encoded = if text.is_none() { STANDARD.encode(body) } else { String::new() };
    let event = Event {
        version: "2.0",
        route_key: "$default",
        raw_path: &origin.address.path,
        raw_query_string: query,
        cookies: cookies(&head.headers),
        headers: headers(sent, origin),
        query_string_parameters: parameters(query),
        request_context: context(head, origin),
        body: (!body.is_empty()).then(|| text.unwrap_or(&encoded)),
        is_base64_encoded: text.is_none(),
    };
    let mut json = Vec::with_capacity(EVENT_BYTES + body.len());
    serde_json::to_writer(&mut json, &event)?;
    Ok(json)
}

fn context<'a>(head: &'a Parts, origin: &'a Origin<'a>) -> Context<'a> {
    Context {
        account_id: origin.principal.map_or("anonymous", |principal| principal.account.as_str()),
        api_id: &origin.address.id,
        authentication: (),
        authorizer: origin.principal.map(|principal| Authorizer { iam: iam(principal) }),
        domain_name: &origin.address.domain,
        domain_prefix: &origin.address.id,
        http: Http {
            method: head.method.as_str(),
            path: &origin.address.path,
            protocol: match head.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            source_ip: origin.source.to_string(),
            user_agent: head.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()),
        },
        request_id: origin.request_id.to_string(),
        route_key: "$default",
        stage: "$default",
        time: origin.at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
        time_epoch: origin.at.as_millisecond(),
    }
}

/// IAM's unique ids do not exist here: a root principal's is its account, as on AWS, a user's is its name.
fn iam(principal: &Principal) -> Iam<'_> {
    let account = principal.account.as_str();
    let id = principal.arn.rsplit_once("user/").map_or(account, |(_, name)| name);
    Iam {
        access_key: &principal.access_key_id,
        account_id: account,
        caller_id: id,
        cognito_identity: (),
        principal_org_id: (),
        user_arn: &principal.arn,
        user_id: id,
    }
}

/// Headers that are about one connection, not about the request.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn headers<'a>(sent: &'a HeaderMap, origin: &Origin<'_>) -> BTreeMap<&'a str, String> {
    let mut joined: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in sent {
        // A signature that was checked here is nobody else's business; a function could replay it.
        if is_hop_by_hop(name) || (name == AUTHORIZATION && origin.principal.is_some()) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        match joined.get_mut(name.as_str()) {
            // The cookie header's own separator, so that it stays readable.
            Some(text) => {
                text.push_str(if name == COOKIE { "; " } else { "," });
                text.push_str(&value);
            }
            None => {
                joined.insert(name.as_str(), value.into_owned());
            }
        }
    }
    joined.insert("x-forwarded-for", origin.source.to_string());
    joined.insert("x-forwarded-port", origin.port.to_owned());
    joined.insert("x-forwarded-proto", origin.scheme.to_owned());
    joined.insert("x-amzn-trace-id", origin.trace.to_owned());
    joined
}

fn cookies(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).map(str::trim).filter(|cookie| !cookie.is_empty()).collect()
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        parameters
            .entry(decode(name))
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    parameters
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The body as text, where its type is one that AWS takes for text and it is valid UTF-8.
fn text_of<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<&'a str> {
    if body.is_empty() {
        return Some("");
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return None;
    }
    headers.get(CONTENT_TYPE).is_none_or(is_text).then(|| std::str::from_utf8(body).ok())?
}

fn is_text(content_type: &HeaderValue) -> bool {
    let Ok(content_type) = content_type.to_str() else { return false };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_named = matches!(essence.as_str(), "application/json" | "application/javascript" | "application/xml");
    is_named || essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(request: http::request::Builder, body: &[u8], principal: Option<&Principal>) -> Value {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let address = Address {
            id: "abc".to_owned(),
            path: head.uri.path().to_owned(),
            domain: "abc.lambda-url.us-east-1.localhost".to_owned(),
        };
        let origin = Origin {
            address: &address,
            principal,
            source: "192.0.2.7".parse().unwrap(),
            scheme: "http",
            port: "9401",
            trace: "Root=1-0-0",
            request_id: "e1506fd5-9e7b-434f-bd42-4f8fa224b599".parse().unwrap(),
            at: Timestamp::from_millisecond(1_583_348_638_390).unwrap(),
        };
        serde_json::from_slice(&build(&head, body, &origin).unwrap()).unwrap()
    }

    #[test]
    fn a_request_with_everything() {
        let request = http::Request::post("/my/p%20th?p=1&p=2&q=a%20b+c&empty=&bare&x%3Dy=%26")
            .header("Host", "abc.lambda-url.us-east-1.localhost:9401")
            .header("Content-Type", "application/json; charset=utf-8")
            .header("User-Agent", "agent")
            .header("X-Many", "value1")
            .header("X-Many", "value2")
            .header("Cookie", "one=1; two=2")
            .header("Cookie", "three=3")
            .header("Connection", "keep-alive")
            .header("X-Forwarded-For", "203.0.113.1");
        assert_eq!(
            event(request, b"{\"k\":1}", None),
            json!({
                "version": "2.0",
                "routeKey": "$default",
                "rawPath": "/my/p%20th",
                "rawQueryString": "p=1&p=2&q=a%20b+c&empty=&bare&x%3Dy=%26",
                "cookies": ["one=1", "two=2", "three=3"],
                "headers": {
                    "host": "abc.lambda-url.us-east-1.localhost:9401",
                    "content-type": "application/json; charset=utf-8",
                    "user-agent": "agent",
                    "x-many": "value1,value2",
                    "cookie": "one=1; two=2; three=3",
                    "x-forwarded-for": "192.0.2.7",
                    "x-forwarded-port": "9401",
                    "x-forwarded-proto": "http",
                    "x-amzn-trace-id": "Root=1-0-0",
                },
                "queryStringParameters": { "p": "1,2", "q": "a b c", "empty": "", "bare": "", "x=y": "&" },
                "requestContext": {
                    "accountId": "anonymous",
                    "apiId": "abc",
                    "authentication": null,
                    "domainName": "abc.lambda-url.us-east-1.localhost",
                    "domainPrefix": "abc",
                    "http": {
                        "method": "POST",
                        "path": "/my/p%20th",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "192.0.2.7",
                        "userAgent": "agent",
                    },
                    "requestId": "e1506fd5-9e7b-434f-bd42-4f8fa224b599",
                    "routeKey": "$default",
                    "stage": "$default",
                    "time": "04/Mar/2020:19:03:58 +0000",
                    "timeEpoch": 1_583_348_638_390_i64,
                },
                "body": "{\"k\":1}",
                "isBase64Encoded": false,
            })
        );
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let event = event(http::Request::get("/"), b"", None);
        for member in ["body", "cookies", "queryStringParameters"] {
            assert!(event.get(member).is_none(), "{member}");
        }
        assert_eq!(event["rawQueryString"], "");
        assert_eq!(event["isBase64Encoded"], false);
    }

    #[test]
    fn a_signed_caller_is_named_and_its_signature_is_not_passed_on() {
        let principal = |arn: &str| Principal {
            account: "111122223333".parse().unwrap(),
            arn: arn.to_owned(),
            access_key_id: "AKIAEXAMPLE".to_owned(),
            function: None,
        };
        let request = || http::Request::get("/").header("Authorization", "AWS4-HMAC-SHA256 ...");
        let user = principal("arn:aws:iam::111122223333:user/ann");
        let event_of_user = event(request(), b"", Some(&user));
        assert_eq!(
            event_of_user["requestContext"]["authorizer"],
            json!({ "iam": {
                "accessKey": "AKIAEXAMPLE", "accountId": "111122223333", "callerId": "ann", "cognitoIdentity": null,
                "principalOrgId": null, "userArn": "arn:aws:iam::111122223333:user/ann", "userId": "ann",
            }})
        );
        assert_eq!(event_of_user["requestContext"]["accountId"], "111122223333");
        assert!(event_of_user["headers"].get("authorization").is_none());
        let root = principal("arn:aws:iam::111122223333:root");
        let event_of_root = event(request(), b"", Some(&root));
        assert_eq!(event_of_root["requestContext"]["authorizer"]["iam"]["userId"], "111122223333");
        // Without a check here the header is the function's own.
        assert_eq!(event(request(), b"", None)["headers"]["authorization"], "AWS4-HMAC-SHA256 ...");
    }

    #[test]
    fn bodies_are_text_only_where_their_type_says_so() {
        let sent = |content_type: Option<&str>, encoding: Option<&str>, body: &[u8]| {
            let mut request = http::Request::post("/");
            for (name, value) in [("content-type", content_type), ("content-encoding", encoding)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let event = event(request, body, None);
            (event["body"].as_str().unwrap().to_owned(), event["isBase64Encoded"].as_bool().unwrap())
        };
        let text = |body: &str| (body.to_owned(), false);
        let binary = |body: &str| (body.to_owned(), true);
        for content_type in
            ["text/plain", "TEXT/html; charset=x", "application/json", "application/problem+json", "image/svg+xml"]
        {
            assert_eq!(sent(Some(content_type), None, b"ok"), text("ok"), "{content_type}");
        }
        for content_type in
            ["application/octet-stream", "image/png", "application/x-www-form-urlencoded", "multipart/form-data"]
        {
            assert_eq!(sent(Some(content_type), None, b"ok"), binary("b2s="), "{content_type}");
        }
        assert_eq!(sent(None, None, b"ok"), text("ok"));
        assert_eq!(sent(Some("text/plain"), Some("gzip"), b"ok"), binary("b2s="));
        assert_eq!(sent(Some("text/plain"), None, &[0x00, 0xff, 0x80, 0x0a]), binary("AP+ACg=="));
    }
}

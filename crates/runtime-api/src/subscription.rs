//! `PUT /2022-07-01/telemetry` and `PUT /2020-08-15/logs`: from a request's JSON to a [`Subscription`], read once and strictly.

use std::time::Duration;

use http::Method;
use serde::Deserialize;

use crate::telemetry::{Dialect, Stream};

/// What an extension subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub types: Vec<Stream>,
    pub destination: Destination,
    pub buffering: Buffering,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A JSON array a request.
    Http {
        port: u16,
        /// The `Host` header.
        authority: String,
        /// Path and query.
        path: String,
        method: Method,
    },
    /// A JSON object a line.
    Tcp { port: u16 },
}

/// When a batch is sent: as soon as any of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buffering {
    pub items: usize,
    pub bytes: usize,
    pub timeout: Duration,
}

/// The hosts that stand for the container itself.
const HOSTS: [&str; 2] = ["sandbox.localdomain", "sandbox"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    schema_version: Option<String>,
    types: Option<Vec<String>>,
    destination: Option<RawDestination>,
    buffering: Option<RawBuffering>,
}

#[derive(Deserialize)]
struct RawDestination {
    protocol: Option<String>,
    #[serde(rename = "URI")]
    uri: Option<String>,
    port: Option<u64>,
    method: Option<String>,
    encoding: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBuffering {
    max_items: Option<u64>,
    max_bytes: Option<u64>,
    timeout_ms: Option<u64>,
}

/// Which of the two APIs was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Telemetry,
    Logs,
}

/// Reads a request; the error is what AWS's validation message lists, separated by semicolons.
pub(crate) fn read(api: Api, body: &[u8]) -> Result<(Dialect, Subscription), String> {
    let request: Request = serde_json::from_slice(body).map_err(|error| format!("Invalid JSON: {error}"))?;
    let mut faults = Vec::new();
    let dialect = dialect(api, request.schema_version.as_deref(), &mut faults);
    let destination = destination(request.destination, &mut faults);
    let types = types(&request.types.unwrap_or_default(), &mut faults);
    let buffering = buffering(api, request.buffering, &mut faults);
    match (dialect, destination) {
        (Some(dialect), Some(destination)) if faults.is_empty() => {
            Ok((dialect, Subscription { types, destination, buffering }))
        }
        _ => Err(faults.join("; ")),
    }
}

fn dialect(api: Api, version: Option<&str>, faults: &mut Vec<String>) -> Option<Dialect> {
    let dialect = match (api, version) {
        (Api::Telemetry, Some("2022-07-01")) => Some(Dialect::Telemetry { objects: false }),
        (Api::Telemetry, Some("2022-12-13" | "2025-01-29")) => Some(Dialect::Telemetry { objects: true }),
        // The Logs API came without versions; its first schema is what a request without one means.
        (Api::Logs, None | Some("2020-08-15")) => Some(Dialect::Logs { runtime_done: false }),
        (Api::Logs, Some("2021-03-18")) => Some(Dialect::Logs { runtime_done: true }),
        (Api::Telemetry | Api::Logs, _) => None,
    };
    if dialect.is_none() {
        faults.push(match version {
            Some(version) => format!("schemaVersion {version:?} is not supported"),
            None => "schemaVersion is not provided".to_owned(),
        });
    }
    dialect
}

fn destination(raw: Option<RawDestination>, faults: &mut Vec<String>) -> Option<Destination> {
    let Some(raw) = raw else {
        faults.push("destination is not provided".to_owned());
        return None;
    };
    let read = match raw.protocol.as_deref() {
        Some("HTTP") => http_destination(&raw),
        Some("TCP") => match raw.port.map(u16::try_from) {
            Some(Ok(port)) if port > 0 => Ok(Destination::Tcp { port }),
            Some(_) => Err("port should be between 1 and 65535".to_owned()),
            None => Err("port is not provided".to_owned()),
        },
        Some(other) => Err(format!("protocol {other:?} is not one of HTTP, TCP")),
        None => Err("protocol is not provided".to_owned()),
    };
    read.map_err(|fault| faults.push(fault)).ok()
}

fn http_destination(raw: &RawDestination) -> Result<Destination, String> {
    let uri: http::Uri = raw
        .uri
        .as_deref()
        .ok_or("URI is not provided")?
        .parse()
        .map_err(|error| format!("URI is not valid: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("URI scheme should be http".to_owned());
    }
    if !uri.host().is_some_and(|host| HOSTS.contains(&host)) {
        return Err("URI host should be sandbox.localdomain".to_owned());
    }
    let port = uri.port_u16().filter(|port| *port > 0).ok_or("URI port is not provided")?;
    let method = match raw.method.as_deref() {
        None | Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some(other) => return Err(format!("method {other:?} is not one of POST, PUT")),
    };
    if let Some(other) = raw.encoding.as_deref().filter(|encoding| *encoding != "JSON") {
        return Err(format!("encoding {other:?} is not JSON"));
    }
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Destination::Http { port, authority, path, method })
}

fn types(names: &[String], faults: &mut Vec<String>) -> Vec<Stream> {
    if names.is_empty() {
        faults.push("types should not be empty".to_owned());
    }
    let mut types = Vec::new();
    for name in names {
        match Stream::ALL.into_iter().find(|stream| stream.name() == name) {
            Some(stream) if types.contains(&stream) => {}
            Some(stream) => types.push(stream),
            None => faults.push(format!("type {name:?} is not one of platform, function, extension")),
        }
    }
    types
}

fn buffering(api: Api, raw: Option<RawBuffering>, faults: &mut Vec<String>) -> Buffering {
    let raw = raw.unwrap_or(RawBuffering { max_items: None, max_bytes: None, timeout_ms: None });
    let mut limit = |name: &str, value: Option<u64>, default: u64, range: std::ops::RangeInclusive<u64>| {
        let value = value.unwrap_or(default);
        if !range.contains(&value) {
            faults.push(format!("{name} should be between {} and {}", range.start(), range.end()));
        }
        value
    };
    let default_items = match api {
        Api::Telemetry => 1_000,
        Api::Logs => 10_000,
    };
    Buffering {
        items: limit("maxItems", raw.max_items, default_items, 1_000..=10_000) as usize,
        bytes: limit("maxBytes", raw.max_bytes, 262_144, 262_144..=1_048_576) as usize,
        timeout: Duration::from_millis(limit("timeoutMs", raw.timeout_ms, 1_000, 25..=30_000)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        read(Api::Telemetry, body.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_documented_request_is_understood() {
        let body = br#"{"schemaVersion":"2022-12-13","types":["platform","function","platform"],
            "buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":100},
            "destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080/in?a=b"}}"#;
        let (dialect, subscription) = read(Api::Telemetry, body).unwrap();
        assert_eq!(dialect, Dialect::Telemetry { objects: true });
        assert_eq!(subscription.types, [Stream::Platform, Stream::Function]);
        assert_eq!(subscription.buffering.timeout, Duration::from_millis(100));
        let Destination::Http { port, authority, path, method } = subscription.destination else { unreachable!() };
        assert_eq!((port, &*authority, &*path, method), (8080, "sandbox.localdomain:8080", "/in?a=b", Method::POST));
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let body =
            br#"{"schemaVersion":"2022-07-01","types":["extension"],"destination":{"protocol":"TCP","port":8081}}"#;
        let (_, subscription) = read(Api::Telemetry, body).unwrap();
        assert_eq!(subscription.destination, Destination::Tcp { port: 8081 });
        assert_eq!(
            subscription.buffering,
            Buffering { items: 1_000, bytes: 262_144, timeout: Duration::from_millis(1_000) }
        );
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(
            fault(
                r#"{"schemaVersion":"2022-07-01","types":[],"destination":{"protocol":"HTTP","URI":"http://sandbox"}}"#
            ),
            "URI port is not provided; types should not be empty"
        );
        for (destination, said) in [
            (r#"{"protocol":"HTTP","URI":"http://169.254.169.254:80"}"#, "URI host"),
            (r#"{"protocol":"HTTP","URI":"https://sandbox:1"}"#, "URI scheme"),
            (r#"{"protocol":"TCP","port":0}"#, "port should be"),
            (r#"{"protocol":"TCP","port":70000}"#, "port should be"),
            (r#"{"protocol":"UDP"}"#, "protocol"),
        ] {
            let body = format!(r#"{{"schemaVersion":"2022-07-01","types":["platform"],"destination":{destination}}}"#);
            assert!(fault(&body).starts_with(said), "{destination}: {}", fault(&body));
        }
        for (field, value) in
            [("maxItems", 999), ("maxItems", 10_001), ("maxBytes", 1), ("timeoutMs", 24), ("timeoutMs", 30_001)]
        {
            let body = format!(
                r#"{{"schemaVersion":"2022-07-01","types":["platform"],"destination":{{"protocol":"TCP","port":1}},"buffering":{{"{field}":{value}}}}}"#
            );
            assert!(fault(&body).starts_with(field), "{body}");
        }
        assert!(fault("{").starts_with("Invalid JSON"));
        assert!(fault(r#"{"types":["platform"],"destination":{"protocol":"TCP","port":1}}"#).contains("schemaVersion"));
    }
}

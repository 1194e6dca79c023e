//! HTTP on the way out: only to hosts that the function's configuration names, and never to this machine.
//!
//! Two walls again. The list is judged here, by name, before anything is looked up. What the name stands for is judged by the node's
//! side of the cell's network ([`crate::egress::policy`]): the host itself, its loopback, link-local addresses and other cells are out of
//! reach whatever the list says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use wasmtime_wasi_http::{Error, RequestOptions, WasiHttpHooks};

use super::Shared;

/// How long a guest that says nothing about it waits for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Hosts that may be reached: `name`, `name:port`, `*.name` (names below it), or `*`.
#[derive(Debug, Default)]
pub(super) struct Allowed(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl Allowed {
    pub(super) fn new(list: &[String]) -> Self {
        let rule = |text: &String| {
            let text = text.trim().to_ascii_lowercase();
            let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
            let (host, port) = split.map_or((text.as_str(), None), |(host, port)| (host, Some(port)));
            let (host, below) = match host.strip_prefix("*.") {
                Some(name) => (name, true),
                None => (host, false),
            };
            (!host.is_empty()).then(|| Rule { host: host.to_owned(), below, port })
        };
        Self(list.iter().filter_map(rule).collect())
    }

    fn admits(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let named = |rule: &Rule| match rule.below {
            true => host.strip_suffix(rule.host.as_str()).is_some_and(|rest| rest.ends_with('.')),
            false => rule.host == "*" || rule.host == host,
        };
        self.0.iter().any(|rule| named(rule) && rule.port.is_none_or(|only| only == port))
    }
}

/// Sends what guests send.
pub(in crate::wasm) struct Outbound {
    shared: Option<Arc<Shared>>,
    allowed: Arc<Allowed>,
}

impl Outbound {
    pub(super) fn new(shared: Arc<Shared>, allowed: Arc<Allowed>) -> Self {
        Self { shared: Some(shared), allowed }
    }
}

type Sent = (http::Response<wasmtime_wasi_http::WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<wasmtime_wasi_http::WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = wasmtime_wasi_http::Result<Sent>> + Send> {
        let uri = request.uri();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let admitted = uri.host().is_some_and(|host| self.allowed.admits(host, port));
        let shared = self.shared.clone().filter(|_| admitted);
        Box::new(async move {
            let shared = shared.ok_or(Error::HttpRequestDenied)?;
            send(&shared, request, options.unwrap_or_default()).await
        })
    }
}

/// One client for all calls: connections are used again, redirects are the guest's business, and no proxy is believed in.
fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().connect_timeout(CONNECT).build()
}

async fn send(
    shared: &Shared,
    request: http::Request<wasmtime_wasi_http::WasiBody>,
    options: RequestOptions,
) -> Result<Sent, Error> {
    let client = shared.client.get_or_try_init(async || client()).await.map_err(|_| Error::DestinationUnavailable)?;
    let (head, body) = request.into_parts();
    let mut outgoing = client.request(head.method, head.uri.to_string()).headers(head.headers);
    if !http_body::Body::is_end_stream(&body) {
        let pieces = body.into_data_stream().map_err(|error| std::io::Error::other(format!("{error:?}")));
        outgoing = outgoing.body(reqwest::Body::wrap_stream(pieces));
    }
    let first = options.first_byte_timeout.unwrap_or(Duration::from_secs(600));
    let answered = tokio::time::timeout(first, outgoing.send()).await.map_err(|_| Error::HttpResponseTimeout)?;
    let response = answered.map_err(|error| explain(&error))?;
    let mut built = http::Response::builder().status(response.status());
    if let Some(headers) = built.headers_mut() {
        *headers = response.headers().clone();
    }
    let frames = response.bytes_stream().map_ok(http_body::Frame::data).map_err(|error| explain(&error));
    let body = StreamBody::new(frames).boxed_unsync();
    let response = built.body(body).map_err(|_| Error::HttpProtocolError)?;
    Ok((response, Box::new(std::future::ready(Ok(())))))
}

fn explain(error: &reqwest::Error) -> Error {
    match () {
        () if error.is_timeout() => Error::ConnectionTimeout,
        () if error.is_connect() => Error::ConnectionRefused,
        () => Error::HttpProtocolError,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_admitted() {
        let allowed = |list: &[&str]| Allowed::new(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        let list = allowed(&["api.example.com", "*.example.org", "db.example.net:8080", " ", "Case.Example"]);
        for (host, port, admitted) in [
            ("api.example.com", 443, true),
            ("API.example.com", 80, true),
            ("x.api.example.com", 443, false),
            ("api.example.com.evil.net", 443, false),
            ("a.example.org", 443, true),
            ("a.b.example.org", 443, true),
            ("example.org", 443, false),
            ("evilexample.org", 443, false),
            ("db.example.net", 8080, true),
            ("db.example.net", 80, false),
            ("case.example", 80, true),
            ("127.0.0.1", 80, false),
        ] {
            assert_eq!(list.admits(host, port), admitted, "{host}:{port}");
        }
        assert!(!allowed(&[]).admits("example.com", 443), "nothing is allowed by default");
        assert!(allowed(&["*"]).admits("example.com", 443));
    }
}

//! Deliveries: to queues that speak SQS, and to HTTP endpoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use jiff::Timestamp;
use lambent_model::destination::Destination;
use lambent_model::{AccountId, Region};
use lambent_policy::sigv4::{self, Signer};
use lambent_sandbox::egress::{self, Verdict};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::{Map, Value, json};

use super::event::{Meta, Parcel};
use super::step::Undelivered;

/// One delivery, from connect to the end of the answer.
const WITHIN: Duration = Duration::from_secs(20);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// As much of a refusal's text is kept.
const REFUSAL_CHARS: usize = 300;

/// Where AWS's services are, and with which key they are called.
#[derive(Clone, Default)]
pub struct Aws {
    /// The endpoint of the configuration; none: AWS itself.
    pub endpoint: Option<String>,
    /// Access key id and secret.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Whether HTTP destinations may be on this machine. Whoever may configure a function would otherwise reach, with the node's own
/// hands, what listens only here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalUrls {
    /// They may.
    Allow,
    /// They may not.
    #[default]
    Deny,
}

/// Takes things where they go.
pub(crate) struct Courier {
    aws: Aws,
    local_urls: LocalUrls,
    /// For the operator's own endpoint.
    trusted: reqwest::Client,
    /// For whatever URL a function's owner wants.
    guarded: reqwest::Client,
}

impl Courier {
    pub(crate) fn new(aws: Aws, local_urls: LocalUrls) -> Result<Self, reqwest::Error> {
        let client = || {
            // A redirect could lead where the destination itself may not.
            let none = reqwest::redirect::Policy::none();
            reqwest::Client::builder().timeout(WITHIN).connect_timeout(CONNECT_WITHIN).no_proxy().redirect(none)
        };
        let guarded = match local_urls {
            LocalUrls::Allow => client(),
            LocalUrls::Deny => client().dns_resolver(Arc::new(Guard)),
        };
        Ok(Self { aws, local_urls, trusted: client().build()?, guarded: guarded.build()? })
    }

    /// Delivers `content`; when this returns, the destination has it.
    pub(crate) async fn deliver(
        &self,
        meta: &Meta,
        parcel: &Parcel,
        content: Bytes,
        now: Timestamp,
    ) -> Result<(), Undelivered> {
        match parcel.to.parse::<Destination>() {
            Ok(Destination::Sqs { region, account, name }) => {
                let message = Message { content: &content, attributes: &parcel.attributes, meta };
                self.send_message((&region, &account, &name), message, now).await
            }
            Ok(Destination::Url { url, .. }) => self.post(&url, meta, content).await,
            Ok(Destination::Function { .. } | Destination::Queue { .. }) => Err(refused("nothing is delivered there")),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    async fn send_message(
        &self,
        (region, account, name): (&Region, &AccountId, &str),
        message: Message<'_>,
        now: Timestamp,
    ) -> Result<(), Undelivered> {
        let endpoint = match &self.aws.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://sqs.{region}.amazonaws.com"),
        };
        let body: Bytes = message.request(&format!("{endpoint}/{account}/{name}"), name).to_string().into();
        let mut request = http::Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{endpoint}/").parse().map_err(|_| refused("aws.endpoint is no URL"))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
        headers.insert("x-amz-target", HeaderValue::from_static("AmazonSQS.SendMessage"));
        let (mut head, ()) = request.into_parts();
        if let Some((access_key_id, secret)) = &self.aws.credentials {
            let (region, service) = (region.as_str(), "sqs");
            sigv4::sign(
                &mut head,
                &body,
                Signer { access_key_id, secret, session_token: None, region, service, at: now },
            );
        }
        let request = reqwest::Request::try_from(http::Request::from_parts(head, body))
            .map_err(|error| refused(error.to_string()))?;
        answered(self.trusted.execute(request).await).await
    }

    async fn post(&self, url: &str, meta: &Meta, content: Bytes) -> Result<(), Undelivered> {
        let url = reqwest::Url::parse(url).map_err(|error| refused(error.to_string()))?;
        // An address in place of a name is not resolved, so the guard does not see it.
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if let Some(address) = literal.filter(|_| self.local_urls == LocalUrls::Deny) {
            let address = SocketAddr::new(address, url.port_or_known_default().unwrap_or(80));
            if !is_open(address) {
                return Err(refused("its address is one of this machine; events.local_urls would allow it"));
            }
        }
        let sent = self
            .guarded
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("x-amzn-requestid", meta.request_id.to_string())
            .body(content)
            .send();
        answered(sent.await).await
    }
}

/// A message to be sent.
struct Message<'a> {
    content: &'a [u8],
    attributes: &'a [(String, String, String)],
    meta: &'a Meta,
}

impl Message<'_> {
    /// `SendMessage` of SQS's JSON protocol.
    fn request(&self, queue_url: &str, name: &str) -> Value {
        let mut request = Map::new();
        request.insert("QueueUrl".to_owned(), queue_url.into());
        request.insert("MessageBody".to_owned(), String::from_utf8_lossy(self.content).into());
        if !self.attributes.is_empty() {
            let attributes = self.attributes.iter();
            let attributes: Map<String, Value> = attributes
                .map(|(name, kind, value)| (name.clone(), json!({"DataType": kind, "StringValue": value})))
                .collect();
            request.insert("MessageAttributes".to_owned(), attributes.into());
        }
        if name.ends_with(".fifo") {
            // One group a function keeps its order; the id keeps a repeated delivery from being a second message.
            request.insert("MessageGroupId".to_owned(), self.meta.function().name.to_string().into());
            request.insert("MessageDeduplicationId".to_owned(), self.meta.request_id.to_string().into());
        }
        request.into()
    }
}

fn refused(text: impl Into<String>) -> Undelivered {
    Undelivered { may_pass: false, text: text.into() }
}

async fn answered(sent: Result<reqwest::Response, reqwest::Error>) -> Result<(), Undelivered> {
    let response = sent.map_err(|error| Undelivered { may_pass: true, text: chain(&error.without_url()) })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_EARLY];
    let may_pass = status.is_server_error() || passing.contains(&status);
    let text: String = response.text().await.unwrap_or_default().chars().take(REFUSAL_CHARS).collect();
    Err(Undelivered { may_pass, text: format!("{status}: {text}") })
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether the node may go there for somebody else: anywhere but to itself.
fn is_open(address: SocketAddr) -> bool {
    matches!(egress::reach(address), Ok(Verdict::Connect(_)))
}

/// Resolves names as ever, and leaves out what is this machine. What is connected to is what was checked.
struct Guard;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open: Vec<SocketAddr> = found.filter(|address| is_open(*address)).collect();
            if open.is_empty() {
                return Err("it has no address, or only such of this machine; events.local_urls would allow it".into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

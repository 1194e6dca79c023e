//! The client commands' way to a node: signed requests of the Lambda and CloudWatch Logs APIs, as any SDK sends them.

mod affinity;
pub mod credentials;
mod error;
mod events;
mod executions;
mod lambda;
mod logs;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use lambent_policy::sigv4::{self, Signer};
use serde_json::Value;

pub use error::ApiError;
pub use events::EventFilter;
pub use lambda::{Ask, NewFunction};
pub use logs::Event;

use crate::cli::ClientArgs;
use crate::cmd::WrongUsage;
use crate::config::Env;
use crate::node::Home;
use credentials::Credentials;

/// Where a node answers unless it was told otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:9400";
/// The region of a node that was told no other.
const DEFAULT_REGION: &str = "us-east-1";
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Speaks to one node as one principal.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: String,
    region: String,
    credentials: Credentials,
}

/// One call to be signed and sent.
pub struct Call<'a> {
    /// The service to sign for.
    pub service: &'a str,
    /// The method.
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    /// Headers besides those of the signature.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client for the node that flags and environment name.
    pub fn new(args: &ClientArgs, env: &dyn Env) -> Result<Self> {
        let home = args.data_dir.as_deref().map(home).transpose()?;
        let recorded = |field: fn(&Home) -> Option<String>| home.as_ref().and_then(field);
        let endpoint = args.endpoint.clone().or_else(|| env.get("LAMBENT_ENDPOINT"));
        let endpoint = endpoint.or_else(|| recorded(|home| home.endpoint.clone()));
        let region = args.region.clone().or_else(|| recorded(|home| home.region.clone()));
        let region = region.or_else(|| env.get("AWS_REGION")).or_else(|| env.get("AWS_DEFAULT_REGION"));
        let credentials = Credentials::find(home.as_ref(), env)?;
        let or = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.to_owned());
        Self::with(or(endpoint, DEFAULT_ENDPOINT), or(region, DEFAULT_REGION), credentials)
    }

    /// A client for `endpoint`.
    pub fn with(endpoint: String, region: String, credentials: Credentials) -> Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build()?;
        Ok(Self { http, endpoint: endpoint.trim_end_matches('/').to_owned(), region, credentials })
    }

    /// Signs and sends a call; the answer as it comes, whatever its status.
    pub async fn send(&self, call: Call<'_>) -> Result<reqwest::Response> {
        let mut request = http::Request::new(());
        *request.method_mut() = call.method;
        let uri = format!("{}{}", self.endpoint, call.path);
        *request.uri_mut() = uri.parse().with_context(|| format!("{uri:?} is no URL"))?;
        *request.headers_mut() = call.headers;
        let (mut head, ()) = request.into_parts();
        let signer = Signer {
            access_key_id: &self.credentials.access_key_id,
            secret: &self.credentials.secret_access_key,
            session_token: self.credentials.session_token.as_deref(),
            region: &self.region,
            service: call.service,
            at: Timestamp::now(),
        };
        sigv4::sign(&mut head, &call.body, signer);
        let request = reqwest::Request::try_from(http::Request::from_parts(head, call.body))?;
        self.http.execute(request).await.map_err(|error| {
            let unreachable = error.is_connect();
            let error = anyhow!(error.without_url());
            if unreachable {
                error.context(format!(
                    "no node answers at {}; start one with `lambent serve`, or name it with --endpoint",
                    self.endpoint
                ))
            } else {
                error.context(format!("the call to {} failed", self.endpoint))
            }
        })
    }

    /// Sends a call and reads its answer; AWS's error where that is one.
    pub async fn read(&self, call: Call<'_>) -> Result<(HeaderMap, Bytes)> {
        let response = self.send(call).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.context("the answer broke off")?;
        if status.is_success() { Ok((headers, body)) } else { Err(ApiError::read(status, &headers, &body).into()) }
    }

    /// What the node is doing.
    pub async fn status(&self) -> Result<Value> {
        self.json(Method::GET, "/_lambent/status", None).await
    }

    /// The node's metrics, in Prometheus text.
    pub async fn metrics(&self) -> Result<String> {
        let (path, headers, body) = ("/metrics".to_owned(), HeaderMap::new(), Bytes::new());
        let (_, text) = self.read(Call { service: "lambda", method: Method::GET, path, headers, body }).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Sends a JSON call and reads its JSON answer.
    pub async fn json(&self, method: Method, path: impl Into<String>, body: Option<&Value>) -> Result<Value> {
        self.json_of("lambda", method, path, body).await
    }

    /// The same, signed for another service.
    pub async fn json_of(
        &self,
        service: &str,
        method: Method,
        path: impl Into<String>,
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut headers = HeaderMap::new();
        let body = match body {
            Some(value) => {
                headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                serde_json::to_vec(value)?.into()
            }
            None => Bytes::new(),
        };
        let (_, answer) = self.read(Call { service, method, path: path.into(), headers, body }).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).context("the answer is no JSON")
    }
}

fn home(dir: &Path) -> Result<Home> {
    let missing =
        || WrongUsage(format!("no node has kept its state in {} yet; start one with `lambent serve`", dir.display()));
    Ok(Home::read(dir)?.ok_or_else(missing)?)
}

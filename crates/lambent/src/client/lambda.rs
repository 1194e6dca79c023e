//! The Lambda API, as far as the commands use it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{ApiError, Call, Client};

/// What may stand in a path segment or query value as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How long a function may be on its way to `Active`.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Asks a node of Lambent where the time went, and carries its answer.
const STAGES: &str = "x-lambent-stages";
/// Most functions of one page.
const PAGE: u32 = 50;

/// What a function is made of.
#[derive(Debug, Clone, Default)]
pub struct NewFunction {
    /// Its name.
    pub name: String,
    /// E.g. `python3.11`.
    pub runtime: String,
    /// E.g. `app.handler`.
    pub handler: String,
    /// The zip.
    pub zip: Bytes,
    /// Memory limit; none: AWS's default, or unchanged.
    pub memory_mib: Option<u32>,
    /// Time-out; none: AWS's default, or unchanged.
    pub timeout_secs: Option<u32>,
    /// Its environment; none: unchanged.
    pub environment: Option<BTreeMap<String, String>>,
    /// Publish a version.
    pub publish: bool,
}

/// What an invocation answered.
pub struct Invoked {
    /// Whether the function reported an error: `Unhandled`.
    pub function_error: Option<String>,
    /// The version that ran.
    pub executed_version: Option<String>,
    /// The tail of its log.
    pub log_tail: Option<String>,
    /// What each stage of the call took at the node, in order, in milliseconds; empty unless asked for.
    pub stages: Vec<(String, f64)>,
    /// Whether it found the container it belongs to: `hit`, `miss` or `spill`.
    pub affinity: Option<String>,
    /// The answer.
    pub payload: Bytes,
}

/// For whom a call is.
const TENANT: &str = "x-amz-tenant-id";

/// What the call shares with others; in answers: whether it found its container.
const AFFINITY: &str = "x-lambent-affinity";

/// What a caller says, and wants to know, beside the event and the answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The tail of the log.
    pub log: bool,
    /// Where the time went.
    pub stages: bool,
    /// For whom.
    pub tenant: Option<&'a str>,
    /// What it shares with the calls that belong to the same container.
    pub affinity: Option<&'a str>,
}

impl Ask<'_> {
    /// Whose call it is, and which others belong to it.
    fn name(&self, headers: &mut HeaderMap) -> Result<()> {
        for (header, value, what) in [(TENANT, self.tenant, "tenant id"), (AFFINITY, self.affinity, "affinity value")] {
            if let Some(text) = value {
                headers.insert(header, text.parse().with_context(|| format!("{text:?} is no {what}"))?);
            }
        }
        Ok(())
    }
}

/// How a streamed answer ended.
pub struct Streamed {
    /// Whether the function reported an error, and its details.
    pub error: Option<(String, String)>,
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn function_path(function: &str) -> String {
    format!("/2015-03-31/functions/{}", encode(function))
}

fn with_qualifier(path: String, qualifier: Option<&str>) -> String {
    match qualifier {
        Some(qualifier) => format!("{path}?Qualifier={}", encode(qualifier)),
        None => path,
    }
}

impl Client {
    /// Every function, page by page.
    pub async fn functions(&self) -> Result<Vec<Value>> {
        let mut functions = Vec::new();
        let mut marker = None::<String>;
        loop {
            let marked = marker.map(|marker| format!("&Marker={}", encode(&marker))).unwrap_or_default();
            let path = format!("/2015-03-31/functions/?MaxItems={PAGE}{marked}");
            let mut page = self.json(Method::GET, path, None).await?;
            if let Some(Value::Array(items)) = page.get_mut("Functions").map(Value::take) {
                functions.extend(items);
            }
            marker = page.get("NextMarker").and_then(Value::as_str).filter(|m| !m.is_empty()).map(str::to_owned);
            if marker.is_none() {
                return Ok(functions);
            }
        }
    }

    /// One function with its code's location, tags and concurrency.
    pub async fn function(&self, name: &str) -> Result<Value> {
        self.json(Method::GET, function_path(name), None).await
    }

    /// Deletes a function or one of its versions.
    pub async fn delete(&self, name: &str, qualifier: Option<&str>) -> Result<()> {
        self.json(Method::DELETE, with_qualifier(function_path(name), qualifier), None).await.map(drop)
    }

    /// Whether a function exists.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        match self.json(Method::GET, format!("{}/configuration", function_path(name)), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.status == 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a function, or updates its code and configuration; waits until it is ready and returns its configuration.
    pub async fn deploy(&self, new: &NewFunction) -> Result<Value> {
        if self.exists(&new.name).await? {
            self.update(new).await?;
        } else {
            let mut body = configuration(new);
            body.insert("FunctionName".to_owned(), json!(new.name));
            body.insert("Role".to_owned(), json!("arn:aws:iam::000000000000:role/lambent"));
            body.insert("Code".to_owned(), json!({"ZipFile": BASE64_STANDARD.encode(&new.zip)}));
            body.insert("Publish".to_owned(), json!(new.publish));
            let body = Value::Object(body);
            self.json(Method::POST, "/2015-03-31/functions", Some(&body)).await?;
        }
        self.ready(&new.name).await
    }

    async fn update(&self, new: &NewFunction) -> Result<()> {
        let path = function_path(&new.name);
        self.json(Method::PUT, format!("{path}/configuration"), Some(&Value::Object(configuration(new)))).await?;
        self.ready(&new.name).await?;
        let code = json!({"ZipFile": BASE64_STANDARD.encode(&new.zip), "Publish": new.publish});
        self.json(Method::PUT, format!("{path}/code"), Some(&code)).await.map(drop)
    }

    /// Waits until a function can be called with its last update, as the SDKs' waiters do.
    pub async fn ready(&self, name: &str) -> Result<Value> {
        let path = format!("{}/configuration", function_path(name));
        let look = async {
            loop {
                let configuration = self.json(Method::GET, path.clone(), None).await?;
                let field = |name: &str| configuration.get(name).and_then(Value::as_str).unwrap_or_default();
                match (field("State"), field("LastUpdateStatus")) {
                    ("Failed", _) => bail!("{name} failed: {}", field("StateReason")),
                    (_, "Failed") => bail!("the update of {name} failed: {}", field("LastUpdateStatusReason")),
                    ("Active", "Successful") => return Ok(configuration),
                    _ => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        let limit = tokio::time::timeout(READY_WITHIN, look).await;
        limit.with_context(|| format!("{name} was not ready within {} s", READY_WITHIN.as_secs()))?
    }

    /// Gives a function a URL that anyone may call, where it has none yet; returns it.
    pub async fn public_url(&self, name: &str) -> Result<String> {
        let path = format!("/2021-10-31/functions/{}/url", encode(name));
        let made = self.json(Method::POST, path.clone(), Some(&json!({"AuthType": "NONE"}))).await;
        let url = match made {
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.status == 409) => {
                self.json(Method::GET, path, None).await?
            }
            other => other?,
        };
        self.permit_public_url(name).await?;
        url.get("FunctionUrl").and_then(Value::as_str).map(str::to_owned).context("the answer names no URL")
    }

    /// AWS asks for both permissions since October 2025.
    async fn permit_public_url(&self, name: &str) -> Result<()> {
        let statements = [
            json!({"StatementId": "public-url", "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}),
            json!({"StatementId": "public-url-invoke", "Action": "lambda:InvokeFunction", "Principal": "*", "InvokedViaFunctionUrl": true}),
        ];
        for statement in statements {
            let made = self.json(Method::POST, format!("{}/policy", function_path(name)), Some(&statement)).await;
            match made {
                Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.status == 409) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Calls a function and waits for its answer.
    pub async fn invoke(
        &self,
        function: &str,
        qualifier: Option<&str>,
        payload: Bytes,
        ask: Ask<'_>,
    ) -> Result<Invoked> {
        let mut headers = HeaderMap::new();
        if ask.log {
            headers.insert("x-amz-log-type", HeaderValue::from_static("Tail"));
        }
        if ask.stages {
            headers.insert(STAGES, HeaderValue::from_static("1"));
        }
        ask.name(&mut headers)?;
        let path = with_qualifier(format!("{}/invocations", function_path(function)), qualifier);
        let call = Call { service: "lambda", method: Method::POST, path, headers, body: payload };
        let (headers, payload) = self.read(call).await?;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let tail = header("x-amz-log-result").and_then(|tail| BASE64_STANDARD.decode(tail).ok());
        Ok(Invoked {
            function_error: header("x-amz-function-error"),
            executed_version: header("x-amz-executed-version"),
            stages: header(STAGES).map(|text| server_timing(&text)).unwrap_or_default(),
            affinity: header(AFFINITY),
            log_tail: tail.map(|tail| String::from_utf8_lossy(&tail).into_owned()),
            payload,
        })
    }

    /// Calls a function and hands each piece of its answer to `each` as it comes.
    pub async fn invoke_streaming(
        &self,
        function: &str,
        qualifier: Option<&str>,
        ask: Ask<'_>,
        payload: Bytes,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Streamed> {
        let path = format!("/2021-11-15/functions/{}/response-streaming-invocations", encode(function));
        let path = with_qualifier(path, qualifier);
        let mut headers = HeaderMap::new();
        ask.name(&mut headers)?;
        let call = Call { service: "lambda", method: Method::POST, path, headers, body: payload };
        let mut response = self.send(call).await?;
        if !response.status().is_success() {
            let (status, headers) = (response.status(), response.headers().clone());
            return Err(ApiError::read(status, &headers, &response.bytes().await?).into());
        }
        let mut decoder = MessageFrameDecoder::new();
        let mut buffer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            buffer.extend_from_slice(&chunk);
            while let DecodedFrame::Complete(message) =
                decoder.decode_frame(&mut buffer).context("damaged event stream")?
            {
                let kind = message.headers().iter().find(|header| header.name().as_str() == ":event-type");
                match kind.and_then(|header| header.value().as_string().ok()).map(|kind| kind.as_str()) {
                    Some("PayloadChunk") => each(message.payload())?,
                    Some("InvokeComplete") => return Ok(completed(message.payload())),
                    _ => {}
                }
            }
        }
        bail!("the answer broke off")
    }
}

/// `NAME;dur=MILLISECONDS, …`; what is not of that form is left out.
fn server_timing(text: &str) -> Vec<(String, f64)> {
    let stage = |part: &str| {
        let (name, took) = part.trim().split_once(";dur=")?;
        Some((name.to_owned(), took.parse().ok()?))
    };
    text.split(',').filter_map(stage).collect()
}

fn completed(payload: &[u8]) -> Streamed {
    let document: Value = serde_json::from_slice(payload).unwrap_or_default();
    let field =
        |name: &str| document.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    Streamed { error: field("ErrorCode").map(|code| (code, field("ErrorDetails").unwrap_or_default())) }
}

/// The part of a function that `CreateFunction` and `UpdateFunctionConfiguration` share.
fn configuration(new: &NewFunction) -> Map<String, Value> {
    let optional = [
        ("MemorySize", new.memory_mib.map(Value::from)),
        ("Timeout", new.timeout_secs.map(Value::from)),
        ("Environment", new.environment.as_ref().map(|variables| json!({"Variables": variables}))),
    ];
    let given = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let always = [("Runtime", json!(new.runtime)), ("Handler", json!(new.handler))];
    always.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
}

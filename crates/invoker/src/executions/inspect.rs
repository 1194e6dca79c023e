//! The state of what an answer depends on: looked at from the node, with its hands, for somebody else.
//!
//! So it goes nowhere that a function's owner could not: HTTP resources on this machine only where the configuration names the host
//! (the address that was checked is the one that is connected to, and redirects are not followed), files only of directories that it
//! names (what was opened is what is checked, so links lead nowhere else), rows only of services that are there for the function. What is
//! told of them is a digest, never content.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, Method, StatusCode, header};
use lambent_model::FunctionArn;
use lambent_model::idempotency::Resource;
use lambent_policy::services::{ResultDigest, Services};
use lambent_registry::S3;
use lambent_sandbox::egress::{self, Verdict};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::{Deserialize, Serialize};

use super::Options;

/// Most bytes of an HTTP resource that says neither ETag nor Last-Modified.
const HTTP_BYTES: usize = 8 << 20;
/// Most bytes of a file.
const FILE_BYTES: u64 = 1 << 30;
const PIECE_BYTES: usize = 1 << 16;

/// What something is at an instant. Equal states: it has not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "value")]
pub enum State {
    /// It is not there.
    Absent,
    /// Its ETag.
    Etag(String),
    /// Its Last-Modified.
    LastModified(String),
    /// SHA-256 of its content.
    Digest(String),
    /// Its version.
    Version(String),
    /// Code and configuration of a function's version.
    Generation(uuid::Uuid),
}

/// Why a state cannot be told; for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// Looks at things outside.
#[async_trait]
pub trait Inspect: Send + Sync + 'static {
    /// The state of `resource`. Functions are not asked for here.
    async fn state(&self, resource: &Resource) -> Result<State, Unknown>;

    /// Whether that may be looked at for `function`.
    fn check(&self, function: &FunctionArn, resource: &Resource) -> Result<(), Unknown>;
}

/// The real one.
pub struct Inspector {
    options: Options,
    s3: S3,
    services: Services,
    open: reqwest::Client,
    guarded: reqwest::Client,
    allowed: HashSet<String>,
    looks: tokio::sync::Semaphore,
}

impl Inspector {
    /// Looks within the bounds of `options`; at objects with the node's own client, at rows by `services`.
    pub fn new(options: Options, s3: S3, services: Services) -> Result<Self, reqwest::Error> {
        let client = || {
            // A redirect could lead where the resource itself may not be.
            let none = reqwest::redirect::Policy::none();
            reqwest::Client::builder().timeout(options.look_within).no_proxy().redirect(none)
        };
        Ok(Self {
            s3,
            services,
            open: client().build()?,
            guarded: client().dns_resolver(Arc::new(Guard)).build()?,
            allowed: options.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            looks: tokio::sync::Semaphore::new(options.looks.max(1)),
            options,
        })
    }

    async fn look(&self, resource: &Resource) -> Result<State, Unknown> {
        match resource {
            Resource::Http(url) => self.http(url).await,
            Resource::S3 { bucket, key } => match self.s3.head(bucket, key).await {
                Ok(None) => Ok(State::Absent),
                Ok(Some((_, Some(version)))) => Ok(State::Version(version)),
                Ok(Some((Some(etag), None))) => Ok(State::Etag(etag)),
                Ok(Some((None, None))) => Err(Unknown("the endpoint tells neither ETag nor version".to_owned())),
                Err(error) => Err(Unknown(error.to_string())),
            },
            Resource::File(path) => {
                let (path, allowed) = (PathBuf::from(path), self.options.files.clone());
                let read = tokio::task::spawn_blocking(move || file(&path, &allowed));
                read.await.unwrap_or_else(|error| Err(Unknown(error.to_string())))
            }
            Resource::Rows { service, query } => match self.services.digest(service, query).await {
                Ok(ResultDigest(digest)) => Ok(State::Digest(hex::encode(digest))),
                Err(error) => Err(Unknown(error.to_string())),
            },
            Resource::Function { .. } => Err(Unknown("it is no thing outside".to_owned())),
        }
    }

    async fn http(&self, url: &str) -> Result<State, Unknown> {
        let url = reqwest::Url::parse(url).map_err(|error| Unknown(error.to_string()))?;
        let client = self.client(&url)?;
        let ask = |method| async { client.request(method, url.clone()).send().await.map_err(failed) };
        let head = ask(Method::HEAD).await?;
        if let Some(state) = told(head.status(), head.headers()) {
            return Ok(state);
        }
        let mut whole = ask(Method::GET).await?;
        if let Some(state) = told(whole.status(), whole.headers()) {
            return Ok(state);
        }
        if !whole.status().is_success() {
            return Err(Unknown(format!("it answered {}", whole.status())));
        }
        let (mut context, mut left) = (Context::new(&SHA256), HTTP_BYTES);
        while let Some(piece) = whole.chunk().await.map_err(failed)? {
            left = left.checked_sub(piece.len()).ok_or_else(|| {
                Unknown(format!("it tells neither ETag nor Last-Modified, and is larger than {HTTP_BYTES} bytes"))
            })?;
            context.update(&piece);
        }
        Ok(State::Digest(hex::encode(context.finish())))
    }

    /// The client that may go there.
    fn client(&self, url: &reqwest::Url) -> Result<&reqwest::Client, Unknown> {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let port = url.port_or_known_default().unwrap_or(80);
        if self.allowed.contains(&host) || self.allowed.contains(&format!("{host}:{port}")) {
            return Ok(&self.open);
        }
        // An address in place of a name is not resolved, so the guard does not see it.
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !is_open(SocketAddr::new(address, port)) => Err(Unknown(GUARDED.to_owned())),
            _ => Ok(&self.guarded),
        }
    }
}

const GUARDED: &str = "its address is one of this machine or its links; executions.hosts would allow the host";

#[async_trait]
impl Inspect for Inspector {
    async fn state(&self, resource: &Resource) -> Result<State, Unknown> {
        let look = async {
            let _turn = self.looks.acquire().await;
            self.look(resource).await
        };
        let late = || Err(Unknown(format!("it took longer than {:?}", self.options.look_within)));
        tokio::time::timeout(self.options.look_within, look).await.unwrap_or_else(|_| late())
    }

    fn check(&self, function: &FunctionArn, resource: &Resource) -> Result<(), Unknown> {
        match resource {
            Resource::Rows { service, .. } => {
                self.services.check(function, service).map_err(|error| Unknown(error.to_string()))
            }
            Resource::Http(_) | Resource::S3 { .. } | Resource::File(_) | Resource::Function { .. } => Ok(()),
        }
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What an answer's head tells of the state.
fn told(status: StatusCode, headers: &HeaderMap) -> Option<State> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Some(State::Absent),
        status if status.is_success() => {
            text(header::ETAG).map(State::Etag).or_else(|| text(header::LAST_MODIFIED).map(State::LastModified))
        }
        _ => None,
    }
}

fn failed(error: reqwest::Error) -> Unknown {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    Unknown(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// The digest of a file that lies in one of `allowed`.
fn file(path: &Path, allowed: &[PathBuf]) -> Result<State, Unknown> {
    let failed = |error: std::io::Error| Unknown(error.to_string());
    let outside = || Unknown("it is in none of the directories that executions.files names".to_owned());
    // So that nothing is learnt of what lies elsewhere, not even whether it is there.
    let lies_within = |path: &Path| allowed.iter().any(|directory| path.starts_with(directory));
    let is_plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !is_plain || !lies_within(path) {
        return Err(outside());
    }
    // Opening a pipe would wait for its writer.
    let opened = File::options().read(true).custom_flags(libc_nonblock()).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Absent),
        Err(error) => return Err(failed(error)),
    };
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    let is_inside = allowed.iter().filter_map(|directory| directory.canonicalize().ok()).any(|d| real.starts_with(d));
    if !is_inside {
        return Err(outside());
    }
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES {
        return Err(Unknown(format!("it is no file of at most {FILE_BYTES} bytes")));
    }
    let (mut context, mut piece, mut left) = (Context::new(&SHA256), vec![0; PIECE_BYTES], FILE_BYTES);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        left = left.checked_sub(read as u64).ok_or_else(|| Unknown("it grows while it is read".to_owned()))?;
        context.update(bytes);
    }
    Ok(State::Digest(hex::encode(context.finish())))
}

/// `O_NONBLOCK`, as Linux has it on every architecture that this runs on.
const fn libc_nonblock() -> i32 {
    0o4000
}

/// Whether the node may go there for somebody else: anywhere but to itself and its links.
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
                return Err(GUARDED.into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

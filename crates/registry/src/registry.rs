//! The registry: its parts and what it gives the data path.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lambent_model::function::Runtime;
use lambent_model::{AccountId, Clock, FunctionArn, FunctionVersion, Qualifier, Region};
use lambent_policy::document::Document;
use lambent_store::{Blobs, Catalog};
use uuid::Uuid;

use crate::Error;
use crate::shape::{AuthType, Cors, InvokeMode, State};

/// Whom and where this node answers for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account of function names without one.
    pub account: AccountId,
    /// The only region here.
    pub region: Region,
    /// Base URL of the API as clients reach it, without a slash at the end; code locations are below it.
    pub endpoint: String,
    /// What a function URL looks like: `{id}` and `{region}` are replaced, e.g.
    /// `http://{id}.lambda-url.{region}.localhost:9401/`.
    pub function_url: String,
    /// Concurrent executions of the account.
    pub concurrency: u32,
}

/// Who calls an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// The principal's ARN, e.g. `arn:aws:iam::000000000000:root`.
    pub arn: String,
}

/// What runs functions, as the control plane sees it.
#[async_trait]
pub trait Deployer: Send + Sync + 'static {
    /// Gets `version` ready to be invoked, so that the first call does not pay for it. The error's text is shown as
    /// the function's `StateReason`.
    async fn prepare(&self, version: &FunctionVersion) -> Result<(), String>;
    /// Nothing of this generation will be invoked any more.
    fn retire(&self, generation: Uuid);
    /// What this machine can run.
    fn runtimes(&self) -> Vec<Runtime>;
}

/// Why code could not be read from a bucket, as S3 says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct FetchError {
    /// S3's error code, e.g. `NoSuchKey`.
    pub code: String,
    /// S3's message.
    pub message: String,
}

/// Where code named by bucket and key comes from.
#[async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// The object's content, at most `limit` bytes of it.
    async fn fetch(&self, bucket: &str, key: &str, version: Option<&str>, limit: u64) -> Result<Bytes, FetchError>;
}

/// What a function and a qualifier stand for at this instant.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The version to run.
    pub version: Arc<FunctionVersion>,
    /// Of an alias that splits its calls: the other version, and its share (0 to 1).
    pub additional: Option<(Arc<FunctionVersion>, f64)>,
    /// Whether `version` can be invoked.
    pub state: State,
    /// Why not, where it cannot.
    pub state_reason: Option<Arc<str>>,
    /// Concurrency reserved for the function (all its versions together); 0 turns it off.
    pub reserved_concurrency: Option<u32>,
    /// The ARN as the function sees it: with the qualifier if one was given.
    pub invoked_arn: String,
    /// The resource policy of the function, or of the qualifier where one was given.
    pub policy: Option<Arc<Document>>,
}

/// A function URL, as the gateway needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionUrl {
    /// First label of its host name; never changes while the URL exists.
    pub id: String,
    /// The function.
    pub function: FunctionArn,
    /// The alias, where it is one's URL.
    pub qualifier: Option<Qualifier>,
    /// Who may call.
    pub auth_type: AuthType,
    /// What browsers of other origins may do.
    pub cors: Option<Cors>,
    /// How it answers.
    pub invoke_mode: InvokeMode,
}

/// The control plane.
pub struct Registry {
    #[allow(dead_code)]
    settings: Settings,
}

impl Registry {
    /// Reads the catalog, takes up what a crash left half done, and keeps the snapshot fresh from then on.
    pub async fn open(
        settings: Settings,
        _catalog: Arc<dyn Catalog>,
        _blobs: Arc<dyn Blobs>,
        _code: Arc<dyn CodeSource>,
        _deployer: Arc<dyn Deployer>,
        _clock: Arc<dyn Clock>,
    ) -> Result<Arc<Registry>, Error> {
        Ok(Arc::new(Self { settings }))
    }

    /// What `arn` and `qualifier` stand for now. In memory, without a lock.
    pub fn resolve(&self, _arn: &FunctionArn, _qualifier: Option<&Qualifier>) -> Result<Resolved, Error> {
        Err(Error::NotBuilt("resolve"))
    }

    /// The function URL of this id. In memory, without a lock.
    pub fn function_url(&self, _id: &str) -> Option<Arc<FunctionUrl>> {
        None
    }

    /// The zip behind a `Code.Location` or `Content.Location` link; `expires` and `signature` are its query parameters.
    pub async fn download(&self, _digest: &str, _expires: u64, _signature: &str) -> Result<Bytes, Error> {
        Err(Error::NotBuilt("download"))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends background work. What was acknowledged is in the store.
    pub async fn shutdown(&self) {}
}

//! The registry: its parts and what it gives the data path.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use bytes::Bytes;
use lambent_model::affinity::Affinity;
use lambent_model::function::Runtime;
use lambent_model::idempotency::Idempotency;
use lambent_model::{AccountId, Clock, FunctionArn, FunctionVersion, Qualifier, Region, Version};
use lambent_policy::document::Document;
use lambent_store::port::{Expect, Write};
use lambent_store::{Blobs, Catalog};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::code::{CHECKS, Uploads};
use crate::locate::missing;
use crate::record::{Config, FORMAT, Head, LATEST, Lifecycle};
use crate::shape::{AuthType, Cors, InvokeMode, State};
use crate::snapshot::{Applier, Function, Revised, Shards, Snapshot};
use crate::{Error, deploy, key, provision, sweep};

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
    /// Returns when [`Self::runtimes`] is complete.
    async fn ready(&self) {}
    /// What this machine can run.
    fn runtimes(&self) -> Vec<Runtime>;
    /// There is such a version, so calls of it may come.
    fn expect(&self, _version: &FunctionVersion) {}
    /// Versions that ask for a snapshot and were active before the node started; the first are the likeliest to be called.
    fn snapshot_ahead(&self, _versions: Vec<Arc<FunctionVersion>>) {}
    /// What became of the snapshot of a version that asks for one, which was taken, if it can be, as part of [`Self::prepare`].
    fn snap_start(&self, _generation: Uuid) -> Optimization {
        Optimization::default()
    }
    /// Provisioned concurrency, all of it: how many containers of each version are to be kept initialised.
    fn provision(&self, _wanted: Vec<(Arc<FunctionVersion>, u32)>) {}
    /// What became of that for one version.
    fn provisioned(&self, _generation: Uuid) -> Allocation {
        Allocation::default()
    }
}

/// What became of a version's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Optimization {
    /// Containers are made from it.
    On,
    /// It is not there, or not yet.
    #[default]
    Off,
    /// There can be none, for this reason.
    Impossible(String),
}

/// What became of a version's provisioned concurrency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocation {
    /// Containers that are initialised.
    pub available: u32,
    /// Why there are not more, where the last attempt to make one failed; shown as the `StatusReason`.
    pub failure: Option<String>,
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
    /// How requests of the function are told apart; none: each runs.
    pub idempotency: Option<Arc<Idempotency>>,
    /// Which of its calls belong together; none: any container does for any of them.
    pub affinity: Option<Arc<Affinity>>,
}

/// What is to become of the events of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// How long an event is tried.
    pub maximum_age: std::time::Duration,
    /// How often it is tried again after the function failed.
    pub retries: u32,
    /// ARN of where the outcome goes when it succeeded.
    pub on_success: Option<String>,
    /// ARN of where the outcome goes when it is given up.
    pub on_failure: Option<String>,
    /// ARN of where the event goes when it is given up.
    pub dead_letter: Option<String>,
    /// Whether a chain of invocations may come back to the function without end.
    pub allows_loops: bool,
    /// Concurrency reserved for the function; 0 turns it off.
    pub reserved_concurrency: Option<u32>,
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
    pub(crate) settings: Settings,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) source: Arc<dyn CodeSource>,
    pub(crate) deployer: Arc<dyn Deployer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) uploads: Uploads,
    pub(crate) checks: tokio::sync::Semaphore,
    /// Read while a blob is written, written while one is swept.
    pub(crate) sweeping: tokio::sync::RwLock<()>,
    /// One sweep at a time: each begins its own list of what to spare.
    pub(crate) sweeps: tokio::sync::Mutex<()>,
    /// Held while a sum over several functions is checked and changed.
    pub(crate) concurrency: tokio::sync::Mutex<()>,
    /// Signs download links.
    pub(crate) secret: hmac::Key,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Registry {
    /// Reads the catalog, takes up what a crash left half done, and keeps the snapshot fresh from then on.
    pub async fn open(
        settings: Settings,
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn Blobs>,
        code: Arc<dyn CodeSource>,
        deployer: Arc<dyn Deployer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Registry>, Error> {
        let secret = secret(catalog.as_ref()).await?;
        let snapshot = Snapshot::new();
        let mut applier = Applier::new(snapshot.clone(), catalog.watch(key::ROOT).await?, settings.region.clone());
        applier.load().await?;
        let registry = Arc::new(Self {
            settings,
            catalog,
            blobs,
            source: code,
            deployer,
            clock,
            snapshot,
            uploads: Uploads::default(),
            checks: tokio::sync::Semaphore::new(CHECKS),
            sweeping: tokio::sync::RwLock::new(()),
            sweeps: tokio::sync::Mutex::new(()),
            concurrency: tokio::sync::Mutex::new(()),
            secret,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let stop = registry.stop.clone();
        registry.tasks.spawn(async move { stop.run_until_cancelled(applier.follow()).await });
        deploy::take_up(&registry);
        for function in registry.snapshot.functions.all() {
            registry.deployer.expect(&function.running);
        }
        registry.deployer.snapshot_ahead(deploy::with_snapshots(&registry));
        provision::follow(&registry);
        sweep::start(&registry);
        Ok(registry)
    }

    /// What `arn` and `qualifier` stand for now. In memory, without a lock.
    pub fn resolve(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<Resolved, Error> {
        let function = self.snapshot.functions.get(arn).ok_or_else(|| missing(arn, qualifier))?;
        let head = &function.head;
        let (version, additional, policy) = match qualifier {
            None => (Version::Latest, None, LATEST),
            Some(Qualifier::Version(version)) => (*version, None, ""),
            Some(Qualifier::Alias(name)) => {
                let alias = head.aliases.get(&**name).ok_or_else(|| missing(arn, qualifier))?;
                (alias.version, alias.additional, &**name)
            }
        };
        let config = function.config(version).ok_or_else(|| missing(arn, qualifier))?;
        let running = function.running(version).ok_or_else(|| missing(arn, qualifier))?;
        let policy = match qualifier {
            Some(Qualifier::Version(version)) => function.policy(&version.to_string()),
            None | Some(Qualifier::Alias(_)) => function.policy(policy),
        };
        let reason = match &config.state {
            Lifecycle::Failed { reason } => Some(reason.as_str().into()),
            Lifecycle::Pending => Some(deploy::CREATING.into()),
            Lifecycle::Active | Lifecycle::Updating | Lifecycle::UpdateFailed { .. } => None,
        };
        Ok(Resolved {
            version: running.clone(),
            additional: additional.and_then(|(version, share)| Some((function.running(version)?.clone(), share))),
            state: config.state.state(),
            state_reason: reason,
            reserved_concurrency: head.reserved_concurrency,
            invoked_arn: match qualifier {
                None => arn.to_string(),
                Some(qualifier) => arn.qualified(qualifier),
            },
            policy: policy.cloned(),
            idempotency: head.idempotency.clone(),
            affinity: head.affinity.clone(),
        })
    }

    /// Concurrency that all functions together have reserved. In memory, without a lock.
    pub fn reserved_total(&self) -> u32 {
        self.snapshot.reserved.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The function URL of this id. In memory, without a lock.
    pub fn function_url(&self, id: &str) -> Option<Arc<FunctionUrl>> {
        self.snapshot.urls.get(id)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends background work. What was acknowledged is in the store; what is being prepared is taken up at the next
    /// start.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Commits and waits until the snapshot has it, or until nobody follows the catalog any more.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), Error> {
        let revision = self.catalog.commit(writes).await?;
        self.stop.run_until_cancelled(self.snapshot.wait(revision)).await;
        Ok(())
    }

    /// Changes a function: `decide` looks at it as it is and says what it shall be. When another change comes first it
    /// decides anew, on what that one left.
    pub(crate) async fn change<T>(
        &self,
        arn: &FunctionArn,
        mut decide: impl FnMut(&Function, &mut Draft) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.change_or(arn, || missing(arn, None), &mut decide).await
    }

    /// As [`Registry::change`], with an error of its own for a function that does not exist.
    pub(crate) async fn change_or<T>(
        &self,
        arn: &FunctionArn,
        absent: impl Fn() -> Error,
        mut decide: impl FnMut(&Function, &mut Draft) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let function = self.snapshot.functions.get(arn).ok_or_else(&absent)?;
            let mut draft = Draft { head: function.head.clone(), versions: BTreeMap::new() };
            let answer = decide(&function, &mut draft)?;
            let writes = draft.writes(&function)?;
            if writes.is_empty() {
                return Ok(answer);
            }
            match self.commit(writes).await {
                Ok(()) => return Ok(answer),
                Err(Error::Store(lambent_store::Error::Conflict { actual, .. })) => self.catch_up(actual).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyRequests)
    }

    /// Changes a document that stands for itself (a layer, a mapping, ...), as [`Registry::change`] does a function.
    pub(crate) async fn revise<V: Clone + PartialEq + serde::Serialize, T>(
        &self,
        shards: &Shards<String, Revised<V>>,
        key: &str,
        absent: impl Fn() -> Error,
        decide: impl Fn(&mut V) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let kept = shards.get(key).ok_or_else(&absent)?;
            let mut value = kept.value.clone();
            let answer = decide(&mut value)?;
            if value == kept.value {
                return Ok(answer);
            }
            let expect = Expect::Revision(kept.revision);
            match self.commit(vec![Write { key: key.to_owned(), expect, value: Some(document(&value)?) }]).await {
                Ok(()) => return Ok(answer),
                Err(Error::Store(lambent_store::Error::Conflict { actual, .. })) => self.catch_up(actual).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyRequests)
    }

    /// After a conflict: waits until the snapshot shows what was in the way.
    pub(crate) async fn catch_up(&self, actual: Option<u64>) {
        match actual {
            Some(revision) => drop(self.stop.run_until_cancelled(self.snapshot.wait(revision)).await),
            // Deleted: the change is on its way to the snapshot already.
            None => tokio::task::yield_now().await,
        }
    }
}

/// How often a change is decided anew before the caller is told to slow down.
pub(crate) const ATTEMPTS: usize = 64;

/// What a function shall be.
pub(crate) struct Draft {
    pub(crate) head: Head,
    /// Versions that are new, changed, or (none) deleted.
    pub(crate) versions: BTreeMap<u64, Option<Config>>,
}

impl Draft {
    fn writes(self, before: &Function) -> Result<Vec<Write>, Error> {
        let arn = &before.head.arn;
        if self.versions.is_empty() && self.head == before.head {
            return Ok(Vec::new());
        }
        let mut writes = Vec::with_capacity(self.versions.len() + 1);
        for (number, config) in self.versions {
            let expect = match before.versions.get(&number) {
                Some(published) => Expect::Revision(published.revision),
                None => Expect::Absent,
            };
            let value = config.as_ref().map(document).transpose()?;
            writes.push(Write { key: key::version(arn, number), expect, value });
        }
        writes.push(Write {
            key: key::function(arn),
            expect: Expect::Revision(before.revision),
            value: Some(document(&self.head)?),
        });
        Ok(writes)
    }
}

/// A record as a document's content.
pub(crate) fn document(record: &impl serde::Serialize) -> Result<Bytes, Error> {
    Ok(lambent_store::record::write(FORMAT, record)?)
}

/// The key for download links, made at the first start.
async fn secret(catalog: &dyn Catalog) -> Result<hmac::Key, Error> {
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|source| crate::code::internal("making a secret", source))?;
    let write =
        Write { key: key::SECRET.to_owned(), expect: Expect::Absent, value: Some(Bytes::copy_from_slice(&fresh)) };
    match catalog.commit(vec![write]).await {
        Ok(_) | Err(lambent_store::Error::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let kept = catalog.get(key::SECRET).await?.map(|document| document.value).unwrap_or_default();
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &kept))
}

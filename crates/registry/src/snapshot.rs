//! The catalog in memory.
//!
//! Readers load the current map of one shard and hold what they found by `Arc`; nobody waits for anybody. One task, the
//! [`Applier`], writes: it follows a watch of the catalog, and copies one shard's map (of pointers) for each change.
//! Whoever commits waits until the applier has come as far ([`Snapshot::wait`]), and so reads what it wrote.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use lambent_model::function::FunctionVersion;
use lambent_model::{FunctionArn, Qualifier, Version};
use lambent_policy::document::Document as Policy;
use lambent_store::port::{Change, Document};
use lambent_store::record;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::key::{self, Key};
use crate::record::{Config, FORMAT, Head, LATEST, Layer, Mapping, Signing};
use crate::registry::FunctionUrl;

const SHARDS: usize = 64;

/// A map that is read without a lock and written by one task.
pub(crate) struct Shards<K, V>(Box<[Shard<K, V>]>);

type Shard<K, V> = ArcSwap<HashMap<K, Arc<V>>>;

impl<K: Hash + Eq + Clone, V> Shards<K, V> {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| ArcSwap::default()).collect())
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> Option<&Shard<K, V>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.0.get(hasher.finish() as usize % SHARDS)
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.shard(key)?.load().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        self.0.iter().flat_map(|shard| shard.load().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn set(&self, key: K, value: Option<V>) {
        let Some(shard) = self.shard(&key) else { return };
        let mut map = HashMap::clone(&shard.load());
        match value {
            Some(value) => map.insert(key, Arc::new(value)),
            None => map.remove(&key),
        };
        shard.store(Arc::new(map));
    }
}

/// A function with its versions, ready to be run.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) head: Head,
    pub(crate) revision: u64,
    pub(crate) versions: BTreeMap<u64, Arc<Published>>,
    /// What `$LATEST` runs.
    pub(crate) running: Arc<FunctionVersion>,
    policies: BTreeMap<String, Arc<Policy>>,
}

#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) config: Config,
    pub(crate) revision: u64,
    pub(crate) running: Arc<FunctionVersion>,
}

impl Function {
    fn new(head: Head, revision: u64, versions: BTreeMap<u64, Arc<Published>>) -> Self {
        let running = head.active.clone().unwrap_or_else(|| head.latest.runnable(&head.arn));
        let policies = head.policies.iter().map(|(name, policy)| (name.clone(), Arc::new(policy.clone()))).collect();
        Self { running: Arc::new(running), policies, head, revision, versions }
    }

    pub(crate) fn policy(&self, qualifier: &str) -> Option<&Arc<Policy>> {
        self.policies.get(qualifier)
    }

    /// The configuration of a version.
    pub(crate) fn config(&self, version: Version) -> Option<&Config> {
        match version {
            Version::Latest => Some(&self.head.latest),
            Version::Published(number) => self.versions.get(&number.get()).map(|published| &published.config),
        }
    }

    pub(crate) fn running(&self, version: Version) -> Option<&Arc<FunctionVersion>> {
        match version {
            Version::Latest => Some(&self.running),
            Version::Published(number) => self.versions.get(&number.get()).map(|published| &published.running),
        }
    }

    /// The configuration a qualifier stands for (the main version of an alias).
    pub(crate) fn qualified(&self, qualifier: Option<&Qualifier>) -> Option<&Config> {
        match qualifier {
            None => Some(&self.head.latest),
            Some(Qualifier::Version(version)) => self.config(*version),
            Some(Qualifier::Alias(name)) => self.config(self.head.aliases.get(&**name)?.version),
        }
    }

    /// `$LATEST`, then the published versions in order.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &Config> {
        std::iter::once(&self.head.latest).chain(self.versions.values().map(|published| &published.config))
    }
}

impl Config {
    /// Whether containers are to be made from a snapshot of an initialised one.
    pub(crate) fn takes_snapshots(&self) -> bool {
        matches!(self.version, Version::Published(_)) && self.settings.takes_snapshots()
    }

    /// What the data path needs of it.
    pub(crate) fn runnable(&self, arn: &FunctionArn) -> FunctionVersion {
        let settings = &self.settings;
        FunctionVersion {
            arn: arn.clone(),
            version: self.version,
            generation: self.generation,
            runtime: settings.runtime.clone(),
            handler: settings.handler.clone(),
            code: settings.code.clone(),
            layers: settings.layers.iter().map(|used| used.layer.clone()).collect(),
            environment: settings.environment.clone().unwrap_or_default(),
            timeout: std::time::Duration::from_secs(settings.timeout_secs.into()),
            memory_mib: settings.memory_mib,
            ephemeral_mib: settings.ephemeral_mib,
            network: settings.network,
            logging: settings.logging.clone(),
            tracing: settings.tracing,
            snap_start: self.takes_snapshots(),
            per_tenant: settings.per_tenant,
        }
    }
}

/// A document and the revision it is at.
#[derive(Debug)]
pub(crate) struct Revised<T> {
    pub(crate) revision: u64,
    pub(crate) value: T,
}

/// All of it.
pub(crate) struct Snapshot {
    pub(crate) functions: Shards<FunctionArn, Function>,
    /// By document key.
    pub(crate) layers: Shards<String, Revised<Layer>>,
    pub(crate) mappings: Shards<String, Revised<Mapping>>,
    pub(crate) signings: Shards<String, Revised<Signing>>,
    /// Next version numbers of deleted functions, by document key.
    pub(crate) numbers: Shards<String, Revised<u64>>,
    /// By id.
    pub(crate) urls: Shards<String, FunctionUrl>,
    /// Concurrency reserved by all functions together.
    pub(crate) reserved: AtomicU32,
    /// Whether something that was kept could not be read, so that nobody knows what it refers to.
    pub(crate) incomplete: AtomicBool,
    seen: watch::Sender<u64>,
}

impl Snapshot {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            functions: Shards::new(),
            layers: Shards::new(),
            mappings: Shards::new(),
            signings: Shards::new(),
            numbers: Shards::new(),
            urls: Shards::new(),
            reserved: AtomicU32::new(0),
            incomplete: AtomicBool::new(false),
            seen: watch::Sender::new(0),
        })
    }

    /// Changes whenever something here does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Waits until the commit of `revision` is here; for ever, when nobody carries changes here any more.
    pub(crate) async fn wait(&self, revision: u64) {
        // An error would mean that the sender is gone, and it is ours.
        let _ = self.seen.subscribe().wait_for(|seen| *seen >= revision).await;
    }
}

/// Carries changes of the catalog into the snapshot.
pub(crate) struct Applier {
    snapshot: Arc<Snapshot>,
    changes: mpsc::UnboundedReceiver<Change>,
    /// Versions of functions whose head has not come (yet, or any more).
    loose: HashMap<(String, String), BTreeMap<u64, Arc<Published>>>,
    region: lambent_model::Region,
    /// What was said of the last document of a later release.
    newer: Option<lambent_store::Error>,
}

impl Applier {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        changes: mpsc::UnboundedReceiver<Change>,
        region: lambent_model::Region,
    ) -> Self {
        Self { snapshot, changes, loose: HashMap::new(), region, newer: None }
    }

    /// Applies what there was when the watch began.
    ///
    /// A document of a later release ends it: to go on without what it holds would lose it. A damaged one is left out, and said so: one bad
    /// document must not take the node down.
    pub(crate) async fn load(&mut self) -> Result<(), lambent_store::Error> {
        while let Some(change) = self.changes.recv().await {
            if change == Change::Ready {
                break;
            }
            self.apply(change);
            if let Some(newer) = self.newer.take() {
                return Err(newer);
            }
        }
        Ok(())
    }

    /// Follows the watch until it ends.
    pub(crate) async fn follow(mut self) {
        while let Some(change) = self.changes.recv().await {
            self.apply(change);
        }
        tracing::error!("the catalog's watch has ended; the control plane no longer sees changes");
    }

    fn apply(&mut self, change: Change) {
        let (key, revision, document) = match change {
            Change::Put(document) => (document.key.clone(), document.revision, Some(document)),
            Change::Deleted { key, revision } => (key, revision, None),
            Change::Ready => return,
        };
        let is_root = match key::read(&key) {
            Key::Function => self.function(&key, document),
            Key::Version { account, name, number } => self.version(account, name, number, document),
            Key::Number { .. } => {
                let value = self.revised(document);
                self.snapshot.numbers.set(key, value);
                false
            }
            Key::Layer => {
                let value = self.revised(document);
                self.snapshot.layers.set(key, value);
                true
            }
            Key::Mapping => {
                let value = self.revised(document);
                self.snapshot.mappings.set(key, value);
                true
            }
            Key::Signing => {
                let value = self.revised(document);
                self.snapshot.signings.set(key, value);
                true
            }
            Key::Other => false,
        };
        if is_root {
            self.snapshot.seen.send_if_modified(|seen| std::mem::replace(seen, (*seen).max(revision)) < revision);
        }
    }

    fn arn(&self, account: &str, name: &str) -> Option<FunctionArn> {
        Some(FunctionArn { region: self.region.clone(), account: account.parse().ok()?, name: name.parse().ok()? })
    }

    fn function(&mut self, key: &str, document: Option<Document>) -> bool {
        let mut parts = key.rsplit('/');
        let (Some(name), Some(account)) = (parts.next(), parts.next()) else { return false };
        let Some(arn) = self.arn(account, name) else { return false };
        let before = self.snapshot.functions.get(&arn);
        let after = document.and_then(|document| Some((self.parse::<Head>(&document)?, document.revision))).map(
            |(head, revision)| {
                let loose = self.loose.remove(&(account.to_owned(), name.to_owned()));
                let versions = before.as_ref().map(|function| function.versions.clone()).or(loose).unwrap_or_default();
                Function::new(head, revision, versions)
            },
        );
        self.urls(&arn, before.as_deref(), after.as_ref());
        let reserved = |function: Option<&Function>| function.and_then(|function| function.head.reserved_concurrency);
        let (gone, come) = (reserved(before.as_deref()).unwrap_or(0), reserved(after.as_ref()).unwrap_or(0));
        // This task is the only writer.
        let others = self.snapshot.reserved.load(Ordering::Acquire).saturating_sub(gone);
        self.snapshot.reserved.store(others.saturating_add(come), Ordering::Release);
        self.snapshot.functions.set(arn, after);
        true
    }

    fn urls(&self, arn: &FunctionArn, before: Option<&Function>, after: Option<&Function>) {
        let ids = |function: Option<&Function>| -> Vec<String> {
            function.map(|function| function.head.urls.values().map(|url| url.id.clone()).collect()).unwrap_or_default()
        };
        let kept = ids(after);
        for id in ids(before).into_iter().filter(|id| !kept.contains(id)) {
            self.snapshot.urls.set(id, None);
        }
        for (qualifier, url) in after.iter().flat_map(|function| &function.head.urls) {
            let known = before.and_then(|before| before.head.urls.get(qualifier));
            if known != Some(url) {
                self.snapshot.urls.set(url.id.clone(), Some(url_of(arn, qualifier, url)));
            }
        }
    }

    fn version(&mut self, account: &str, name: &str, number: u64, document: Option<Document>) -> bool {
        let Some(arn) = self.arn(account, name) else { return false };
        let published = document.and_then(|document| {
            let config: Config = self.parse(&document)?;
            let running = Arc::new(config.runnable(&arn));
            Some(Arc::new(Published { config, revision: document.revision, running }))
        });
        let function = self.snapshot.functions.get(&arn);
        let mut versions = match &function {
            Some(function) => function.versions.clone(),
            None => self.loose.remove(&(account.to_owned(), name.to_owned())).unwrap_or_default(),
        };
        match published {
            Some(published) => versions.insert(number, published),
            None => versions.remove(&number),
        };
        match function {
            Some(function) => {
                let changed = Function::new(function.head.clone(), function.revision, versions);
                self.snapshot.functions.set(arn, Some(changed));
            }
            None if versions.is_empty() => {}
            None => drop(self.loose.insert((account.to_owned(), name.to_owned()), versions)),
        }
        false
    }

    fn revised<T: DeserializeOwned>(&mut self, document: Option<Document>) -> Option<Revised<T>> {
        let document = document?;
        Some(Revised { revision: document.revision, value: self.parse(&document)? })
    }

    /// None where it cannot be read.
    fn parse<T: DeserializeOwned>(&mut self, document: &Document) -> Option<T> {
        let error = match record::read(FORMAT, document) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        self.snapshot.incomplete.store(true, Ordering::Release);
        tracing::error!(error = &error as &dyn std::error::Error, "a catalog document cannot be read and is left out");
        self.newer = Some(error).filter(|error| matches!(error, lambent_store::Error::NewerRecord { .. }));
        None
    }
}

fn url_of(arn: &FunctionArn, qualifier: &str, url: &crate::record::Url) -> FunctionUrl {
    FunctionUrl {
        id: url.id.clone(),
        function: arn.clone(),
        qualifier: if qualifier == LATEST { None } else { qualifier.parse().ok() },
        auth_type: url.auth_type,
        cors: url.cors.clone(),
        invoke_mode: url.invoke_mode,
    }
}

/// A published version's number as a [`Version`].
pub(crate) fn published(number: u64) -> Version {
    NonZeroU64::new(number).map_or(Version::Latest, Version::Published)
}

//! The control plane on an embedded store in a fresh directory, with a deployer that does as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod alias;
mod crash;
mod function;
mod layer;
mod model;
mod refusals;
mod rest;
mod stored;

use std::collections::VecDeque;
use std::io::{Cursor, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lambent_model::function::Runtime;
use lambent_model::{FunctionArn, FunctionVersion, SystemClock};
use lambent_store::Embedded;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::registry::{Allocation, CodeSource, Deployer, FetchError};
use crate::shape::*;
use crate::{Caller, Error, Registry, Settings};

pub(super) const ROLE: &str = "arn:aws:iam::000000000000:role/r";

/// Prepares when it is let, with the outcomes it is told.
pub(super) struct Told {
    pub(super) gate: Semaphore,
    pub(super) outcomes: Mutex<VecDeque<Result<(), String>>>,
    pub(super) retired: Mutex<Vec<Uuid>>,
    /// What was to be provisioned last, and what becomes of each version of it.
    pub(super) wanted: tokio::sync::watch::Sender<Vec<(u64, u32)>>,
    pub(super) allocation: Mutex<Allocation>,
    /// Of which versions snapshots were to be taken ahead.
    pub(super) ahead: Mutex<Vec<String>>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(10_000),
            outcomes: Mutex::default(),
            retired: Mutex::default(),
            wanted: Default::default(),
            allocation: Mutex::default(),
            ahead: Mutex::default(),
        }
    }
}

#[async_trait]
impl Deployer for Told {
    async fn prepare(&self, _: &FunctionVersion) -> Result<(), String> {
        self.gate.acquire().await.unwrap().forget();
        self.outcomes.lock().unwrap().pop_front().unwrap_or(Ok(()))
    }
    fn retire(&self, generation: Uuid) {
        self.retired.lock().unwrap().push(generation);
    }
    fn snapshot_ahead(&self, versions: Vec<Arc<FunctionVersion>>) {
        *self.ahead.lock().unwrap() = versions.iter().map(|version| version.qualified_arn()).collect();
    }
    fn provision(&self, wanted: Vec<(Arc<FunctionVersion>, u32)>) {
        let number = |version: &FunctionVersion| version.version.to_string().parse().unwrap();
        self.wanted.send_replace(wanted.iter().map(|(version, count)| (number(version), *count)).collect());
    }
    fn provisioned(&self, _: Uuid) -> Allocation {
        self.allocation.lock().unwrap().clone()
    }
    fn runtimes(&self) -> Vec<Runtime> {
        vec![Runtime::Python { minor: 8 }, Runtime::Python { minor: 12 }, Runtime::Node { major: 20 }]
    }
}

/// One object, `bucket/key`.
struct OneObject;

#[async_trait]
impl CodeSource for OneObject {
    async fn fetch(&self, bucket: &str, key: &str, _: Option<&str>, _: u64) -> Result<Bytes, FetchError> {
        match (bucket, key) {
            ("bucket", "key") => Ok(zip(b"from a bucket")),
            ("bucket", _) => Err(FetchError {
                code: "NoSuchKey".to_owned(),
                message: "The specified key does not exist.".to_owned(),
            }),
            _ => Err(FetchError {
                code: "NoSuchBucket".to_owned(),
                message: "The specified bucket does not exist".to_owned(),
            }),
        }
    }
}

pub(super) struct World {
    pub(super) registry: Arc<Registry>,
    pub(super) deployer: Arc<Told>,
    pub(super) store: Arc<Embedded>,
    pub(super) dir: Option<TempDir>,
    pub(super) caller: Caller,
}

pub(super) fn caller(account: &str) -> Caller {
    Caller { account: account.parse().unwrap(), arn: format!("arn:aws:iam::{account}:user/u") }
}

pub(super) fn zip(content: &[u8]) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("app.py", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner().into()
}

/// `{status} {code}: {message}`.
pub(super) fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    format!("{} {}: {error}", error.status(), error.code())
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self::on(dir.path(), Arc::new(Told::default())).await;
        Self { dir: Some(dir), ..world }
    }

    pub(super) async fn on(dir: &std::path::Path, deployer: Arc<Told>) -> Self {
        let store = Arc::new(Embedded::open(&dir.join("data")).unwrap());
        let registry = Self::open(&store, deployer.clone()).await.unwrap();
        Self { registry, deployer, store, dir: None, caller: caller("000000000000") }
    }

    pub(super) async fn open(store: &Embedded, deployer: Arc<Told>) -> Result<Arc<Registry>, Error> {
        let settings = Settings {
            account: "000000000000".parse().unwrap(),
            region: Default::default(),
            endpoint: "http://127.0.0.1:9400".to_owned(),
            function_url: "http://{id}.lambda-url.{region}.localhost:9401/".to_owned(),
            concurrency: 1_000,
        };
        let (catalog, blobs) = (store.catalog.clone(), store.blobs.clone());
        Registry::open(settings, catalog, blobs, Arc::new(OneObject), deployer, Arc::new(SystemClock)).await
    }

    /// Ends everything, as an orderly stop does, and gives the directory back.
    pub(super) async fn close(self) -> TempDir {
        self.registry.shutdown().await;
        self.dir.unwrap()
    }

    pub(super) fn arn(&self, name: &str) -> FunctionArn {
        FunctionArn { region: Default::default(), account: self.caller.account.clone(), name: name.parse().unwrap() }
    }

    pub(super) fn request(name: &str) -> CreateFunctionRequest {
        CreateFunctionRequest {
            function_name: name.to_owned(),
            runtime: Some("python3.12".to_owned()),
            handler: Some("app.handler".to_owned()),
            role: ROLE.to_owned(),
            code: FunctionCode { zip_file: Some(Blob(zip(name.as_bytes()))), ..FunctionCode::default() },
            ..CreateFunctionRequest::default()
        }
    }

    /// Makes a function and waits until it runs.
    pub(super) async fn function(&self, name: &str) -> FunctionConfiguration {
        self.registry.create_function(&self.caller, Self::request(name)).await.unwrap();
        self.settle(name).await
    }

    pub(super) async fn get(&self, name: &str) -> FunctionConfiguration {
        let request = GetFunctionConfigurationRequest { function_name: name.to_owned(), qualifier: None };
        self.registry.get_function_configuration(&self.caller, request).await.unwrap()
    }

    /// Waits until nothing of the function is being prepared.
    pub(super) async fn settle(&self, name: &str) -> FunctionConfiguration {
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let got = self.get(name).await;
                let pending = got.state == Some(State::Pending);
                if !pending && got.last_update_status != Some(LastUpdateStatus::InProgress) {
                    return got;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap()
    }

    pub(super) async fn publish(&self, name: &str) -> FunctionConfiguration {
        let request = PublishVersionRequest { function_name: name.to_owned(), ..PublishVersionRequest::default() };
        self.registry.publish_version(&self.caller, request).await.unwrap()
    }

    /// Changes the description's neighbour that makes a new version: the time-out.
    pub(super) async fn retime(&self, name: &str, timeout: u32) -> FunctionConfiguration {
        let request = UpdateFunctionConfigurationRequest {
            function_name: name.to_owned(),
            timeout: Some(timeout),
            ..UpdateFunctionConfigurationRequest::default()
        };
        self.registry.update_function_configuration(&self.caller, request).await.unwrap();
        self.settle(name).await
    }
}

//! URLs and permissions as the control plane makes them, not as a test imagines them.

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use lambent_gateway::Directory;
use lambent_model::function::Runtime;
use lambent_model::{FunctionArn, FunctionVersion, SystemClock};
use lambent_registry::{Caller, CodeSource, Deployer, FetchError, Registry, Settings};
use lambent_store::Embedded;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{Act, Gateway};

/// Ready at once.
struct Ready;

#[async_trait::async_trait]
impl Deployer for Ready {
    async fn prepare(&self, _: &FunctionVersion) -> Result<(), String> {
        Ok(())
    }
    fn retire(&self, _: uuid::Uuid) {}
    fn runtimes(&self) -> Vec<Runtime> {
        vec![Runtime::Python { minor: 12 }]
    }
}

#[async_trait::async_trait]
impl CodeSource for Ready {
    async fn fetch(&self, _: &str, _: &str, _: Option<&str>, _: u64) -> Result<Bytes, FetchError> {
        Err(FetchError { code: "NoSuchBucket".to_owned(), message: String::new() })
    }
}

fn request<T: DeserializeOwned>(shape: Value) -> T {
    serde_json::from_value(shape).unwrap()
}

/// A control plane with the function `hello`.
async fn registry(directory: &std::path::Path) -> (Arc<Registry>, Caller) {
    let store = Embedded::open(directory).unwrap();
    let settings = Settings {
        account: "000000000000".parse().unwrap(),
        region: Default::default(),
        endpoint: "http://127.0.0.1:9400".to_owned(),
        function_url: "http://{id}.lambda-url.{region}.localhost:9401/".to_owned(),
        concurrency: 1_000,
    };
    let (catalog, blobs) = (store.catalog.clone(), store.blobs.clone());
    let registry = Registry::open(settings, catalog, blobs, Arc::new(Ready), Arc::new(Ready), Arc::new(SystemClock))
        .await
        .unwrap();
    let caller = Caller { account: "000000000000".parse().unwrap(), arn: "arn:aws:iam::000000000000:root".to_owned() };
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("app.py", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"def handler(event, context): return 1").unwrap();
    let zip = base64::engine::general_purpose::STANDARD.encode(zip.finish().unwrap().into_inner());
    let function = request(json!({
        "FunctionName": "hello", "Runtime": "python3.12", "Handler": "app.handler", "Publish": true,
        "Role": "arn:aws:iam::000000000000:role/r", "Code": { "ZipFile": zip },
    }));
    registry.create_function(&caller, function).await.unwrap();
    (registry, caller)
}

async fn grant(registry: &Registry, caller: &Caller, action: &str, more: Value) {
    let mut shape = json!({
        "FunctionName": "hello", "StatementId": action.replace(':', "-"), "Action": action, "Principal": "*",
    });
    shape.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    registry.add_permission(caller, request(shape)).await.unwrap();
}

#[tokio::test]
async fn an_open_url_is_open_once_both_permissions_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, caller) = registry(directory.path()).await;
    let shape = json!({ "FunctionName": "hello", "AuthType": "NONE" });
    let made = registry.create_function_url_config(&caller, request(shape)).await.unwrap();
    let host = made.function_url.strip_prefix("http://").unwrap().strip_suffix('/').unwrap().to_owned();
    let header = format!("Host: {host}");
    let gateway = Gateway::over(registry.clone(), Act::Return("\"up\""), Duration::from_secs(60)).await;
    let status = async || gateway.send("GET /", &[&header], "").await.status;
    assert_eq!(status().await, 403);
    grant(&registry, &caller, "lambda:InvokeFunctionUrl", json!({ "FunctionUrlAuthType": "NONE" })).await;
    assert_eq!(status().await, 403);
    grant(&registry, &caller, "lambda:InvokeFunction", json!({ "InvokedViaFunctionUrl": true })).await;
    assert_eq!(status().await, 200);
    // Signed requests only, from now on: the permissions are for NONE.
    let shape = json!({ "FunctionName": "hello", "AuthType": "AWS_IAM" });
    registry.update_function_url_config(&caller, request(shape)).await.unwrap();
    assert_eq!(status().await, 403);
    let shape = json!({ "FunctionName": "hello" });
    registry.delete_function_url_config(&caller, request(shape)).await.unwrap();
    assert_eq!(gateway.send("GET /", &[&header], "").await.body, r#"{"Message":null}"#);
    registry.shutdown().await;
}

#[tokio::test]
async fn an_alias_has_a_url_and_permissions_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, caller) = registry(directory.path()).await;
    let shape = json!({ "FunctionName": "hello", "Name": "prod", "FunctionVersion": "1" });
    registry.create_alias(&caller, request(shape)).await.unwrap();
    let shape = json!({ "FunctionName": "hello", "Qualifier": "prod", "AuthType": "NONE" });
    let made = registry.create_function_url_config(&caller, request(shape)).await.unwrap();
    let id = made.function_url.strip_prefix("http://").unwrap().split('.').next().unwrap().to_owned();
    let url = Directory::function_url(&*registry, &id).unwrap();
    assert_eq!(url.qualifier.as_ref().map(ToString::to_string).as_deref(), Some("prod"));
    let gateway = Gateway::over(registry.clone(), Act::Return("\"up\""), Duration::from_secs(60)).await;
    let line = format!("GET /_url/{id}/");
    for qualifier in [json!({}), json!({ "Qualifier": "prod" })] {
        assert_eq!(gateway.send(&line, &[], "").await.status, 403, "the function's own policy is not the alias's");
        let with = |more: Value| {
            let mut all = qualifier.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        grant(&registry, &caller, "lambda:InvokeFunctionUrl", with(json!({ "FunctionUrlAuthType": "NONE" }))).await;
        grant(&registry, &caller, "lambda:InvokeFunction", with(json!({ "InvokedViaFunctionUrl": true }))).await;
    }
    assert_eq!(gateway.send(&line, &[], "").await.status, 200);
    let function: FunctionArn = gateway.function.seen.lock().unwrap()[0].function.clone();
    assert_eq!(function.name.as_str(), "hello");
    registry.shutdown().await;
}

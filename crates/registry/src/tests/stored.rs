//! Documents of every format there was stay readable, and what cannot be read is not made worse.

use lambent_store::port::{Expect, Write};
use lambent_store::record;
use serde_json::Value;

use super::*;
use crate::record::{Config, FORMAT, Head, Layer, Mapping, Signing};

/// Records of format 1 as a node wrote them, by key: a function with everything that a function can have, a plain one, the number of a
/// deleted one, a layer, mappings, a code signing configuration. Never edit it; add another file for another format.
const FORMAT_1: &str = include_str!("stored/format-1.json");

fn stored(text: &str) -> Vec<(String, Value)> {
    let Value::Object(documents) = serde_json::from_str(text).unwrap() else { panic!("an object by key") };
    documents.into_iter().collect()
}

/// A data directory with these documents.
async fn directory(documents: impl IntoIterator<Item = (String, Bytes)>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("data")).unwrap();
    let put = |(key, value)| Write { key, expect: Expect::Absent, value: Some(value) };
    store.catalog.commit(documents.into_iter().map(put).collect()).await.unwrap();
    dir
}

async fn reads_as_it_was(documents: impl IntoIterator<Item = (String, Bytes)>) {
    let dir = directory(documents).await;
    let world = World::on(dir.path(), Arc::new(Told::default())).await;
    let (registry, arn) = (&world.registry, world.arn("full"));

    let full = world.get("full").await;
    assert_eq!(
        (full.runtime.as_deref(), full.timeout, full.memory_size),
        (Some("provided.al2023"), Some(7), Some(256))
    );
    assert_eq!(full.environment.unwrap().variables.unwrap()["AB"], "c");
    assert_eq!(full.layers.unwrap().len(), 1);
    assert_eq!(full.state, Some(State::Active));
    let function = registry.snapshot.functions.get(&arn).unwrap();
    assert_eq!(function.versions.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((function.head.tags["team"].as_str(), function.head.urls.len()), ("x", 2));
    assert_eq!((function.head.provisioned.len(), function.head.recursive_loop.as_deref()), (1, Some("Allow")));
    let live = registry.resolve(&arn, Some(&"live".parse().unwrap())).unwrap();
    assert_eq!(live.version.version.to_string(), "1");
    assert_eq!(
        live.additional.map(|(version, share)| (version.version.to_string(), share)),
        Some(("2".to_owned(), 0.25))
    );
    assert!(live.policy.is_some());
    assert_eq!(live.version.network, lambent_model::function::Network::None);
    assert_eq!(registry.reserved_total(), 10);
    assert!(function.head.urls.values().all(|url| registry.function_url(&url.id).is_some()));
    assert_eq!(registry.snapshot.layers.all()[0].value.versions.len(), 2);
    assert_eq!(registry.snapshot.mappings.all().len(), 2);
    assert_eq!(registry.snapshot.signings.all().len(), 1);

    world.function("gone").await;
    assert_eq!(world.publish("gone").await.version.as_deref(), Some("2"), "numbers are never used twice");
    assert_eq!(world.retime("full", 8).await.timeout, Some(8));
    world.registry.shutdown().await;
}

#[tokio::test]
async fn documents_of_format_1_are_readable() {
    let wrap = |(key, value): (String, Value)| (key, record::write(1, &value).unwrap());
    reads_as_it_was(stored(FORMAT_1).into_iter().map(wrap)).await;
}

#[tokio::test]
async fn documents_from_before_there_were_formats_are_readable() {
    let bare = |(key, value): (String, Value)| (key, Bytes::from(value.to_string()));
    reads_as_it_was(stored(FORMAT_1).into_iter().map(bare)).await;
}

/// Whether all that `before` says is said by `after`, too.
fn says_all(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().all(|(name, value)| after.get(name).is_some_and(|after| says_all(value, after)))
        }
        (before, after) => before == after,
    }
}

#[test]
fn what_is_written_is_the_format_it_says() {
    fn again<T: serde::de::DeserializeOwned + serde::Serialize>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
    }
    assert_eq!(FORMAT, 1, "add a file of the new format to tests/stored, and keep the old ones readable");
    for (key, before) in stored(FORMAT_1) {
        let after = match key.split('/').nth(1).unwrap() {
            "function" => again::<Head>(&before),
            "version" => again::<Config>(&before),
            "number" => again::<u64>(&before),
            "layer" => again::<Layer>(&before),
            "mapping" => again::<Mapping>(&before),
            "signing" => again::<Signing>(&before),
            other => panic!("{other}"),
        };
        assert!(says_all(&before, &after), "{key} is written differently now: count FORMAT on\n{before}\n{after}");
    }
}

#[tokio::test]
async fn a_later_format_ends_the_start() {
    let (key, value) = stored(FORMAT_1).swap_remove(0);
    let dir = directory([(key, record::write(FORMAT + 1, &value).unwrap())]).await;
    let store = Embedded::open(&dir.path().join("data")).unwrap();
    let opened = World::open(&store, Arc::new(Told::default())).await;
    let Err(Error::Store(error @ lambent_store::Error::NewerRecord { found: 2, known: 1, .. })) = opened else {
        panic!("it was read")
    };
    assert!(error.to_string().contains("use the release that wrote it"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_read_keeps_its_code() {
    let world = World::new().await;
    world.function("f").await;
    world.function("g").await;
    let key = crate::key::function(&world.arn("f"));
    let write = Write { key, expect: Expect::Anything, value: Some("{".into()) };
    world.store.catalog.commit(vec![write]).await.unwrap();
    let dir = world.close().await;

    let world = World::on(dir.path(), Arc::new(Told::default())).await;
    assert_eq!(world.get("g").await.state, Some(State::Active));
    assert_eq!(world.registry.sweep().await.unwrap(), 0);
    assert_eq!(world.store.blobs.list().await.unwrap().len(), 2);
    world.registry.shutdown().await;
}

//! What a stop, orderly or not, leaves, and what is forgotten.

use super::*;
use crate::deploy;
use crate::shape::SnapStart;

#[tokio::test]
async fn everything_is_there_after_a_restart_and_the_unfinished_is_finished() {
    let world = World::new().await;
    world.function("f").await;
    world.publish("f").await;
    world.deployer.gate.forget_permits(100_000);
    world.registry.create_function(&world.caller, World::request("g")).await.unwrap();
    let update = UpdateFunctionCodeRequest {
        function_name: "f".to_owned(),
        zip_file: Some(Blob(zip(b"new"))),
        ..UpdateFunctionCodeRequest::default()
    };
    world.registry.update_function_code(&world.caller, update).await.unwrap();
    let before = world.get("f").await;
    assert_eq!(world.get("g").await.state, Some(State::Pending));
    let dir = world.close().await;

    let world = World::on(dir.path(), Arc::new(Told::default())).await;
    assert_eq!(world.settle("g").await.state, Some(State::Active));
    let after = world.settle("f").await;
    assert_eq!(after.code_sha256, before.code_sha256);
    assert_eq!(after.last_update_status, Some(LastUpdateStatus::Successful));
    assert_eq!(world.publish("f").await.version.as_deref(), Some("2"));
    world.registry.shutdown().await;
}

#[tokio::test]
async fn snapshots_are_asked_for_again_after_a_restart_the_newest_of_each_function_first() {
    let world = World::new().await;
    for name in ["f", "g"] {
        let snap_start = Some(SnapStart { apply_on: Some("PublishedVersions".to_owned()) });
        let request = CreateFunctionRequest { snap_start, ..World::request(name) };
        world.registry.create_function(&world.caller, request).await.unwrap();
        world.settle(name).await;
        world.publish(name).await;
    }
    world.retime("f", 7).await;
    world.publish("f").await;
    world.function("without").await;
    world.publish("without").await;
    assert_eq!(*world.deployer.ahead.lock().unwrap(), Vec::<String>::new());
    while deploy::with_snapshots(&world.registry).len() < 3 {
        tokio::task::yield_now().await;
    }
    let dir = world.close().await;

    let world = World::on(dir.path(), Arc::new(Told::default())).await;
    let mut asked = world.deployer.ahead.lock().unwrap().clone();
    // Which function comes first is nobody's business.
    asked.get_mut(..2).unwrap().sort();
    let ends: Vec<&str> = asked.iter().filter_map(|arn| arn.split_once("function:")).map(|(_, end)| end).collect();
    assert_eq!(ends, ["f:2", "g:1", "f:1"]);
    world.registry.shutdown().await;
}

#[tokio::test]
async fn a_store_has_one_user() {
    let world = World::new().await;
    let path = world.dir.as_ref().unwrap().path().join("data");
    assert!(matches!(Embedded::open(&path), Err(lambent_store::Error::Locked { .. })));
}

// What is there is looked at, not what a sweep says it deleted: the registry's own first sweep may come in between.
#[tokio::test]
async fn code_is_forgotten_when_nothing_refers_to_it() {
    let world = World::new().await;
    world.function("f").await;
    world.function("g").await;
    world.registry.sweep().await.unwrap();
    assert_eq!(world.store.blobs.list().await.unwrap().len(), 2);
    let delete = DeleteFunctionRequest { function_name: "f".to_owned(), qualifier: None };
    world.registry.delete_function(&world.caller, delete).await.unwrap();
    world.registry.sweep().await.unwrap();
    let kept = world.registry.resolve(&world.arn("g"), None).unwrap().version.code.digest;
    assert_eq!(world.store.blobs.list().await.unwrap(), [kept]);
}

#[tokio::test]
async fn what_is_being_uploaded_is_not_swept() {
    let world = World::new().await;
    let location = crate::code::Location { zip: Some(zip(b"x")), ..Default::default() };
    let code = world.registry.take_code(&world.caller.account, location, crate::code::Package::Zip).await.unwrap();
    world.registry.sweep().await.unwrap();
    assert_eq!(world.store.blobs.list().await.unwrap().len(), 1);
    drop(code);
    world.registry.sweep().await.unwrap();
    assert_eq!(world.store.blobs.list().await.unwrap(), []);
}

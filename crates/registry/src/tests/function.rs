use std::collections::BTreeMap;

use lambent_model::function::Network;
use lambent_model::{Qualifier, Version};

use super::*;

#[tokio::test]
async fn a_function_is_pending_then_active() {
    let world = World::new().await;
    let created = world.registry.create_function(&world.caller, World::request("f")).await.unwrap();
    assert_eq!(created.state, Some(State::Pending));
    assert_eq!(created.state_reason.as_deref(), Some("The function is being created."));
    assert_eq!(created.state_reason_code.as_deref(), Some("Creating"));
    assert_eq!(created.last_update_status, None);
    assert_eq!(created.function_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:function:f"));
    let active = world.settle("f").await;
    assert_eq!((active.state, active.last_update_status), (Some(State::Active), Some(LastUpdateStatus::Successful)));
    assert_eq!((active.timeout, active.memory_size, active.version.as_deref()), (Some(3), Some(128), Some("$LATEST")));
    assert_ne!(created.revision_id, active.revision_id);
    let json = serde_json::to_value(&active).unwrap();
    assert_eq!(json["LoggingConfig"], serde_json::json!({"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}));
    assert_eq!(json["SnapStart"], serde_json::json!({"ApplyOn": "None", "OptimizationStatus": "Off"}));
    assert_eq!(json.get("VpcConfig"), None);
}

#[tokio::test]
async fn what_cannot_be_prepared_fails_and_can_be_mended() {
    let world = World::new().await;
    world.deployer.outcomes.lock().unwrap().push_back(Err("no bootstrap".to_owned()));
    world.registry.create_function(&world.caller, World::request("f")).await.unwrap();
    let failed = world.settle("f").await;
    assert_eq!((failed.state, failed.state_reason.as_deref()), (Some(State::Failed), Some("no bootstrap")));
    assert_eq!(world.registry.resolve(&world.arn("f"), None).unwrap().state, State::Failed);
    assert_eq!(world.retime("f", 5).await.state, Some(State::Active));
}

#[tokio::test]
async fn an_update_takes_effect_when_it_is_ready_and_not_when_it_fails() {
    let world = World::new().await;
    world.function("f").await;
    let arn = world.arn("f");
    let before = world.registry.resolve(&arn, None).unwrap().version;
    world.deployer.gate.forget_permits(100_000);
    let update = UpdateFunctionConfigurationRequest {
        function_name: "f".to_owned(),
        timeout: Some(9),
        ..UpdateFunctionConfigurationRequest::default()
    };
    let updating = world.registry.update_function_configuration(&world.caller, update.clone()).await.unwrap();
    assert_eq!(updating.last_update_status, Some(LastUpdateStatus::InProgress));
    assert_eq!((updating.state, updating.timeout), (Some(State::Active), Some(9)));
    assert_eq!(world.registry.resolve(&arn, None).unwrap().version, before, "runs as before");
    assert_eq!(
        said(world.registry.update_function_configuration(&world.caller, update.clone()).await),
        "409 ResourceConflictException: The operation cannot be performed at this time. An update is in progress for \
         resource: arn:aws:lambda:us-east-1:000000000000:function:f"
    );
    world.deployer.gate.add_permits(1);
    world.settle("f").await;
    let after = world.registry.resolve(&arn, None).unwrap().version;
    assert_eq!(after.timeout.as_secs(), 9);
    assert_eq!(*world.deployer.retired.lock().unwrap(), [before.generation]);

    world.deployer.outcomes.lock().unwrap().push_back(Err("bad".to_owned()));
    world.deployer.gate.add_permits(1_000);
    let failed = world.retime("f", 11).await;
    assert_eq!(failed.last_update_status, Some(LastUpdateStatus::Failed));
    assert_eq!(failed.last_update_status_reason.as_deref(), Some("bad"));
    assert_eq!(world.registry.resolve(&arn, None).unwrap().version, after, "the failed update does not run");
    world.retime("f", 12).await;
    assert_eq!(world.registry.resolve(&arn, None).unwrap().version.timeout.as_secs(), 12);
}

#[tokio::test]
async fn code_comes_from_a_bucket_as_well_and_can_be_downloaded() {
    let world = World::new().await;
    let mut request = World::request("f");
    request.code = FunctionCode {
        s3_bucket: Some("bucket".to_owned()),
        s3_key: Some("key".to_owned()),
        ..FunctionCode::default()
    };
    world.registry.create_function(&world.caller, request).await.unwrap();
    let request = GetFunctionRequest { function_name: "f".to_owned(), qualifier: None };
    let location = world.registry.get_function(&world.caller, request).await.unwrap().code.unwrap().location.unwrap();
    let (path, query) = location.split_once('?').unwrap();
    let digest = path.rsplit('/').next().unwrap();
    let (expires, signature) = query.split_once("&signature=").unwrap();
    let expires: i64 = expires.strip_prefix("expires=").unwrap().parse().unwrap();
    assert_eq!(world.registry.download(digest, expires, signature).await.unwrap(), zip(b"from a bucket"));
    for (expires, signature) in [(expires + 1, signature), (expires, "00"), (expires, "zz")] {
        assert!(matches!(world.registry.download(digest, expires, signature).await, Err(Error::AccessDenied(_))));
    }
}

#[tokio::test]
async fn versions_are_published_once_and_their_numbers_never_again() {
    let world = World::new().await;
    world.function("f").await;
    let first = world.publish("f").await;
    assert_eq!(first.function_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:function:f:1"));
    assert_eq!((first.state, first.last_update_status), (Some(State::Active), Some(LastUpdateStatus::Successful)));
    assert_eq!(world.publish("f").await, first, "nothing changed");
    world.retime("f", 7).await;
    assert_eq!(world.publish("f").await.version.as_deref(), Some("2"));
    let delete = |qualifier: Option<&str>| DeleteFunctionRequest {
        function_name: "f".to_owned(),
        qualifier: qualifier.map(str::to_owned),
    };
    world.registry.delete_function(&world.caller, delete(Some("2"))).await.unwrap();
    assert_eq!(world.publish("f").await.version.as_deref(), Some("3"));
    world.registry.delete_function(&world.caller, delete(None)).await.unwrap();
    world.function("f").await;
    assert_eq!(world.publish("f").await.version.as_deref(), Some("4"), "also after the function was deleted");
    let versions = ListVersionsByFunctionRequest { function_name: "f".to_owned(), ..Default::default() };
    let listed = world.registry.list_versions_by_function(&world.caller, versions).await.unwrap().versions.unwrap();
    let names: Vec<_> = listed.iter().map(|version| version.version.as_deref().unwrap()).collect();
    assert_eq!(names, ["$LATEST", "4"]);
    assert_eq!(listed[0].state, None);
}

#[tokio::test]
async fn publishing_with_creation_and_update() {
    let world = World::new().await;
    let created = CreateFunctionRequest { publish: Some(true), ..World::request("f") };
    let created = world.registry.create_function(&world.caller, created).await.unwrap();
    assert_eq!((created.version.as_deref(), created.state), (Some("1"), Some(State::Pending)));
    assert_eq!(created.function_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:function:f"));
    world.settle("f").await;
    let update = UpdateFunctionCodeRequest {
        function_name: "f".to_owned(),
        zip_file: Some(Blob(zip(b"new"))),
        publish: Some(true),
        ..UpdateFunctionCodeRequest::default()
    };
    let updated = world.registry.update_function_code(&world.caller, update).await.unwrap();
    assert_eq!((updated.version.as_deref(), updated.state), (Some("2"), Some(State::Pending)));
    assert_eq!(updated.function_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:function:f:2"));
    world.settle("f:2").await;
    let resolved = |number: &str| world.registry.resolve(&world.arn("f"), Some(&number.parse().unwrap())).unwrap();
    assert_ne!(resolved("1").version.code, resolved("2").version.code);
    assert_eq!(resolved("2").invoked_arn, "arn:aws:lambda:us-east-1:000000000000:function:f:2");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let world = World::new().await;
    let before = world.function("f").await;
    let dry = UpdateFunctionCodeRequest {
        function_name: "f".to_owned(),
        zip_file: Some(Blob(zip(b"new"))),
        dry_run: Some(true),
        ..UpdateFunctionCodeRequest::default()
    };
    world.registry.update_function_code(&world.caller, dry).await.unwrap();
    assert_eq!(world.get("f").await, before);
}

#[tokio::test]
async fn functions_are_listed_in_pages() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.function(name).await;
    }
    world.publish("b").await;
    let list = |marker: Option<String>, all: bool| ListFunctionsRequest {
        max_items: Some(2),
        marker,
        function_version: all.then(|| "ALL".to_owned()),
        master_region: None,
    };
    let first = world.registry.list_functions(&world.caller, list(None, false)).await.unwrap();
    let second = world.registry.list_functions(&world.caller, list(first.next_marker, false)).await.unwrap();
    assert_eq!((first.functions.unwrap().len(), second.functions.unwrap().len(), second.next_marker), (2, 1, None));
    let request = ListFunctionsRequest { function_version: Some("ALL".to_owned()), ..Default::default() };
    let all = world.registry.list_functions(&world.caller, request).await.unwrap().functions.unwrap();
    let arns: Vec<_> = all
        .iter()
        .map(|function| function.function_arn.as_deref().unwrap().rsplit("function:").next().unwrap().to_owned())
        .collect();
    assert_eq!(arns, ["a:$LATEST", "b:$LATEST", "b:1", "c:$LATEST"].map(|end| end.to_owned()));
}

#[tokio::test]
async fn a_tag_takes_the_network_away() {
    let world = World::new().await;
    world.function("f").await;
    let arn = world.arn("f");
    let tags = |value: &str| TagResourceRequest {
        resource: arn.to_string(),
        tags: BTreeMap::from([("lambent:network".to_owned(), value.to_owned())]),
    };
    let before = world.registry.resolve(&arn, None).unwrap().version;
    world.registry.tag_resource(&world.caller, tags("none")).await.unwrap();
    let after = world.registry.resolve(&arn, None).unwrap().version;
    assert_eq!((before.network, after.network), (Network::Internet, Network::None));
    assert_ne!(before.generation, after.generation);
    assert_eq!(*world.deployer.retired.lock().unwrap(), [before.generation]);
    assert!(world.registry.tag_resource(&world.caller, tags("some")).await.is_err());
}

#[tokio::test]
async fn many_writers_of_one_function_all_get_their_turn() {
    let world = World::new().await;
    world.function("f").await;
    let writers: Vec<_> = (0..40)
        .map(|n| {
            let (registry, caller) = (world.registry.clone(), world.caller.clone());
            let resource = world.arn("f").to_string();
            tokio::spawn(async move {
                let tags = BTreeMap::from([(format!("k{n}"), String::new())]);
                registry.tag_resource(&caller, TagResourceRequest { resource, tags }).await
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let tags = ListTagsRequest { resource: world.arn("f").to_string() };
    assert_eq!(world.registry.list_tags(&world.caller, tags).await.unwrap().tags.unwrap().len(), 40);
    assert_eq!(
        world.registry.resolve(&world.arn("f"), Some(&Qualifier::Version(Version::Latest))).unwrap().state,
        State::Active
    );
}

#[tokio::test]
async fn a_wasm_function_takes_a_component_by_itself_or_in_a_zip_and_nothing_else() {
    let world = World::new().await;
    let component = b"\0asm\x0d\0\x01\0rest";
    let with = |name: &str, runtime: &str, code: Bytes| {
        let mut request = World::request(name);
        request.runtime = Some(runtime.to_owned());
        request.code.zip_file = Some(Blob(code));
        request
    };
    let bare = with("bare", "provided.wasm", Bytes::from_static(component));
    let created = world.registry.create_function(&world.caller, bare).await.unwrap();
    assert_eq!(created.runtime.as_deref(), Some("provided.wasm"));
    assert_eq!(created.code_size, Some(12));
    let refusals = [
        (with("f", "provided.wasm", zip(b"text")), "The package holds no .wasm file."),
        (
            with("f", "provided.wasm", Bytes::from_static(b"\0asm\x01\0\0\0")),
            "The file is a core WebAssembly module, and a component is needed: build for wasm32-wasip2, or make one of it \
             with `wasm-tools component new`.",
        ),
        (
            with("f", "provided.al2023", Bytes::from_static(component)),
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
    ];
    for (request, reason) in refusals {
        let expected = format!("400 InvalidParameterValueException: {reason}");
        assert_eq!(said(world.registry.create_function(&world.caller, request).await), expected);
    }
}

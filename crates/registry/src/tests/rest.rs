//! Permissions, URLs, mappings, concurrency, tags.

use std::collections::BTreeMap;

use lambent_policy::document::{Decision, Request, Who};

use super::*;
use crate::Allocation;

fn permission(sid: &str, qualifier: Option<&str>) -> AddPermissionRequest {
    AddPermissionRequest {
        function_name: "f".to_owned(),
        statement_id: sid.to_owned(),
        action: "lambda:InvokeFunction".to_owned(),
        principal: "s3.amazonaws.com".to_owned(),
        source_arn: Some("arn:aws:s3:::b".to_owned()),
        source_account: Some("000000000000".to_owned()),
        qualifier: qualifier.map(str::to_owned),
        ..AddPermissionRequest::default()
    }
}

#[tokio::test]
async fn permissions_are_added_shown_used_and_removed() {
    let world = World::new().await;
    let before = world.function("f").await;
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let added = world.registry.add_permission(&world.caller, permission("s3", None)).await.unwrap();
    let statement = format!(
        r#"{{"Sid":"s3","Effect":"Allow","Principal":{{"Service":"s3.amazonaws.com"}},"Action":"lambda:InvokeFunction","Resource":"{arn}","Condition":{{"ArnLike":{{"AWS:SourceArn":"arn:aws:s3:::b"}},"StringEquals":{{"AWS:SourceAccount":"000000000000"}}}}}}"#
    );
    assert_eq!(added.statement.as_deref(), Some(statement.as_str()));
    let get = GetPolicyRequest { function_name: "f".to_owned(), qualifier: None };
    let got = world.registry.get_policy(&world.caller, get.clone()).await.unwrap();
    assert_eq!(got.policy.unwrap(), format!(r#"{{"Version":"2012-10-17","Id":"default","Statement":[{statement}]}}"#));
    assert_ne!(got.revision_id, before.revision_id);
    assert_eq!(got.revision_id, world.get("f").await.revision_id);
    let policy = world.registry.resolve(&world.arn("f"), None).unwrap().policy.unwrap();
    let decide = |source| {
        policy.evaluate(&Request {
            who: Who::Service("s3.amazonaws.com"),
            action: "lambda:InvokeFunction",
            resource: arn,
            context: &[("aws:SourceArn", source), ("aws:SourceAccount", "000000000000")],
        })
    };
    assert_eq!((decide("arn:aws:s3:::b"), decide("arn:aws:s3:::c")), (Decision::Allow, Decision::Silent));
    let remove = |sid: &str| RemovePermissionRequest {
        function_name: "f".to_owned(),
        statement_id: sid.to_owned(),
        ..RemovePermissionRequest::default()
    };
    assert_eq!(
        said(world.registry.remove_permission(&world.caller, remove("x")).await),
        "404 ResourceNotFoundException: Statement x is not found in resource policy."
    );
    world.registry.remove_permission(&world.caller, remove("s3")).await.unwrap();
    assert_eq!(
        said(world.registry.remove_permission(&world.caller, remove("s3")).await),
        "404 ResourceNotFoundException: No policy is associated with the given resource."
    );
    assert_eq!(
        said(world.registry.get_policy(&world.caller, get).await),
        "404 ResourceNotFoundException: The resource you requested does not exist."
    );
}

#[tokio::test]
async fn permissions_that_are_refused() {
    let world = World::new().await;
    world.function("f").await;
    world.registry.add_permission(&world.caller, permission("s3", None)).await.unwrap();
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let someone = AddPermissionRequest { principal: "someone".to_owned(), ..permission("x", None) };
    let stale = AddPermissionRequest { revision_id: Some("x".to_owned()), ..permission("x", None) };
    for (request, text) in [
        (
            permission("s3", None),
            "409 ResourceConflictException: The statement id (s3) provided already exists. Please provide a new \
             statement id, or remove the existing statement."
                .to_owned(),
        ),
        (
            permission("x", Some("$LATEST")),
            "400 InvalidParameterValueException: We currently do not support adding policies for $LATEST.".to_owned(),
        ),
        (permission("x", Some("prod")), format!("404 ResourceNotFoundException: Cannot find alias arn: {arn}:prod")),
        (permission("x", Some("42")), format!("404 ResourceNotFoundException: Function not found: {arn}:42")),
        (
            someone,
            "400 InvalidParameterValueException: The provided principal was invalid. Please check the principal and \
             try again."
                .to_owned(),
        ),
        (
            stale,
            "412 PreconditionFailedException: The Revision Id provided does not match the latest Revision Id. Call the \
             GetPolicy API to retrieve the latest Revision Id"
                .to_owned(),
        ),
    ] {
        assert_eq!(said(world.registry.add_permission(&world.caller, request).await), text);
    }
}

#[tokio::test]
async fn another_account_reads_what_a_policy_lets_it() {
    let world = World::new().await;
    world.function("f").await;
    let other = caller("111122223333");
    let name = "arn:aws:lambda:us-east-1:000000000000:function:f".to_owned();
    let get = GetFunctionRequest { function_name: name, qualifier: None };
    assert!(matches!(world.registry.get_function(&other, get.clone()).await, Err(Error::AccessDenied(_))));
    let allow = AddPermissionRequest {
        action: "lambda:GetFunction".to_owned(),
        principal: "111122223333".to_owned(),
        source_arn: None,
        source_account: None,
        ..permission("other", None)
    };
    world.registry.add_permission(&world.caller, allow).await.unwrap();
    world.registry.get_function(&other, get).await.unwrap();
}

#[tokio::test]
async fn a_whole_policy_takes_the_place_of_another() {
    let world = World::new().await;
    let before = world.function("f").await;
    let arn = world.arn("f").to_string();
    let policy = |resource: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Sid":"x","Effect":"Allow","Principal":"*","Action":"lambda:*","Resource":"{resource}"}}]}}"#
        )
    };
    let put = |policy: String, revision_id: Option<String>| PutResourcePolicyRequest {
        resource_arn: arn.clone(),
        policy,
        revision_id,
    };
    let stored = world.registry.put_resource_policy(&world.caller, put(policy(&arn), before.revision_id.clone())).await;
    assert_eq!(stored.unwrap().policy, Some(policy(&arn)));
    assert_eq!(
        said(world.registry.put_resource_policy(&world.caller, put(policy(&arn), before.revision_id)).await),
        "412 PreconditionFailedException: The Revision Id provided does not match the latest Revision Id. Call the \
         GetFunction/GetAlias API to retrieve the latest Revision Id"
    );
    for bad in ["{", "[]", r#"{"Statement":[]}"#, &policy("*")] {
        let refused = world.registry.put_resource_policy(&world.caller, put(bad.to_owned(), None)).await;
        assert!(matches!(refused, Err(Error::InvalidParameterValue(_))), "{bad}");
    }
    let delete = || DeleteResourcePolicyRequest { resource_arn: arn.clone(), revision_id: None };
    world.registry.delete_resource_policy(&world.caller, delete()).await.unwrap();
    assert!(matches!(
        world.registry.delete_resource_policy(&world.caller, delete()).await,
        Err(Error::ResourceNotFound(_))
    ));
}

#[tokio::test]
async fn a_function_url_lives_as_long_as_its_configuration() {
    let world = World::new().await;
    world.function("f").await;
    let create = CreateFunctionUrlConfigRequest {
        function_name: "f".to_owned(),
        auth_type: AuthType::None,
        ..CreateFunctionUrlConfigRequest::default()
    };
    let created = world.registry.create_function_url_config(&world.caller, create.clone()).await.unwrap();
    assert_eq!(created.invoke_mode, None);
    let id = created.function_url.strip_prefix("http://").unwrap().split('.').next().unwrap().to_owned();
    assert_eq!(created.function_url, format!("http://{id}.lambda-url.us-east-1.localhost:9401/"));
    let url = world.registry.function_url(&id).unwrap();
    assert_eq!((url.function.name.as_str(), url.auth_type), ("f", AuthType::None));
    assert_eq!(
        said(world.registry.create_function_url_config(&world.caller, create).await),
        "409 ResourceConflictException: Failed to create function url config for [functionArn = \
         arn:aws:lambda:us-east-1:000000000000:function:f]. Error message:  FunctionUrlConfig exists for this Lambda \
         function"
    );
    let update = UpdateFunctionUrlConfigRequest {
        function_name: "f".to_owned(),
        auth_type: Some(AuthType::AwsIam),
        ..UpdateFunctionUrlConfigRequest::default()
    };
    let updated = world.registry.update_function_url_config(&world.caller, update).await.unwrap();
    assert_eq!(updated.function_url, created.function_url);
    assert_eq!(world.registry.function_url(&id).unwrap().auth_type, AuthType::AwsIam);
    let delete = DeleteFunctionUrlConfigRequest { function_name: "f".to_owned(), qualifier: None };
    world.registry.delete_function_url_config(&world.caller, delete).await.unwrap();
    assert_eq!(world.registry.function_url(&id), None);
    let get = GetFunctionUrlConfigRequest { function_name: "f".to_owned(), qualifier: None };
    assert_eq!(
        said(world.registry.get_function_url_config(&world.caller, get).await),
        "404 ResourceNotFoundException: The resource you requested does not exist."
    );
}

#[tokio::test]
async fn reservations_leave_something_for_everyone() {
    let world = World::new().await;
    world.function("f").await;
    world.function("g").await;
    let put = |name: &str, count: u32| PutFunctionConcurrencyRequest {
        function_name: name.to_owned(),
        reserved_concurrent_executions: count,
    };
    world.registry.put_function_concurrency(&world.caller, put("f", 500)).await.unwrap();
    assert_eq!(
        said(world.registry.put_function_concurrency(&world.caller, put("g", 401)).await),
        "400 InvalidParameterValueException: Specified ReservedConcurrentExecutions for function decreases account's \
         UnreservedConcurrentExecution below its minimum value of [100]."
    );
    world.registry.put_function_concurrency(&world.caller, put("g", 400)).await.unwrap();
    assert_eq!(world.registry.resolve(&world.arn("g"), None).unwrap().reserved_concurrency, Some(400));
    assert!(world.registry.reserved_total() >= 400);
    let settings = world.registry.get_account_settings(&world.caller, GetAccountSettingsRequest {}).await.unwrap();
    assert_eq!(settings.account_limit.unwrap().unreserved_concurrent_executions, Some(100));
    assert_eq!(settings.account_usage.unwrap().function_count, Some(2));
    assert_eq!(
        said(world.registry.put_function_concurrency(&world.caller, put("f:prod", 1)).await),
        "400 InvalidParameterValueException: This operation is permitted on Lambda functions only. Aliases and \
         versions do not support this operation. Please specify either a function name or an unqualified function ARN."
    );
}

#[tokio::test]
async fn mappings_join_a_source_and_a_function_once() {
    let world = World::new().await;
    world.function("f").await;
    world.function("g").await;
    let queue = "arn:aws:sqs:us-east-1:000000000000:q";
    let create = CreateEventSourceMappingRequest {
        event_source_arn: Some(queue.to_owned()),
        function_name: "f".to_owned(),
        ..CreateEventSourceMappingRequest::default()
    };
    let made = world.registry.create_event_source_mapping(&world.caller, create.clone()).await.unwrap();
    let uuid = made.uuid.unwrap();
    assert_eq!((made.state.as_deref(), made.batch_size), (Some("Creating"), Some(10)));
    let get = || GetEventSourceMappingRequest { uuid: uuid.clone() };
    let got = world.registry.get_event_source_mapping(&world.caller, get()).await.unwrap();
    assert_eq!(got.state.as_deref(), Some("Enabled"));
    let twice = format!(
        "409 ResourceConflictException: An event source mapping with SQS arn (\" {queue} \") and function (\" f \") \
         already exists. Please update or delete the existing mapping with UUID {uuid}"
    );
    assert_eq!(said(world.registry.create_event_source_mapping(&world.caller, create.clone()).await), twice);
    // Moved to another function, its place is free.
    let update = UpdateEventSourceMappingRequest {
        uuid: uuid.clone(),
        function_name: Some("g".to_owned()),
        enabled: Some(false),
        ..UpdateEventSourceMappingRequest::default()
    };
    world.registry.update_event_source_mapping(&world.caller, update).await.unwrap();
    let got = world.registry.get_event_source_mapping(&world.caller, get()).await.unwrap();
    assert_eq!(got.state.as_deref(), Some("Disabled"));
    world.registry.create_event_source_mapping(&world.caller, create).await.unwrap();
    let all = ListEventSourceMappingsRequest::default();
    let all = world.registry.list_event_source_mappings(&world.caller, all).await.unwrap();
    assert_eq!(all.event_source_mappings.unwrap().len(), 2);
    let delete = DeleteEventSourceMappingRequest { uuid: uuid.clone() };
    let deleted = world.registry.delete_event_source_mapping(&world.caller, delete).await.unwrap();
    assert_eq!(deleted.state.as_deref(), Some("Deleting"));
    assert_eq!(
        said(world.registry.get_event_source_mapping(&world.caller, get()).await),
        "404 ResourceNotFoundException: The resource you requested does not exist."
    );
}

#[tokio::test]
async fn mappings_that_are_refused() {
    let world = World::new().await;
    world.function("f").await;
    let from = |arn: &str| CreateEventSourceMappingRequest {
        event_source_arn: Some(arn.to_owned()),
        function_name: "f".to_owned(),
        ..CreateEventSourceMappingRequest::default()
    };
    let (queue, table) =
        ("arn:aws:sqs:us-east-1:000000000000:q", "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/s");
    let filters = Some(serde_json::json!({"Filters": [{"Pattern": "{"}]}));
    let begin = "400 InvalidParameterValueException: ";
    for (request, text) in [
        (
            CreateEventSourceMappingRequest { event_source_arn: None, ..from("") },
            "Unrecognized event source.".to_owned(),
        ),
        (
            CreateEventSourceMappingRequest { function_name: "none".to_owned(), ..from(queue) },
            "Function does not exist".to_owned(),
        ),
        (
            from(table),
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must \
             not be null."
                .to_owned(),
        ),
        (
            CreateEventSourceMappingRequest { starting_position: Some("AT_TIMESTAMP".to_owned()), ..from(table) },
            format!("Unsupported starting position for arn type: {table}"),
        ),
        (
            CreateEventSourceMappingRequest { batch_size: Some(11), ..from(queue) },
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
                .to_owned(),
        ),
        (
            CreateEventSourceMappingRequest { filter_criteria: filters, ..from(queue) },
            "Invalid filter pattern definition.".to_owned(),
        ),
    ] {
        let text = format!("{begin}{text}");
        assert_eq!(said(world.registry.create_event_source_mapping(&world.caller, request).await), text);
    }
}

#[tokio::test]
async fn provisioned_concurrency_is_handed_over_and_shows_what_became_of_it() {
    let world = World::new().await;
    world.function("f").await;
    world.publish("f").await;
    let put = |qualifier: &str| PutProvisionedConcurrencyConfigRequest {
        function_name: "f".to_owned(),
        qualifier: qualifier.to_owned(),
        provisioned_concurrent_executions: 2,
    };
    let made = world.registry.put_provisioned_concurrency_config(&world.caller, put("1")).await.unwrap();
    assert_eq!((made.status.as_str(), made.available_provisioned_concurrent_executions), ("IN_PROGRESS", 0));
    let told = |wanted: Vec<(u64, u32)>| {
        let mut told = world.deployer.wanted.subscribe();
        async move { drop(told.wait_for(|last| *last == wanted).await.unwrap()) }
    };
    told(vec![(1, 2)]).await;
    let shown = async |available, failure: Option<&str>| {
        *world.deployer.allocation.lock().unwrap() = Allocation { available, failure: failure.map(str::to_owned) };
        let request =
            GetProvisionedConcurrencyConfigRequest { function_name: "f".to_owned(), qualifier: "1".to_owned() };
        let shown = world.registry.get_provisioned_concurrency_config(&world.caller, request).await.unwrap();
        let available = shown.available_provisioned_concurrent_executions;
        (shown.status, available, shown.status_reason.unwrap_or_default())
    };
    assert_eq!(shown(1, None).await, ("IN_PROGRESS".to_owned(), 1, String::new()));
    assert_eq!(shown(3, None).await, ("READY".to_owned(), 2, String::new()));
    assert_eq!(shown(1, Some("why")).await, ("FAILED".to_owned(), 1, "why".to_owned()));
    assert_eq!(
        said(world.registry.put_provisioned_concurrency_config(&world.caller, put("$LATEST")).await),
        "400 InvalidParameterValueException: Provisioned Concurrency Configs cannot be applied to unpublished function \
         versions."
    );
    assert_eq!(
        said(world.registry.put_provisioned_concurrency_config(&world.caller, put("prod")).await),
        "404 ResourceNotFoundException: Cannot find alias arn: arn:aws:lambda:us-east-1:000000000000:function:f:prod"
    );
}

#[tokio::test]
async fn tags_that_are_refused() {
    let world = World::new().await;
    world.function("f").await;
    let arn = "arn:aws:lambda:us-east-1:000000000000:function";
    let tag = |resource: String, tags: &[&str]| TagResourceRequest {
        resource,
        tags: tags.iter().map(|key| ((*key).to_owned(), String::new())).collect::<BTreeMap<_, _>>(),
    };
    for (request, text) in [
        (tag(format!("{arn}:none"), &["a"]), format!("404 ResourceNotFoundException: Function not found: {arn}:none")),
        (
            tag(format!("{arn}:f:1"), &["a"]),
            "400 InvalidParameterValueException: Tags on function aliases and versions are not supported. Please \
             specify a function ARN."
                .to_owned(),
        ),
        (
            tag(format!("{arn}:f"), &[]),
            "400 InvalidParameterValueException: An error occurred and the request cannot be processed.".to_owned(),
        ),
    ] {
        assert_eq!(said(world.registry.tag_resource(&world.caller, request).await), text);
    }
}

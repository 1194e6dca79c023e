use std::collections::BTreeMap;

use lambent_model::Qualifier;

use super::*;

fn create(name: &str, version: &str, weights: &[(&str, f64)]) -> CreateAliasRequest {
    let weights: BTreeMap<String, f64> =
        weights.iter().map(|(version, share)| ((*version).to_owned(), *share)).collect();
    CreateAliasRequest {
        function_name: "f".to_owned(),
        name: name.to_owned(),
        function_version: version.to_owned(),
        description: None,
        routing_config: Some(AliasRoutingConfiguration { additional_version_weights: Some(weights) }),
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.function("f").await;
    world.publish("f").await;
    world.retime("f", 7).await;
    world.publish("f").await;
    world
}

#[tokio::test]
async fn an_alias_splits_its_calls() {
    let world = world().await;
    let made = world.registry.create_alias(&world.caller, create("prod", "1", &[("2", 0.25)])).await.unwrap();
    assert_eq!(made.alias_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:function:f:prod"));
    assert_eq!(serde_json::to_value(&made).unwrap()["RoutingConfig"]["AdditionalVersionWeights"]["2"], 0.25);
    let qualifier: Qualifier = "prod".parse().unwrap();
    let resolved = world.registry.resolve(&world.arn("f"), Some(&qualifier)).unwrap();
    assert_eq!(resolved.version.version.to_string(), "1");
    let (other, share) = resolved.additional.unwrap();
    assert_eq!((other.version.to_string().as_str(), share), ("2", 0.25));
    assert_eq!(resolved.invoked_arn, "arn:aws:lambda:us-east-1:000000000000:function:f:prod");

    let update = |revision_id: Option<String>| UpdateAliasRequest {
        function_name: "f".to_owned(),
        name: "prod".to_owned(),
        function_version: Some("2".to_owned()),
        routing_config: Some(AliasRoutingConfiguration::default()),
        revision_id,
        ..UpdateAliasRequest::default()
    };
    let updated = world.registry.update_alias(&world.caller, update(made.revision_id.clone())).await.unwrap();
    assert_eq!((updated.function_version.as_deref(), &updated.routing_config), (Some("2"), &None));
    assert_eq!(
        said(world.registry.update_alias(&world.caller, update(made.revision_id)).await),
        "412 PreconditionFailedException: The Revision Id provided does not match the latest Revision Id. Call the \
         GetFunction/GetAlias API to retrieve the latest Revision Id"
    );
    let gone = DeleteFunctionRequest { function_name: "f".to_owned(), qualifier: Some("2".to_owned()) };
    assert_eq!(
        said(world.registry.delete_function(&world.caller, gone).await),
        "409 ResourceConflictException: Unable to delete version because the following aliases reference it: [prod]"
    );
}

#[tokio::test]
async fn what_no_alias_can_be() {
    let world = world().await;
    world.registry.create_alias(&world.caller, create("taken", "1", &[])).await.unwrap();
    let not_found =
        "404 ResourceNotFoundException: Function not found: arn:aws:lambda:us-east-1:000000000000:function:f:10";
    for (request, text) in [
        (create("a", "10", &[]), not_found),
        (create("a", "1", &[("10", 0.5)]), not_found),
        (
            create("taken", "1", &[]),
            "409 ResourceConflictException: Alias already exists: \
             arn:aws:lambda:us-east-1:000000000000:function:f:taken",
        ),
        (
            create("a", "1", &[("1", 0.5)]),
            "400 InvalidParameterValueException: Invalid function version 1. Function version 1 is already included in \
             routing configuration.",
        ),
        (
            create("a", "$LATEST", &[("1", 0.5)]),
            "400 InvalidParameterValueException: $LATEST is not supported for an alias pointing to more than 1 version",
        ),
        (
            create("a", "1", &[("2", 0.5), ("3", 0.1)]),
            "400 InvalidParameterValueException: Number of items in AdditionalVersionWeights cannot be greater than 1",
        ),
        (
            create("a", "1", &[("2", 2.0)]),
            "400 ValidationException: 1 validation error detected: Value '{2=2.0}' at \
             'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: \
             [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, \
             Member must not be null]",
        ),
    ] {
        assert_eq!(said(world.registry.create_alias(&world.caller, request).await), text);
    }
    let get = GetAliasRequest { function_name: "f".to_owned(), name: "none".to_owned() };
    assert_eq!(
        said(world.registry.get_alias(&world.caller, get).await),
        "404 ResourceNotFoundException: Cannot find alias arn: arn:aws:lambda:us-east-1:000000000000:function:f:none"
    );
}

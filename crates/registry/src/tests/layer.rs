use super::*;

async fn publish(world: &World, name: &str) -> GetLayerVersionResponse {
    let request = PublishLayerVersionRequest {
        layer_name: name.to_owned(),
        content: LayerVersionContentInput { zip_file: Some(Blob(zip(name.as_bytes()))), ..Default::default() },
        compatible_runtimes: Some(vec!["python3.12".to_owned()]),
        ..PublishLayerVersionRequest::default()
    };
    world.registry.publish_layer_version(&world.caller, request).await.unwrap()
}

fn using(layers: &[&str]) -> CreateFunctionRequest {
    CreateFunctionRequest { layers: Some(layers.iter().map(|arn| (*arn).to_owned()).collect()), ..World::request("f") }
}

#[tokio::test]
async fn layers_are_counted_used_and_deleted() {
    let world = World::new().await;
    assert_eq!(publish(&world, "lib").await.version, Some(1));
    let second = publish(&world, "lib").await;
    assert_eq!(second.layer_version_arn.as_deref(), Some("arn:aws:lambda:us-east-1:000000000000:layer:lib:2"));
    let by_arn = GetLayerVersionByArnRequest { arn: second.layer_version_arn.clone().unwrap() };
    assert_eq!(world.registry.get_layer_version_by_arn(&world.caller, by_arn).await.unwrap().version, Some(2));
    let created = using(&["arn:aws:lambda:us-east-1:000000000000:layer:lib:2"]);
    let created = world.registry.create_function(&world.caller, created).await.unwrap();
    assert_eq!(created.layers.unwrap()[0].arn, second.layer_version_arn);
    let delete = DeleteLayerVersionRequest { layer_name: "lib".to_owned(), version_number: 2 };
    world.registry.delete_layer_version(&world.caller, delete.clone()).await.unwrap();
    world.registry.delete_layer_version(&world.caller, delete).await.unwrap();
    assert_eq!(publish(&world, "lib").await.version, Some(3), "numbers are not used twice");
    let list = ListLayersRequest { compatible_runtime: Some("python3.12".to_owned()), ..Default::default() };
    let listed = world.registry.list_layers(&world.caller, list).await.unwrap().layers.unwrap();
    assert_eq!(listed[0].latest_matching_version.as_ref().unwrap().version, Some(3));
    let list = ListLayerVersionsRequest { layer_name: "lib".to_owned(), ..Default::default() };
    let versions = world.registry.list_layer_versions(&world.caller, list).await.unwrap().layer_versions.unwrap();
    assert_eq!(versions.iter().map(|version| version.version.unwrap()).collect::<Vec<_>>(), [3, 1]);
    // What a function uses outlives the layer version.
    world.registry.sweep().await.unwrap();
    let used = world.registry.resolve(&world.arn("f"), None).unwrap().version.layers[0].code.digest;
    assert!(world.store.blobs.get(used).await.unwrap().is_some());
}

#[tokio::test]
async fn what_layers_a_function_cannot_use() {
    let world = World::new().await;
    publish(&world, "lib").await;
    publish(&world, "lib").await;
    let lib = "arn:aws:lambda:us-east-1:000000000000:layer:lib";
    for (layers, text) in [
        (
            vec![format!("{lib}:9")],
            format!("400 InvalidParameterValueException: Layer version {lib}:9 does not exist."),
        ),
        (
            vec![format!("{lib}:1"), format!("{lib}:2")],
            format!(
                "400 InvalidParameterValueException: Two different versions of the same layer are not allowed to be \
                 referenced in the same function. {lib}:1 and {lib}:2 are versions of the same layer."
            ),
        ),
        (
            vec![format!("{lib}:1"); 6],
            "400 InvalidParameterValueException: Cannot reference more than 5 layers.".to_owned(),
        ),
        (
            vec!["arn:aws:lambda:eu-west-1:000000000000:layer:lib:1".to_owned()],
            "400 InvalidParameterValueException: Layers are not in the same region as the function. Layers are \
             expected to be in region us-east-1."
                .to_owned(),
        ),
    ] {
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        assert_eq!(said(world.registry.create_function(&world.caller, using(&layers)).await), text);
    }
}

#[tokio::test]
async fn another_account_uses_a_layer_when_its_policy_says_so() {
    let world = World::new().await;
    publish(&world, "lib").await;
    let lib = "arn:aws:lambda:us-east-1:000000000000:layer:lib:1";
    let other = caller("111122223333");
    assert_eq!(
        said(world.registry.create_function(&other, using(&[lib])).await),
        format!(
            "403 AccessDeniedException: User: arn:aws:iam::111122223333:user/u is not authorized to perform: \
             lambda:GetLayerVersion on resource: {lib} because no resource-based policy allows the \
             lambda:GetLayerVersion action"
        )
    );
    let add = AddLayerVersionPermissionRequest {
        layer_name: "lib".to_owned(),
        version_number: 1,
        statement_id: "s".to_owned(),
        action: "lambda:GetLayerVersion".to_owned(),
        principal: "111122223333".to_owned(),
        ..Default::default()
    };
    let added = world.registry.add_layer_version_permission(&world.caller, add.clone()).await.unwrap();
    assert_eq!(
        added.statement.unwrap(),
        format!(
            r#"{{"Sid":"s","Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::111122223333:root"}},"Action":"lambda:GetLayerVersion","Resource":"{lib}"}}"#
        )
    );
    world.registry.create_function(&other, using(&[lib])).await.unwrap();
    assert_eq!(
        said(world.registry.add_layer_version_permission(&world.caller, add).await),
        "409 ResourceConflictException: The statement id (s) provided already exists. Please provide a new statement \
         id, or remove the existing statement."
    );
    let remove = RemoveLayerVersionPermissionRequest {
        layer_name: "lib".to_owned(),
        version_number: 1,
        statement_id: "s".to_owned(),
        revision_id: added.revision_id,
    };
    world.registry.remove_layer_version_permission(&world.caller, remove).await.unwrap();
    let get = GetLayerVersionPolicyRequest { layer_name: "lib".to_owned(), version_number: 1 };
    assert_eq!(
        said(world.registry.get_layer_version_policy(&world.caller, get).await),
        "404 ResourceNotFoundException: No policy is associated with the given resource."
    );
}

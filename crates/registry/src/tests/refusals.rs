//! What AWS says no to, in its words.

use std::collections::BTreeMap;

use super::*;

#[tokio::test]
async fn creations() {
    let world = World::new().await;
    world.function("taken").await;
    let with = |change: &dyn Fn(&mut CreateFunctionRequest)| {
        let mut request = World::request("f");
        change(&mut request);
        request
    };
    let variables = |pairs: &[(&str, &str)]| {
        let variables: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Some(Environment { variables: Some(variables) })
    };
    let begin = "400 InvalidParameterValueException: ";
    let long = "x".repeat(4_096);
    let environment = "Lambda was unable to configure your environment variables because the environment variables you \
                       have provided";
    let cases: Vec<(CreateFunctionRequest, String)> = vec![
        (World::request("taken"), "409 ResourceConflictException: Function already exist: taken".to_owned()),
        (
            with(&|r| r.runtime = Some("python3.13".to_owned())),
            format!(
                "{begin}The runtime python3.13 is not on this machine. It has: [nodejs20.x, provided.al2, \
                 provided.al2023, python3.12, python3.8]."
            ),
        ),
        (
            with(&|r| r.runtime = Some("nodejs12.x".to_owned())),
            format!(
                "{begin}The runtime parameter of nodejs12.x is no longer supported for creating or updating AWS Lambda \
                 functions. We recommend you use a supported runtime while creating or updating functions."
            ),
        ),
        (
            with(&|r| r.runtime = Some("basic".to_owned())),
            format!(
                "{begin}Value basic at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: \
                 [nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, \
                 python3.10, python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, \
                 dotnet10, dotnet8, java11, dotnet6, nodejs18.x, provided.al2, java8.al2] or be a valid ARN"
            ),
        ),
        (
            with(&|r| r.handler = None),
            format!(
                "{begin}Runtime and Handler are mandatory parameters for functions created with deployment packages."
            ),
        ),
        (
            with(&|r| r.code.zip_file = Some(Blob(Bytes::from_static(b"no zip")))),
            format!("{begin}Could not unzip uploaded file. Please check your file, then try to upload again."),
        ),
        (
            with(&|r| r.code.zip_file = Some(Blob(vec![0; 52_428_801].into()))),
            "413 RequestEntityTooLargeException: Zipped size must be smaller than 52428800 bytes".to_owned(),
        ),
        (with(&|r| r.code = FunctionCode::default()), format!("{begin}Please provide a source for function code.")),
        (
            with(&|r| {
                r.code = FunctionCode {
                    s3_bucket: Some("bucket".to_owned()),
                    s3_key: Some("other".to_owned()),
                    ..FunctionCode::default()
                }
            }),
            format!(
                "{begin}Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key \
                 does not exist."
            ),
        ),
        (
            with(&|r| r.environment = variables(&[("AWS_REGION", "x"), ("A", "b"), ("_HANDLER", "x")])),
            format!(
                "{begin}{environment} contains reserved keys that are currently not supported for modification. \
                 Reserved keys used in this request: AWS_REGION, _HANDLER"
            ),
        ),
        (
            with(&|r| r.environment = variables(&[("LARGE", &long)])),
            format!("{begin}{environment} exceeded the 4KB limit. String measured: {{\"LARGE\":\"{long}\"}}"),
        ),
        (
            with(&|r| {
                r.logging_config = Some(LoggingConfig {
                    log_format: Some("Text".to_owned()),
                    system_log_level: Some("INFO".to_owned()),
                    ..LoggingConfig::default()
                })
            }),
            format!(
                "{begin}LogLevel is not supported when LogFormat is set to \"Text\". Remove LogLevel from your request \
                 or change the LogFormat to \"JSON\" and try again."
            ),
        ),
        (
            with(&|r| r.tags = Some((0..51).map(|n| (n.to_string(), String::new())).collect())),
            format!("{begin}Number of tags exceeds resource tag limit."),
        ),
        (
            with(&|r| r.tags = Some([("aws:x".to_owned(), String::new())].into())),
            format!("{begin}aws: prefixed tag key names are not allowed for external use."),
        ),
        (
            with(&|r| r.package_type = Some(PackageType::Image)),
            "501 NotImplementedException: PackageType Image is not built yet".to_owned(),
        ),
        (
            with(&|r| {
                r.vpc_config = Some(VpcConfig { subnet_ids: Some(vec!["subnet-1".to_owned()]), ..VpcConfig::default() })
            }),
            "501 NotImplementedException: VpcConfig is not built yet".to_owned(),
        ),
        (
            with(&|r| {
                r.code_signing_config_arn =
                    Some("arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-1".to_owned())
            }),
            "404 CodeSigningConfigNotFoundException: The code signing configuration cannot be found. Check that the \
             provided configuration is not deleted: arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-1."
                .to_owned(),
        ),
        (
            with(&|r| r.function_name = "n".repeat(65)),
            format!(
                "{begin}1 validation error detected: Value '{}' at 'functionName' failed to satisfy constraint: Member \
                 must have length less than or equal to 64",
                "n".repeat(65)
            ),
        ),
    ];
    for (request, text) in cases {
        assert_eq!(said(world.registry.create_function(&world.caller, request).await), text);
    }
    let empty = ListFunctionsRequest::default();
    let functions = world.registry.list_functions(&world.caller, empty).await.unwrap().functions.unwrap();
    assert_eq!(functions.len(), 1, "nothing came of the refused ones");
}

#[tokio::test]
async fn names_and_qualifiers() {
    let world = World::new().await;
    world.function("f").await;
    let arn = "arn:aws:lambda:us-east-1:000000000000:function";
    for (name, qualifier, text) in [
        ("none", None, format!("404 ResourceNotFoundException: Function not found: {arn}:none")),
        ("none:$LATEST", None, format!("404 ResourceNotFoundException: Function not found: {arn}:none:$LATEST")),
        ("f", Some("7"), format!("404 ResourceNotFoundException: Function not found: {arn}:f:7")),
        ("f", Some("prod"), format!("404 ResourceNotFoundException: Function not found: {arn}:f:prod")),
        (
            "f:1",
            Some("2"),
            "400 InvalidParameterValueException: The derived qualifier from the function name does not match the \
             specified qualifier."
                .to_owned(),
        ),
        (
            "arn:aws:lambda:eu-west-1:000000000000:function:f",
            None,
            "404 ResourceNotFoundException: Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
                .to_owned(),
        ),
        (
            "111122223333:function:f",
            None,
            "403 AccessDeniedException: User: arn:aws:iam::000000000000:user/u is not authorized to perform: \
             lambda:GetFunction on resource: arn:aws:lambda:us-east-1:111122223333:function:f because no \
             resource-based policy allows the lambda:GetFunction action"
                .to_owned(),
        ),
    ] {
        let request = GetFunctionRequest { function_name: name.to_owned(), qualifier: qualifier.map(str::to_owned) };
        assert_eq!(said(world.registry.get_function(&world.caller, request).await), text);
    }
}

#[tokio::test]
async fn publications_and_deletions() {
    let world = World::new().await;
    let function = world.function("f").await;
    let publish = |sha: Option<&str>, revision: Option<&str>| PublishVersionRequest {
        function_name: "f".to_owned(),
        code_sha256: sha.map(str::to_owned),
        revision_id: revision.map(str::to_owned),
        ..PublishVersionRequest::default()
    };
    let sha = function.code_sha256.unwrap();
    assert_eq!(
        said(world.registry.publish_version(&world.caller, publish(Some("x"), None)).await),
        format!(
            "400 InvalidParameterValueException: CodeSHA256 (x) is different from current CodeSHA256 in $LATEST \
             ({sha}). Please try again with the CodeSHA256 in $LATEST."
        )
    );
    assert_eq!(
        said(world.registry.publish_version(&world.caller, publish(None, Some("x"))).await),
        "412 PreconditionFailedException: The Revision Id provided does not match the latest Revision Id. Call the \
         GetFunction/GetAlias API to retrieve the latest Revision Id"
    );
    world.registry.publish_version(&world.caller, publish(Some(&sha), function.revision_id.as_deref())).await.unwrap();
    for (qualifier, text) in [
        ("$LATEST", "$LATEST version cannot be deleted without deleting the function."),
        ("prod", "Deletion of aliases is not currently supported."),
    ] {
        let request = DeleteFunctionRequest { function_name: "f".to_owned(), qualifier: Some(qualifier.to_owned()) };
        let text = format!("400 InvalidParameterValueException: {text}");
        assert_eq!(said(world.registry.delete_function(&world.caller, request).await), text);
    }
    let missing = DeleteFunctionRequest { function_name: "f".to_owned(), qualifier: Some("77".to_owned()) };
    assert_eq!(world.registry.delete_function(&world.caller, missing).await.unwrap().status_code, Some(204));
}

#[tokio::test]
async fn enforced_signatures_refuse_all_code() {
    let world = World::new().await;
    let config = CreateCodeSigningConfigRequest {
        allowed_publishers: AllowedPublishers { signing_profile_version_arns: vec!["arn:aws:signer:x".to_owned()] },
        code_signing_policies: Some(CodeSigningPolicies {
            untrusted_artifact_on_deployment: Some("Enforce".to_owned()),
        }),
        ..CreateCodeSigningConfigRequest::default()
    };
    let config = world.registry.create_code_signing_config(&world.caller, config).await.unwrap().code_signing_config;
    let mut request = World::request("f");
    request.code_signing_config_arn = Some(config.code_signing_config_arn);
    assert_eq!(
        said(world.registry.create_function(&world.caller, request).await),
        "400 CodeVerificationFailedException: The code signature failed one or more of the validation checks for \
         signature mismatch or expiry, and the code signing policy is set to ENFORCE. Lambda blocks the deployment."
    );
}

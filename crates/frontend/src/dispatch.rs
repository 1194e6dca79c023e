//! Control-plane operations: which method of the registry answers which operation of the model.

use std::sync::Arc;

use lambent_registry::shape::*;
use lambent_registry::{Caller, Registry};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Operations that this system has beside those of [`call`]; they carry payloads and do not go through JSON values.
pub(crate) const INVOCATIONS: [&str; 3] = ["Invoke", "InvokeAsync", "InvokeWithResponseStream"];

macro_rules! operations {
    ($($name:literal => $method:ident($request:ident) -> $response:ty,)*) => {
        /// Operations that the registry answers.
        #[cfg_attr(not(test), expect(dead_code, reason = "the table test reads it"))]
        pub(crate) const BUILT: &[&str] = &[$($name),*];

        /// Answers `operation`, whose input was checked against the model. None: it is not built.
        pub(crate) async fn call(
            registry: &Arc<Registry>,
            caller: &Caller,
            operation: &str,
            input: Map<String, Value>,
        ) -> Option<Result<Value, Failure>> {
            match operation {
                $($name => Some(async {
                    let request: $request = typed(input)?;
                    let response: $response = registry.$method(caller, request).await?;
                    written(response)
                }.await),)*
                _ => None,
            }
        }

        /// What the model lacks of the inputs and outputs: operation, of its input, of its output.
        #[cfg(test)]
        pub(crate) fn unknown_members() -> Vec<(&'static str, Vec<String>, Vec<String>)> {
            use crate::probe::unknown;
            vec![$(($name, unknown::<$request>($name, |of| &of.input), unknown::<$response>($name, |of| &of.output))),*]
        }
    };
}

operations! {
    "AddLayerVersionPermission" => add_layer_version_permission(AddLayerVersionPermissionRequest) -> AddLayerVersionPermissionResponse,
    "AddPermission" => add_permission(AddPermissionRequest) -> AddPermissionResponse,
    "CreateAlias" => create_alias(CreateAliasRequest) -> AliasConfiguration,
    "CreateCodeSigningConfig" => create_code_signing_config(CreateCodeSigningConfigRequest) -> CreateCodeSigningConfigResponse,
    "CreateEventSourceMapping" => create_event_source_mapping(CreateEventSourceMappingRequest) -> EventSourceMappingConfiguration,
    "CreateFunction" => create_function(CreateFunctionRequest) -> FunctionConfiguration,
    "CreateFunctionUrlConfig" => create_function_url_config(CreateFunctionUrlConfigRequest) -> FunctionUrlConfig,
    "DeleteAlias" => delete_alias(DeleteAliasRequest) -> (),
    "DeleteCodeSigningConfig" => delete_code_signing_config(DeleteCodeSigningConfigRequest) -> DeleteCodeSigningConfigResponse,
    "DeleteEventSourceMapping" => delete_event_source_mapping(DeleteEventSourceMappingRequest) -> EventSourceMappingConfiguration,
    "DeleteFunction" => delete_function(DeleteFunctionRequest) -> DeleteFunctionResponse,
    "DeleteFunctionCodeSigningConfig" => delete_function_code_signing_config(DeleteFunctionCodeSigningConfigRequest) -> (),
    "DeleteFunctionConcurrency" => delete_function_concurrency(DeleteFunctionConcurrencyRequest) -> (),
    "DeleteFunctionEventInvokeConfig" => delete_function_event_invoke_config(DeleteFunctionEventInvokeConfigRequest) -> (),
    "DeleteFunctionUrlConfig" => delete_function_url_config(DeleteFunctionUrlConfigRequest) -> (),
    "DeleteLayerVersion" => delete_layer_version(DeleteLayerVersionRequest) -> (),
    "DeleteProvisionedConcurrencyConfig" => delete_provisioned_concurrency_config(DeleteProvisionedConcurrencyConfigRequest) -> (),
    "DeleteResourcePolicy" => delete_resource_policy(DeleteResourcePolicyRequest) -> (),
    "GetAccountSettings" => get_account_settings(GetAccountSettingsRequest) -> GetAccountSettingsResponse,
    "GetAlias" => get_alias(GetAliasRequest) -> AliasConfiguration,
    "GetCodeSigningConfig" => get_code_signing_config(GetCodeSigningConfigRequest) -> GetCodeSigningConfigResponse,
    "GetEventSourceMapping" => get_event_source_mapping(GetEventSourceMappingRequest) -> EventSourceMappingConfiguration,
    "GetFunction" => get_function(GetFunctionRequest) -> GetFunctionResponse,
    "GetFunctionCodeSigningConfig" => get_function_code_signing_config(GetFunctionCodeSigningConfigRequest) -> GetFunctionCodeSigningConfigResponse,
    "GetFunctionConcurrency" => get_function_concurrency(GetFunctionConcurrencyRequest) -> GetFunctionConcurrencyResponse,
    "GetFunctionConfiguration" => get_function_configuration(GetFunctionConfigurationRequest) -> FunctionConfiguration,
    "GetFunctionEventInvokeConfig" => get_function_event_invoke_config(GetFunctionEventInvokeConfigRequest) -> FunctionEventInvokeConfig,
    "GetFunctionRecursionConfig" => get_function_recursion_config(GetFunctionRecursionConfigRequest) -> GetFunctionRecursionConfigResponse,
    "GetFunctionUrlConfig" => get_function_url_config(GetFunctionUrlConfigRequest) -> FunctionUrlConfig,
    "GetLayerVersion" => get_layer_version(GetLayerVersionRequest) -> GetLayerVersionResponse,
    "GetLayerVersionByArn" => get_layer_version_by_arn(GetLayerVersionByArnRequest) -> GetLayerVersionResponse,
    "GetLayerVersionPolicy" => get_layer_version_policy(GetLayerVersionPolicyRequest) -> GetLayerVersionPolicyResponse,
    "GetPolicy" => get_policy(GetPolicyRequest) -> GetPolicyResponse,
    "GetProvisionedConcurrencyConfig" => get_provisioned_concurrency_config(GetProvisionedConcurrencyConfigRequest) -> ProvisionedConcurrency,
    "GetResourcePolicy" => get_resource_policy(GetResourcePolicyRequest) -> GetResourcePolicyResponse,
    "GetRuntimeManagementConfig" => get_runtime_management_config(GetRuntimeManagementConfigRequest) -> GetRuntimeManagementConfigResponse,
    "ListAliases" => list_aliases(ListAliasesRequest) -> ListAliasesResponse,
    "ListCodeSigningConfigs" => list_code_signing_configs(ListCodeSigningConfigsRequest) -> ListCodeSigningConfigsResponse,
    "ListEventSourceMappings" => list_event_source_mappings(ListEventSourceMappingsRequest) -> ListEventSourceMappingsResponse,
    "ListFunctionEventInvokeConfigs" => list_function_event_invoke_configs(ListFunctionEventInvokeConfigsRequest) -> ListFunctionEventInvokeConfigsResponse,
    "ListFunctionUrlConfigs" => list_function_url_configs(ListFunctionUrlConfigsRequest) -> ListFunctionUrlConfigsResponse,
    "ListFunctions" => list_functions(ListFunctionsRequest) -> ListFunctionsResponse,
    "ListFunctionsByCodeSigningConfig" => list_functions_by_code_signing_config(ListFunctionsByCodeSigningConfigRequest) -> ListFunctionsByCodeSigningConfigResponse,
    "ListLayerVersions" => list_layer_versions(ListLayerVersionsRequest) -> ListLayerVersionsResponse,
    "ListLayers" => list_layers(ListLayersRequest) -> ListLayersResponse,
    "ListProvisionedConcurrencyConfigs" => list_provisioned_concurrency_configs(ListProvisionedConcurrencyConfigsRequest) -> ListProvisionedConcurrencyConfigsResponse,
    "ListTags" => list_tags(ListTagsRequest) -> ListTagsResponse,
    "ListVersionsByFunction" => list_versions_by_function(ListVersionsByFunctionRequest) -> ListVersionsByFunctionResponse,
    "PublishLayerVersion" => publish_layer_version(PublishLayerVersionRequest) -> GetLayerVersionResponse,
    "PublishVersion" => publish_version(PublishVersionRequest) -> FunctionConfiguration,
    "PutFunctionCodeSigningConfig" => put_function_code_signing_config(PutFunctionCodeSigningConfigRequest) -> PutFunctionCodeSigningConfigResponse,
    "PutFunctionConcurrency" => put_function_concurrency(PutFunctionConcurrencyRequest) -> Concurrency,
    "PutFunctionEventInvokeConfig" => put_function_event_invoke_config(PutFunctionEventInvokeConfigRequest) -> FunctionEventInvokeConfig,
    "PutFunctionRecursionConfig" => put_function_recursion_config(PutFunctionRecursionConfigRequest) -> PutFunctionRecursionConfigResponse,
    "PutProvisionedConcurrencyConfig" => put_provisioned_concurrency_config(PutProvisionedConcurrencyConfigRequest) -> ProvisionedConcurrency,
    "PutResourcePolicy" => put_resource_policy(PutResourcePolicyRequest) -> PutResourcePolicyResponse,
    "PutRuntimeManagementConfig" => put_runtime_management_config(PutRuntimeManagementConfigRequest) -> PutRuntimeManagementConfigResponse,
    "RemoveLayerVersionPermission" => remove_layer_version_permission(RemoveLayerVersionPermissionRequest) -> (),
    "RemovePermission" => remove_permission(RemovePermissionRequest) -> (),
    "TagResource" => tag_resource(TagResourceRequest) -> (),
    "UntagResource" => untag_resource(UntagResourceRequest) -> (),
    "UpdateAlias" => update_alias(UpdateAliasRequest) -> AliasConfiguration,
    "UpdateCodeSigningConfig" => update_code_signing_config(UpdateCodeSigningConfigRequest) -> UpdateCodeSigningConfigResponse,
    "UpdateEventSourceMapping" => update_event_source_mapping(UpdateEventSourceMappingRequest) -> EventSourceMappingConfiguration,
    "UpdateFunctionCode" => update_function_code(UpdateFunctionCodeRequest) -> FunctionConfiguration,
    "UpdateFunctionConfiguration" => update_function_configuration(UpdateFunctionConfigurationRequest) -> FunctionConfiguration,
    "UpdateFunctionEventInvokeConfig" => update_function_event_invoke_config(UpdateFunctionEventInvokeConfigRequest) -> FunctionEventInvokeConfig,
    "UpdateFunctionUrlConfig" => update_function_url_config(UpdateFunctionUrlConfigRequest) -> FunctionUrlConfig,
}

/// Lambda's own words for a layer version that no number can be; the registry's type has no place for it.
pub(crate) fn check_layer_version(input: &Map<String, Value>) -> Result<(), Failure> {
    if input.get("VersionNumber").and_then(Value::as_i64).is_some_and(|number| number < 1) {
        return Err(Failure::invalid_parameter("Layer Version Cannot be less than 1"));
    }
    Ok(())
}

fn typed<T: serde::de::DeserializeOwned>(input: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(input)).map_err(|error| Failure::serialization(error.to_string()))
}

fn written(output: impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(output).map_err(|error| {
        tracing::error!(%error, "an output cannot be written");
        Failure::internal()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LAMBDA;

    /// Operations of the model that answer 501 for now. Whoever builds one takes it off this list.
    const NOT_BUILT: [&str; 20] = [
        "CheckpointDurableExecution",
        "CreateCapacityProvider",
        "DeleteCapacityProvider",
        "DeleteDurableExecution",
        "GetCapacityProvider",
        "GetDurableExecution",
        "GetDurableExecutionHistory",
        "GetDurableExecutionState",
        "GetFunctionScalingConfig",
        "ListCapacityProviders",
        "ListDurableExecutionsByFunction",
        "ListFunctionVersionsByCapacityProvider",
        "PauseDurableExecution",
        "PutFunctionScalingConfig",
        "ResumeDurableExecution",
        "SendDurableExecutionCallbackFailure",
        "SendDurableExecutionCallbackHeartbeat",
        "SendDurableExecutionCallbackSuccess",
        "StopDurableExecution",
        "UpdateCapacityProvider",
    ];

    #[test]
    fn every_operation_of_the_model_is_built_or_said_not_to_be() {
        let mut told: Vec<&str> = BUILT.iter().chain(&INVOCATIONS).chain(&NOT_BUILT).copied().collect();
        told.sort_unstable();
        let mut there: Vec<&str> = LAMBDA.operations.keys().map(String::as_str).collect();
        there.sort_unstable();
        assert_eq!(told, there);
    }

    /// Members that a type shared between operations has and one operation's shape has not; they are left out of answers.
    const SHARED: [(&str, &str); 1] = [("CreateFunctionUrlConfig", "LastModifiedTime")];

    #[test]
    fn no_input_or_output_has_a_member_that_the_model_does_not_know() {
        let mut outputs = Vec::new();
        for (operation, input, output) in unknown_members() {
            assert_eq!(input, Vec::<String>::new(), "{operation}");
            outputs.extend(output.into_iter().map(|member| (operation, member)));
        }
        assert_eq!(outputs.iter().map(|(operation, member)| (*operation, member.as_str())).collect::<Vec<_>>(), SHARED);
    }
}

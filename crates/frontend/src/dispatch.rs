//! Control-plane operations: which method of the registry answers which operation of the model.

use std::sync::Arc;

use lambent_registry::shape::*;
use lambent_registry::{Caller, Registry};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Operations that this system has beside those of [`call`]; they carry payloads and do not go through JSON values.
pub(crate) const INVOCATIONS: [&str; 2] = ["Invoke", "InvokeWithResponseStream"];

macro_rules! operations {
    ($($name:literal => $method:ident($request:ident),)*) => {
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
                    written(registry.$method(caller, request).await?)
                }.await),)*
                _ => None,
            }
        }
    };
}

operations! {
    "AddLayerVersionPermission" => add_layer_version_permission(AddLayerVersionPermissionRequest),
    "AddPermission" => add_permission(AddPermissionRequest),
    "CreateAlias" => create_alias(CreateAliasRequest),
    "CreateCodeSigningConfig" => create_code_signing_config(CreateCodeSigningConfigRequest),
    "CreateEventSourceMapping" => create_event_source_mapping(CreateEventSourceMappingRequest),
    "CreateFunction" => create_function(CreateFunctionRequest),
    "CreateFunctionUrlConfig" => create_function_url_config(CreateFunctionUrlConfigRequest),
    "DeleteAlias" => delete_alias(DeleteAliasRequest),
    "DeleteCodeSigningConfig" => delete_code_signing_config(DeleteCodeSigningConfigRequest),
    "DeleteEventSourceMapping" => delete_event_source_mapping(DeleteEventSourceMappingRequest),
    "DeleteFunction" => delete_function(DeleteFunctionRequest),
    "DeleteFunctionCodeSigningConfig" => delete_function_code_signing_config(DeleteFunctionCodeSigningConfigRequest),
    "DeleteFunctionConcurrency" => delete_function_concurrency(DeleteFunctionConcurrencyRequest),
    "DeleteFunctionUrlConfig" => delete_function_url_config(DeleteFunctionUrlConfigRequest),
    "DeleteLayerVersion" => delete_layer_version(DeleteLayerVersionRequest),
    "DeleteProvisionedConcurrencyConfig" => delete_provisioned_concurrency_config(DeleteProvisionedConcurrencyConfigRequest),
    "DeleteResourcePolicy" => delete_resource_policy(DeleteResourcePolicyRequest),
    "GetAccountSettings" => get_account_settings(GetAccountSettingsRequest),
    "GetAlias" => get_alias(GetAliasRequest),
    "GetCodeSigningConfig" => get_code_signing_config(GetCodeSigningConfigRequest),
    "GetEventSourceMapping" => get_event_source_mapping(GetEventSourceMappingRequest),
    "GetFunction" => get_function(GetFunctionRequest),
    "GetFunctionCodeSigningConfig" => get_function_code_signing_config(GetFunctionCodeSigningConfigRequest),
    "GetFunctionConcurrency" => get_function_concurrency(GetFunctionConcurrencyRequest),
    "GetFunctionConfiguration" => get_function_configuration(GetFunctionConfigurationRequest),
    "GetFunctionRecursionConfig" => get_function_recursion_config(GetFunctionRecursionConfigRequest),
    "GetFunctionUrlConfig" => get_function_url_config(GetFunctionUrlConfigRequest),
    "GetLayerVersion" => get_layer_version(GetLayerVersionRequest),
    "GetLayerVersionByArn" => get_layer_version_by_arn(GetLayerVersionByArnRequest),
    "GetLayerVersionPolicy" => get_layer_version_policy(GetLayerVersionPolicyRequest),
    "GetPolicy" => get_policy(GetPolicyRequest),
    "GetProvisionedConcurrencyConfig" => get_provisioned_concurrency_config(GetProvisionedConcurrencyConfigRequest),
    "GetResourcePolicy" => get_resource_policy(GetResourcePolicyRequest),
    "GetRuntimeManagementConfig" => get_runtime_management_config(GetRuntimeManagementConfigRequest),
    "ListAliases" => list_aliases(ListAliasesRequest),
    "ListCodeSigningConfigs" => list_code_signing_configs(ListCodeSigningConfigsRequest),
    "ListEventSourceMappings" => list_event_source_mappings(ListEventSourceMappingsRequest),
    "ListFunctionUrlConfigs" => list_function_url_configs(ListFunctionUrlConfigsRequest),
    "ListFunctions" => list_functions(ListFunctionsRequest),
    "ListFunctionsByCodeSigningConfig" => list_functions_by_code_signing_config(ListFunctionsByCodeSigningConfigRequest),
    "ListLayerVersions" => list_layer_versions(ListLayerVersionsRequest),
    "ListLayers" => list_layers(ListLayersRequest),
    "ListProvisionedConcurrencyConfigs" => list_provisioned_concurrency_configs(ListProvisionedConcurrencyConfigsRequest),
    "ListTags" => list_tags(ListTagsRequest),
    "ListVersionsByFunction" => list_versions_by_function(ListVersionsByFunctionRequest),
    "PublishLayerVersion" => publish_layer_version(PublishLayerVersionRequest),
    "PublishVersion" => publish_version(PublishVersionRequest),
    "PutFunctionCodeSigningConfig" => put_function_code_signing_config(PutFunctionCodeSigningConfigRequest),
    "PutFunctionConcurrency" => put_function_concurrency(PutFunctionConcurrencyRequest),
    "PutFunctionRecursionConfig" => put_function_recursion_config(PutFunctionRecursionConfigRequest),
    "PutProvisionedConcurrencyConfig" => put_provisioned_concurrency_config(PutProvisionedConcurrencyConfigRequest),
    "PutResourcePolicy" => put_resource_policy(PutResourcePolicyRequest),
    "PutRuntimeManagementConfig" => put_runtime_management_config(PutRuntimeManagementConfigRequest),
    "RemoveLayerVersionPermission" => remove_layer_version_permission(RemoveLayerVersionPermissionRequest),
    "RemovePermission" => remove_permission(RemovePermissionRequest),
    "TagResource" => tag_resource(TagResourceRequest),
    "UntagResource" => untag_resource(UntagResourceRequest),
    "UpdateAlias" => update_alias(UpdateAliasRequest),
    "UpdateCodeSigningConfig" => update_code_signing_config(UpdateCodeSigningConfigRequest),
    "UpdateEventSourceMapping" => update_event_source_mapping(UpdateEventSourceMappingRequest),
    "UpdateFunctionCode" => update_function_code(UpdateFunctionCodeRequest),
    "UpdateFunctionConfiguration" => update_function_configuration(UpdateFunctionConfigurationRequest),
    "UpdateFunctionUrlConfig" => update_function_url_config(UpdateFunctionUrlConfigRequest),
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
    const NOT_BUILT: [&str; 26] = [
        "CheckpointDurableExecution",
        "CreateCapacityProvider",
        "DeleteCapacityProvider",
        "DeleteDurableExecution",
        "DeleteFunctionEventInvokeConfig",
        "GetCapacityProvider",
        "GetDurableExecution",
        "GetDurableExecutionHistory",
        "GetDurableExecutionState",
        "GetFunctionEventInvokeConfig",
        "GetFunctionScalingConfig",
        "InvokeAsync",
        "ListCapacityProviders",
        "ListDurableExecutionsByFunction",
        "ListFunctionEventInvokeConfigs",
        "ListFunctionVersionsByCapacityProvider",
        "PauseDurableExecution",
        "PutFunctionEventInvokeConfig",
        "PutFunctionScalingConfig",
        "ResumeDurableExecution",
        "SendDurableExecutionCallbackFailure",
        "SendDurableExecutionCallbackHeartbeat",
        "SendDurableExecutionCallbackSuccess",
        "StopDurableExecution",
        "UpdateCapacityProvider",
        "UpdateFunctionEventInvokeConfig",
    ];

    #[test]
    fn every_operation_of_the_model_is_built_or_said_not_to_be() {
        let mut told: Vec<&str> = BUILT.iter().chain(&INVOCATIONS).chain(&NOT_BUILT).copied().collect();
        told.sort_unstable();
        let mut there: Vec<&str> = LAMBDA.operations.keys().map(String::as_str).collect();
        there.sort_unstable();
        assert_eq!(told, there);
    }
}

//! The settings operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `GetAccountSettings`.
    pub async fn get_account_settings(
        &self,
        _caller: &Caller,
        _request: GetAccountSettingsRequest,
    ) -> Result<GetAccountSettingsResponse, Error> {
        Err(Error::NotBuilt("GetAccountSettings"))
    }

    /// AWS's `TagResource`.
    pub async fn tag_resource(&self, _caller: &Caller, _request: TagResourceRequest) -> Result<(), Error> {
        Err(Error::NotBuilt("TagResource"))
    }

    /// AWS's `UntagResource`.
    pub async fn untag_resource(&self, _caller: &Caller, _request: UntagResourceRequest) -> Result<(), Error> {
        Err(Error::NotBuilt("UntagResource"))
    }

    /// AWS's `ListTags`.
    pub async fn list_tags(&self, _caller: &Caller, _request: ListTagsRequest) -> Result<ListTagsResponse, Error> {
        Err(Error::NotBuilt("ListTags"))
    }

    /// AWS's `PutFunctionConcurrency`.
    pub async fn put_function_concurrency(
        &self,
        _caller: &Caller,
        _request: PutFunctionConcurrencyRequest,
    ) -> Result<Concurrency, Error> {
        Err(Error::NotBuilt("PutFunctionConcurrency"))
    }

    /// AWS's `GetFunctionConcurrency`.
    pub async fn get_function_concurrency(
        &self,
        _caller: &Caller,
        _request: GetFunctionConcurrencyRequest,
    ) -> Result<GetFunctionConcurrencyResponse, Error> {
        Err(Error::NotBuilt("GetFunctionConcurrency"))
    }

    /// AWS's `DeleteFunctionConcurrency`.
    pub async fn delete_function_concurrency(
        &self,
        _caller: &Caller,
        _request: DeleteFunctionConcurrencyRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteFunctionConcurrency"))
    }

    /// AWS's `PutProvisionedConcurrencyConfig`.
    pub async fn put_provisioned_concurrency_config(
        &self,
        _caller: &Caller,
        _request: PutProvisionedConcurrencyConfigRequest,
    ) -> Result<ProvisionedConcurrency, Error> {
        Err(Error::NotBuilt("PutProvisionedConcurrencyConfig"))
    }

    /// AWS's `GetProvisionedConcurrencyConfig`.
    pub async fn get_provisioned_concurrency_config(
        &self,
        _caller: &Caller,
        _request: GetProvisionedConcurrencyConfigRequest,
    ) -> Result<ProvisionedConcurrency, Error> {
        Err(Error::NotBuilt("GetProvisionedConcurrencyConfig"))
    }

    /// AWS's `DeleteProvisionedConcurrencyConfig`.
    pub async fn delete_provisioned_concurrency_config(
        &self,
        _caller: &Caller,
        _request: DeleteProvisionedConcurrencyConfigRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteProvisionedConcurrencyConfig"))
    }

    /// AWS's `ListProvisionedConcurrencyConfigs`.
    pub async fn list_provisioned_concurrency_configs(
        &self,
        _caller: &Caller,
        _request: ListProvisionedConcurrencyConfigsRequest,
    ) -> Result<ListProvisionedConcurrencyConfigsResponse, Error> {
        Err(Error::NotBuilt("ListProvisionedConcurrencyConfigs"))
    }

    /// AWS's `PutFunctionRecursionConfig`.
    pub async fn put_function_recursion_config(
        &self,
        _caller: &Caller,
        _request: PutFunctionRecursionConfigRequest,
    ) -> Result<PutFunctionRecursionConfigResponse, Error> {
        Err(Error::NotBuilt("PutFunctionRecursionConfig"))
    }

    /// AWS's `GetFunctionRecursionConfig`.
    pub async fn get_function_recursion_config(
        &self,
        _caller: &Caller,
        _request: GetFunctionRecursionConfigRequest,
    ) -> Result<GetFunctionRecursionConfigResponse, Error> {
        Err(Error::NotBuilt("GetFunctionRecursionConfig"))
    }

    /// AWS's `PutRuntimeManagementConfig`.
    pub async fn put_runtime_management_config(
        &self,
        _caller: &Caller,
        _request: PutRuntimeManagementConfigRequest,
    ) -> Result<PutRuntimeManagementConfigResponse, Error> {
        Err(Error::NotBuilt("PutRuntimeManagementConfig"))
    }

    /// AWS's `GetRuntimeManagementConfig`.
    pub async fn get_runtime_management_config(
        &self,
        _caller: &Caller,
        _request: GetRuntimeManagementConfigRequest,
    ) -> Result<GetRuntimeManagementConfigResponse, Error> {
        Err(Error::NotBuilt("GetRuntimeManagementConfig"))
    }
}

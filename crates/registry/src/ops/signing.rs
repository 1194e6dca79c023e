//! The signing operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `CreateCodeSigningConfig`.
    pub async fn create_code_signing_config(
        &self,
        _caller: &Caller,
        _request: CreateCodeSigningConfigRequest,
    ) -> Result<CreateCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("CreateCodeSigningConfig"))
    }

    /// AWS's `GetCodeSigningConfig`.
    pub async fn get_code_signing_config(
        &self,
        _caller: &Caller,
        _request: GetCodeSigningConfigRequest,
    ) -> Result<GetCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("GetCodeSigningConfig"))
    }

    /// AWS's `UpdateCodeSigningConfig`.
    pub async fn update_code_signing_config(
        &self,
        _caller: &Caller,
        _request: UpdateCodeSigningConfigRequest,
    ) -> Result<UpdateCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("UpdateCodeSigningConfig"))
    }

    /// AWS's `DeleteCodeSigningConfig`.
    pub async fn delete_code_signing_config(
        &self,
        _caller: &Caller,
        _request: DeleteCodeSigningConfigRequest,
    ) -> Result<DeleteCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("DeleteCodeSigningConfig"))
    }

    /// AWS's `ListCodeSigningConfigs`.
    pub async fn list_code_signing_configs(
        &self,
        _caller: &Caller,
        _request: ListCodeSigningConfigsRequest,
    ) -> Result<ListCodeSigningConfigsResponse, Error> {
        Err(Error::NotBuilt("ListCodeSigningConfigs"))
    }

    /// AWS's `ListFunctionsByCodeSigningConfig`.
    pub async fn list_functions_by_code_signing_config(
        &self,
        _caller: &Caller,
        _request: ListFunctionsByCodeSigningConfigRequest,
    ) -> Result<ListFunctionsByCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("ListFunctionsByCodeSigningConfig"))
    }

    /// AWS's `PutFunctionCodeSigningConfig`.
    pub async fn put_function_code_signing_config(
        &self,
        _caller: &Caller,
        _request: PutFunctionCodeSigningConfigRequest,
    ) -> Result<PutFunctionCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("PutFunctionCodeSigningConfig"))
    }

    /// AWS's `GetFunctionCodeSigningConfig`.
    pub async fn get_function_code_signing_config(
        &self,
        _caller: &Caller,
        _request: GetFunctionCodeSigningConfigRequest,
    ) -> Result<GetFunctionCodeSigningConfigResponse, Error> {
        Err(Error::NotBuilt("GetFunctionCodeSigningConfig"))
    }

    /// AWS's `DeleteFunctionCodeSigningConfig`.
    pub async fn delete_function_code_signing_config(
        &self,
        _caller: &Caller,
        _request: DeleteFunctionCodeSigningConfigRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteFunctionCodeSigningConfig"))
    }
}

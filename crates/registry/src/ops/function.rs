//! The function operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `CreateFunction`.
    pub async fn create_function(
        &self,
        _caller: &Caller,
        _request: CreateFunctionRequest,
    ) -> Result<FunctionConfiguration, Error> {
        Err(Error::NotBuilt("CreateFunction"))
    }

    /// AWS's `GetFunction`.
    pub async fn get_function(
        &self,
        _caller: &Caller,
        _request: GetFunctionRequest,
    ) -> Result<GetFunctionResponse, Error> {
        Err(Error::NotBuilt("GetFunction"))
    }

    /// AWS's `GetFunctionConfiguration`.
    pub async fn get_function_configuration(
        &self,
        _caller: &Caller,
        _request: GetFunctionConfigurationRequest,
    ) -> Result<FunctionConfiguration, Error> {
        Err(Error::NotBuilt("GetFunctionConfiguration"))
    }

    /// AWS's `UpdateFunctionCode`.
    pub async fn update_function_code(
        &self,
        _caller: &Caller,
        _request: UpdateFunctionCodeRequest,
    ) -> Result<FunctionConfiguration, Error> {
        Err(Error::NotBuilt("UpdateFunctionCode"))
    }

    /// AWS's `UpdateFunctionConfiguration`.
    pub async fn update_function_configuration(
        &self,
        _caller: &Caller,
        _request: UpdateFunctionConfigurationRequest,
    ) -> Result<FunctionConfiguration, Error> {
        Err(Error::NotBuilt("UpdateFunctionConfiguration"))
    }

    /// AWS's `DeleteFunction`.
    pub async fn delete_function(
        &self,
        _caller: &Caller,
        _request: DeleteFunctionRequest,
    ) -> Result<DeleteFunctionResponse, Error> {
        Err(Error::NotBuilt("DeleteFunction"))
    }

    /// AWS's `ListFunctions`.
    pub async fn list_functions(
        &self,
        _caller: &Caller,
        _request: ListFunctionsRequest,
    ) -> Result<ListFunctionsResponse, Error> {
        Err(Error::NotBuilt("ListFunctions"))
    }

    /// AWS's `PublishVersion`.
    pub async fn publish_version(
        &self,
        _caller: &Caller,
        _request: PublishVersionRequest,
    ) -> Result<FunctionConfiguration, Error> {
        Err(Error::NotBuilt("PublishVersion"))
    }

    /// AWS's `ListVersionsByFunction`.
    pub async fn list_versions_by_function(
        &self,
        _caller: &Caller,
        _request: ListVersionsByFunctionRequest,
    ) -> Result<ListVersionsByFunctionResponse, Error> {
        Err(Error::NotBuilt("ListVersionsByFunction"))
    }
}

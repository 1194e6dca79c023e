//! The url operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `CreateFunctionUrlConfig`.
    pub async fn create_function_url_config(
        &self,
        _caller: &Caller,
        _request: CreateFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        Err(Error::NotBuilt("CreateFunctionUrlConfig"))
    }

    /// AWS's `GetFunctionUrlConfig`.
    pub async fn get_function_url_config(
        &self,
        _caller: &Caller,
        _request: GetFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        Err(Error::NotBuilt("GetFunctionUrlConfig"))
    }

    /// AWS's `UpdateFunctionUrlConfig`.
    pub async fn update_function_url_config(
        &self,
        _caller: &Caller,
        _request: UpdateFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        Err(Error::NotBuilt("UpdateFunctionUrlConfig"))
    }

    /// AWS's `DeleteFunctionUrlConfig`.
    pub async fn delete_function_url_config(
        &self,
        _caller: &Caller,
        _request: DeleteFunctionUrlConfigRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteFunctionUrlConfig"))
    }

    /// AWS's `ListFunctionUrlConfigs`.
    pub async fn list_function_url_configs(
        &self,
        _caller: &Caller,
        _request: ListFunctionUrlConfigsRequest,
    ) -> Result<ListFunctionUrlConfigsResponse, Error> {
        Err(Error::NotBuilt("ListFunctionUrlConfigs"))
    }
}

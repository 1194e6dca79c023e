//! The alias operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `CreateAlias`.
    pub async fn create_alias(
        &self,
        _caller: &Caller,
        _request: CreateAliasRequest,
    ) -> Result<AliasConfiguration, Error> {
        Err(Error::NotBuilt("CreateAlias"))
    }

    /// AWS's `GetAlias`.
    pub async fn get_alias(&self, _caller: &Caller, _request: GetAliasRequest) -> Result<AliasConfiguration, Error> {
        Err(Error::NotBuilt("GetAlias"))
    }

    /// AWS's `UpdateAlias`.
    pub async fn update_alias(
        &self,
        _caller: &Caller,
        _request: UpdateAliasRequest,
    ) -> Result<AliasConfiguration, Error> {
        Err(Error::NotBuilt("UpdateAlias"))
    }

    /// AWS's `DeleteAlias`.
    pub async fn delete_alias(&self, _caller: &Caller, _request: DeleteAliasRequest) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteAlias"))
    }

    /// AWS's `ListAliases`.
    pub async fn list_aliases(
        &self,
        _caller: &Caller,
        _request: ListAliasesRequest,
    ) -> Result<ListAliasesResponse, Error> {
        Err(Error::NotBuilt("ListAliases"))
    }
}

//! The permission operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `AddPermission`.
    pub async fn add_permission(
        &self,
        _caller: &Caller,
        _request: AddPermissionRequest,
    ) -> Result<AddPermissionResponse, Error> {
        Err(Error::NotBuilt("AddPermission"))
    }

    /// AWS's `RemovePermission`.
    pub async fn remove_permission(&self, _caller: &Caller, _request: RemovePermissionRequest) -> Result<(), Error> {
        Err(Error::NotBuilt("RemovePermission"))
    }

    /// AWS's `GetPolicy`.
    pub async fn get_policy(&self, _caller: &Caller, _request: GetPolicyRequest) -> Result<GetPolicyResponse, Error> {
        Err(Error::NotBuilt("GetPolicy"))
    }

    /// AWS's `GetResourcePolicy`.
    pub async fn get_resource_policy(
        &self,
        _caller: &Caller,
        _request: GetResourcePolicyRequest,
    ) -> Result<GetResourcePolicyResponse, Error> {
        Err(Error::NotBuilt("GetResourcePolicy"))
    }

    /// AWS's `PutResourcePolicy`.
    pub async fn put_resource_policy(
        &self,
        _caller: &Caller,
        _request: PutResourcePolicyRequest,
    ) -> Result<PutResourcePolicyResponse, Error> {
        Err(Error::NotBuilt("PutResourcePolicy"))
    }

    /// AWS's `DeleteResourcePolicy`.
    pub async fn delete_resource_policy(
        &self,
        _caller: &Caller,
        _request: DeleteResourcePolicyRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteResourcePolicy"))
    }
}

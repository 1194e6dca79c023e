//! The layer operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `PublishLayerVersion`.
    pub async fn publish_layer_version(
        &self,
        _caller: &Caller,
        _request: PublishLayerVersionRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        Err(Error::NotBuilt("PublishLayerVersion"))
    }

    /// AWS's `GetLayerVersion`.
    pub async fn get_layer_version(
        &self,
        _caller: &Caller,
        _request: GetLayerVersionRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        Err(Error::NotBuilt("GetLayerVersion"))
    }

    /// AWS's `GetLayerVersionByArn`.
    pub async fn get_layer_version_by_arn(
        &self,
        _caller: &Caller,
        _request: GetLayerVersionByArnRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        Err(Error::NotBuilt("GetLayerVersionByArn"))
    }

    /// AWS's `ListLayers`.
    pub async fn list_layers(
        &self,
        _caller: &Caller,
        _request: ListLayersRequest,
    ) -> Result<ListLayersResponse, Error> {
        Err(Error::NotBuilt("ListLayers"))
    }

    /// AWS's `ListLayerVersions`.
    pub async fn list_layer_versions(
        &self,
        _caller: &Caller,
        _request: ListLayerVersionsRequest,
    ) -> Result<ListLayerVersionsResponse, Error> {
        Err(Error::NotBuilt("ListLayerVersions"))
    }

    /// AWS's `DeleteLayerVersion`.
    pub async fn delete_layer_version(
        &self,
        _caller: &Caller,
        _request: DeleteLayerVersionRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("DeleteLayerVersion"))
    }

    /// AWS's `AddLayerVersionPermission`.
    pub async fn add_layer_version_permission(
        &self,
        _caller: &Caller,
        _request: AddLayerVersionPermissionRequest,
    ) -> Result<AddLayerVersionPermissionResponse, Error> {
        Err(Error::NotBuilt("AddLayerVersionPermission"))
    }

    /// AWS's `RemoveLayerVersionPermission`.
    pub async fn remove_layer_version_permission(
        &self,
        _caller: &Caller,
        _request: RemoveLayerVersionPermissionRequest,
    ) -> Result<(), Error> {
        Err(Error::NotBuilt("RemoveLayerVersionPermission"))
    }

    /// AWS's `GetLayerVersionPolicy`.
    pub async fn get_layer_version_policy(
        &self,
        _caller: &Caller,
        _request: GetLayerVersionPolicyRequest,
    ) -> Result<GetLayerVersionPolicyResponse, Error> {
        Err(Error::NotBuilt("GetLayerVersionPolicy"))
    }
}

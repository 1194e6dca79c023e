//! The mapping operations.

use crate::shape::*;
use crate::{Caller, Error, Registry};

impl Registry {
    /// AWS's `CreateEventSourceMapping`.
    pub async fn create_event_source_mapping(
        &self,
        _caller: &Caller,
        _request: CreateEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        Err(Error::NotBuilt("CreateEventSourceMapping"))
    }

    /// AWS's `GetEventSourceMapping`.
    pub async fn get_event_source_mapping(
        &self,
        _caller: &Caller,
        _request: GetEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        Err(Error::NotBuilt("GetEventSourceMapping"))
    }

    /// AWS's `UpdateEventSourceMapping`.
    pub async fn update_event_source_mapping(
        &self,
        _caller: &Caller,
        _request: UpdateEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        Err(Error::NotBuilt("UpdateEventSourceMapping"))
    }

    /// AWS's `DeleteEventSourceMapping`.
    pub async fn delete_event_source_mapping(
        &self,
        _caller: &Caller,
        _request: DeleteEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        Err(Error::NotBuilt("DeleteEventSourceMapping"))
    }

    /// AWS's `ListEventSourceMappings`.
    pub async fn list_event_source_mappings(
        &self,
        _caller: &Caller,
        _request: ListEventSourceMappingsRequest,
    ) -> Result<ListEventSourceMappingsResponse, Error> {
        Err(Error::NotBuilt("ListEventSourceMappings"))
    }
}

//! The fleet itself.

use std::sync::Arc;
use std::time::Duration;

use lambent_model::function::Runtime;
use lambent_model::{Clock, ContainerId, FunctionVersion};
use lambent_sandbox::Sandbox;
use lambent_store::{Blobs, Logs};
use uuid::Uuid;

use crate::{Call, Error, FleetConfig, PrepareError, Running};

/// What one container is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// The function's ARN, with version.
    pub function: String,
    /// `starting`, `idle`, `busy` or `ending`.
    pub state: &'static str,
    /// Memory promised to it.
    pub memory_mib: u32,
    /// Calls it has served.
    pub calls: u64,
}

/// What a fleet is doing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FleetStatus {
    /// All containers.
    pub containers: Vec<ContainerStatus>,
    /// Memory promised to them together.
    pub memory_mib: u64,
    /// The bound of that.
    pub memory_limit_mib: u64,
}

/// Runs calls in containers.
pub struct Fleet {}

impl Fleet {
    /// A fleet on this machine. Looks for interpreters, writes the bootstraps and cleans up after an earlier process.
    pub async fn new(
        _config: FleetConfig,
        _sandbox: Arc<dyn Sandbox>,
        _blobs: Arc<dyn Blobs>,
        _logs: Arc<dyn Logs>,
        _clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, PrepareError> {
        Ok(Arc::new(Self {}))
    }

    /// What this machine can run.
    pub fn runtimes(&self) -> Vec<Runtime> {
        Vec::new()
    }

    /// Unpacks code and layers into the cache.
    pub async fn prepare(&self, _version: &FunctionVersion) -> Result<(), PrepareError> {
        Ok(())
    }

    /// Runs a call in the most recently used warm container of this version, else in a new one.
    pub async fn invoke(&self, _version: Arc<FunctionVersion>, _call: Call) -> Result<Running, Error> {
        Err(Error::ShuttingDown)
    }

    /// Ends the containers of a replaced or deleted version: idle ones now, busy ones after their call.
    pub fn retire(&self, _generation: Uuid) {}

    /// What there is.
    pub fn status(&self) -> FleetStatus {
        FleetStatus { containers: Vec::new(), memory_mib: 0, memory_limit_mib: 0 }
    }

    /// Lets running calls end within `grace`, then ends every container.
    pub async fn shutdown(&self, _grace: Duration) {}
}

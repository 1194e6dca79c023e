//! The control plane's view of the fleet.

use std::sync::Arc;

use async_trait::async_trait;
use lambent_fleet::{Fleet, SnapStart};
use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;
use lambent_registry::{Allocation, Deployer, Optimization};
use uuid::Uuid;

/// Hands the registry's wishes to the fleet.
pub struct FleetDeployer(pub Arc<Fleet>);

#[async_trait]
impl Deployer for FleetDeployer {
    async fn prepare(&self, version: &FunctionVersion) -> Result<(), String> {
        self.0.prepare(version).await.map_err(|error| error.to_string())?;
        self.0.snapshot(version).await
    }

    fn snapshot_ahead(&self, versions: Vec<Arc<FunctionVersion>>) {
        // It ends by itself, and with the fleet.
        drop(self.0.snapshot_ahead(versions));
    }

    fn snap_start(&self, generation: Uuid) -> Optimization {
        match self.0.snap_start(generation) {
            SnapStart::On => Optimization::On,
            SnapStart::Pending => Optimization::Off,
            SnapStart::Off(reason) => Optimization::Impossible(reason),
        }
    }

    fn retire(&self, generation: Uuid) {
        self.0.retire(generation);
    }

    async fn ready(&self) {
        self.0.ready().await;
    }

    fn expect(&self, version: &FunctionVersion) {
        self.0.expect(version);
    }

    fn provision(&self, wanted: Vec<(Arc<FunctionVersion>, u32)>) {
        self.0.provision(wanted);
    }

    fn provisioned(&self, generation: Uuid) -> Allocation {
        let lambent_fleet::Provisioned { available, failure } = self.0.provisioned(generation);
        Allocation { available, failure }
    }

    fn runtimes(&self) -> Vec<Runtime> {
        self.0.runtimes()
    }
}

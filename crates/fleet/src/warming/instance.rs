//! A cell that belongs to nobody, with what waits in it.

use std::path::PathBuf;
use std::sync::Arc;

use lambent_model::function::Runtime;
use lambent_model::limits::DEFAULT_MEMORY_MIB;
use lambent_sandbox::{BlankSpec, Cell, Error, Mount, Process, ProcessSpec};

use super::kind::Kind;
use crate::environment::{self, RUNTIME};
use crate::fleet::Inner;

/// A blank cell. Dropping it destroys it.
pub(crate) struct Instance {
    pub cell: Arc<dyn Cell>,
    /// The runtime that waits in it for its order.
    pub waiting: Option<Process>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("cell", &self.cell.id()).field("waiting", &self.waiting).finish()
    }
}

impl Instance {
    /// A cell in which nothing runs, for a function of this runtime.
    pub(crate) async fn bare(fleet: &Inner, runtime: Option<&Runtime>, memory_mib: u32) -> Result<Self, Error> {
        let bootstraps = Mount { source: fleet.bootstraps.directory.clone(), target: RUNTIME.into() };
        let interpreter = runtime.and_then(|runtime| fleet.interpreters.of(runtime)?.mount.clone());
        let mounts = std::iter::once(bootstraps).chain(interpreter).collect();
        let spec = BlankSpec { id: lambent_model::InstanceId::random(), mounts, memory_mib };
        Ok(Self { cell: fleet.sandbox.blank(spec).await?, waiting: None })
    }

    /// A cell with what this kind has waiting in it.
    pub(crate) async fn build(fleet: &Inner, kind: &Kind) -> Result<Self, Error> {
        let memory_mib = match kind {
            Kind::Node { memory_mib, .. } => *memory_mib,
            Kind::Python { .. } | Kind::Shell => DEFAULT_MEMORY_MIB,
        };
        let runtime = kind.runtime();
        let mut instance = Self::bare(fleet, runtime.as_ref(), memory_mib).await?;
        let command = runtime.as_ref().and_then(|runtime| {
            let argv = environment::interpreter_command(runtime, fleet.interpreters.of(runtime)?)?;
            Some((argv, environment::of_waiting(runtime)))
        });
        if let Some((argv, env)) = command {
            let spec = ProcessSpec { argv, env, cwd: PathBuf::from("/"), log_pipe: true, order_pipe: true };
            instance.waiting = Some(instance.cell.spawn(spec).await?);
        }
        Ok(instance)
    }

    /// Returns when what waits in it has died; never where nothing does.
    pub(super) async fn died(&mut self) {
        match &mut self.waiting {
            Some(process) => drop((&mut process.exit).await),
            None => std::future::pending().await,
        }
    }

    /// Ends it and waits until nothing is left of it.
    pub(super) async fn destroy(self) {
        self.cell.destroy().await;
    }
}

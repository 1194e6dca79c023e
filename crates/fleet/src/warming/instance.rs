//! A cell that belongs to nobody, with what waits in it.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;
use lambent_model::limits::DEFAULT_MEMORY_MIB;
use lambent_sandbox::{BlankSpec, Cell, Error, Mount, Process, ProcessSpec, Template};

use super::kind::Kind;
use crate::environment::{self, RUNTIME};
use crate::fleet::Inner;

/// A blank cell. Dropping it destroys it.
pub(crate) struct Instance {
    pub cell: Arc<dyn Cell>,
    /// The runtime that waits in it for its order.
    pub waiting: Option<Process>,
    /// What it was forked from, where it was.
    pub template: Option<Weak<dyn Template>>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("cell", &self.cell.id()).field("waiting", &self.waiting).finish()
    }
}

impl Instance {
    /// A cell in which nothing runs, for a function of this runtime.
    async fn bare(fleet: &Inner, runtime: Option<&Runtime>, memory_mib: u32) -> Result<Self, Error> {
        let bootstraps = Mount { source: fleet.bootstraps.directory.clone(), target: RUNTIME.into() };
        let interpreter = runtime.and_then(|runtime| fleet.interpreters.of(runtime)?.mount.clone());
        let mounts = std::iter::once(bootstraps).chain(interpreter).collect();
        let spec = BlankSpec { id: lambent_model::InstanceId::random(), mounts, memory_mib };
        Ok(Self { cell: fleet.sandbox.blank(spec).await?, waiting: None, template: None })
    }

    /// A cell with what this kind has waiting in it.
    pub(crate) async fn build(fleet: &Inner, kind: &Kind) -> Result<Self, Error> {
        let memory_mib = match kind {
            Kind::Node { memory_mib, .. } => *memory_mib,
            Kind::Python { .. } | Kind::Shell => DEFAULT_MEMORY_MIB,
        };
        let runtime = kind.runtime();
        let mut instance = Self::bare(fleet, runtime.as_ref(), memory_mib).await?;
        let Some(runtime) = &runtime else { return Ok(instance) };
        let template = fleet.warming.templates.of(fleet, runtime).await;
        if let Some(template) = template
            && instance.fork(fleet, runtime, &template).await
        {
            return Ok(instance);
        }
        let interpreter = fleet.interpreters.of(runtime);
        let command = interpreter.and_then(|interpreter| environment::interpreter_command(runtime, interpreter));
        if let Some(argv) = command {
            let env = environment::of_waiting(runtime);
            let spec = ProcessSpec { argv, env, cwd: PathBuf::from("/"), log_pipe: true, order_pipe: true };
            instance.waiting = Some(instance.cell.spawn(spec).await?);
        }
        Ok(instance)
    }

    /// As [`Self::build`], in a call's way: with a fork where there is a template, else with nothing in it, because a runtime that is only
    /// started now has no need to wait.
    pub(crate) async fn now(fleet: &Inner, kind: Option<&Kind>, function: &FunctionVersion) -> Result<Self, Error> {
        let mut instance = Self::bare(fleet, Some(&function.runtime), function.memory_mib).await?;
        if kind.is_some()
            && let Some(template) = fleet.warming.templates.there(&function.runtime)
        {
            instance.fork(fleet, &function.runtime, &template).await;
        }
        Ok(instance)
    }

    /// Forks a template into it; whether that worked.
    async fn fork(&mut self, fleet: &Inner, runtime: &Runtime, template: &Arc<dyn Template>) -> bool {
        match self.cell.fork_from(template).await {
            Ok(process) => {
                self.waiting = Some(process);
                self.template = Some(Arc::downgrade(template));
                true
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%runtime, error, "a template could not be forked; the next one is made anew");
                fleet.warming.templates.forget(runtime, template);
                false
            }
        }
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

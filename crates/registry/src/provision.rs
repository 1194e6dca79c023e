//! Provisioned concurrency: from the catalog to whoever keeps the containers, and back as a status.
//!
//! The catalog is the only list of what is wanted. Whenever the snapshot changes, and at every start, the whole list is computed anew and
//! handed over if it differs from the last one. An alias that moves, a version that is deleted, a node that restarts: all the same path.

use std::collections::BTreeMap;
use std::sync::Arc;

use lambent_model::{FunctionVersion, Qualifier, Version};
use uuid::Uuid;

use crate::Registry;
use crate::record::Provisioned;
use crate::shape::{ProvisionedConcurrency, State};
use crate::snapshot::Function;

/// Containers that are wanted, by generation.
type Wanted = BTreeMap<Uuid, (Arc<FunctionVersion>, u32)>;

/// Tells the deployer what is wanted, now and after every change.
pub(crate) fn follow(registry: &Arc<Registry>) {
    // The task holds no strong reference while it waits, or the registry would never go.
    let weak = Arc::downgrade(registry);
    let (stop, mut seen) = (registry.stop.clone(), registry.snapshot.changes());
    registry.tasks.spawn(async move {
        let mut told = Wanted::new();
        loop {
            {
                let Some(registry) = weak.upgrade() else { return };
                let wanted = registry.wanted();
                if wanted != told {
                    registry.deployer.provision(wanted.values().cloned().collect());
                    told = wanted;
                }
            }
            match stop.run_until_cancelled(seen.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
}

/// The versions that a name of a function stands for, with their shares of `requested`.
fn shares(function: &Function, name: &str, requested: u32) -> Vec<(Arc<FunctionVersion>, u32)> {
    let (main, additional) = match name.parse::<Qualifier>() {
        Ok(Qualifier::Version(version)) => (version, None),
        Ok(Qualifier::Alias(alias)) => match function.head.aliases.get(&*alias) {
            Some(alias) => (alias.version, alias.additional),
            None => return Vec::new(),
        },
        Err(_) => return Vec::new(),
    };
    let other = additional.map(|(version, share)| (version, (f64::from(requested) * share).round() as u32));
    let main = (main, requested - other.map_or(0, |(_, count)| count.min(requested)));
    let runs = |version: Version| function.config(version).is_some_and(|config| config.state.state() == State::Active);
    std::iter::once(main)
        .chain(other)
        .filter(|(version, count)| *count > 0 && runs(*version))
        .filter_map(|(version, count)| Some((Arc::clone(function.running(version)?), count)))
        .collect()
}

impl Registry {
    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for function in self.snapshot.functions.all() {
            for (name, provisioned) in &function.head.provisioned {
                for (version, count) in shares(&function, name, provisioned.requested) {
                    wanted.entry(version.generation).or_insert((version, 0)).1 += count;
                }
            }
        }
        wanted
    }

    /// What became of it so far.
    pub(crate) fn provisioned(
        &self,
        function: &Function,
        name: &str,
        provisioned: &Provisioned,
    ) -> ProvisionedConcurrency {
        let (mut available, mut failure) = (0, None);
        for (version, count) in shares(function, name, provisioned.requested) {
            let allocation = self.deployer.provisioned(version.generation);
            available += allocation.available.min(count);
            failure = failure.or(allocation.failure);
        }
        let (status, reason) = match failure {
            _ if available >= provisioned.requested => ("READY", None),
            Some(reason) => ("FAILED", Some(reason)),
            None => ("IN_PROGRESS", None),
        };
        shown(provisioned, available, status, reason)
    }
}

/// AWS's answer.
pub(crate) fn shown(
    provisioned: &Provisioned,
    available: u32,
    status: &str,
    status_reason: Option<String>,
) -> ProvisionedConcurrency {
    ProvisionedConcurrency {
        requested_provisioned_concurrent_executions: provisioned.requested,
        available_provisioned_concurrent_executions: available,
        allocated_provisioned_concurrent_executions: available,
        status: status.to_owned(),
        status_reason,
        last_modified: provisioned.modified.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string(),
    }
}

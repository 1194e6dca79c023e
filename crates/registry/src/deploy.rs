//! Getting code ready behind the caller's back, and writing down what came of it.
//!
//! A version that is [`Pending`](Lifecycle::Pending) or [`Updating`](Lifecycle::Updating) in the catalog is being
//! prepared by a task, or will be after the next start ([`take_up`]): the catalog is the only list of what is to be
//! done.

use std::sync::Arc;
use std::time::Duration;

use lambent_model::{FunctionArn, FunctionVersion, Version};
use uuid::Uuid;

use crate::record::Lifecycle;
use crate::{Error, Registry};

/// `StateReason` and `LastUpdateStatusReason` while code is prepared.
pub(crate) const CREATING: &str = "The function is being created.";

/// How long preparing may take before the version is given up.
const WITHIN: Duration = Duration::from_secs(600);

/// Prepares whatever the catalog says is not.
pub(crate) fn take_up(registry: &Arc<Registry>) {
    for function in registry.snapshot.functions.all() {
        for config in function.configs().filter(|config| config.state.is_unsettled()) {
            prepare(registry, config.runnable(&function.head.arn));
        }
    }
}

/// Active versions that ask for a snapshot: the newest of each function, then the second newest of each, and so on.
pub(crate) fn with_snapshots(registry: &Registry) -> Vec<Arc<FunctionVersion>> {
    let mut found = Vec::new();
    for function in registry.snapshot.functions.all() {
        let versions = function.versions.values().rev();
        let active = versions.filter(|one| one.running.snap_start && one.config.state == Lifecycle::Active);
        found.extend(active.enumerate().map(|(age, one)| (age, Arc::clone(&one.running))));
    }
    found.sort_by_key(|(age, _)| *age);
    found.into_iter().map(|(_, version)| version).collect()
}

/// Prepares a version in the background.
pub(crate) fn prepare(registry: &Arc<Registry>, version: FunctionVersion) {
    let registry = registry.clone();
    let stop = registry.stop.clone();
    registry.tasks.clone().spawn(async move {
        stop.run_until_cancelled(async move {
            let outcome = tokio::time::timeout(WITHIN, registry.deployer.prepare(&version))
                .await
                .unwrap_or_else(|_| Err("The code could not be prepared in time.".to_owned()));
            if let Err(reason) = &outcome {
                tracing::warn!(function = version.qualified_arn(), reason, "a function could not be prepared");
            }
            match settle(&registry, &version, outcome).await {
                // Deleted meanwhile.
                Ok(()) | Err(Error::ResourceNotFound(_)) => {}
                Err(error) => {
                    tracing::error!(function = version.qualified_arn(), error = %chain(&error), "state not kept")
                }
            }
        })
        .await;
    });
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Writes the outcome down, unless another generation has taken the version's place.
async fn settle(registry: &Registry, version: &FunctionVersion, outcome: Result<(), String>) -> Result<(), Error> {
    let replaced = registry
        .change(&version.arn, |function, draft| match version.version {
            Version::Latest => {
                let latest = &mut draft.head.latest;
                if latest.generation != version.generation || !latest.state.is_unsettled() {
                    return Ok(None);
                }
                latest.state = latest.state.settled(outcome.clone());
                latest.revision_id = Uuid::new_v4();
                match latest.state {
                    Lifecycle::Active => Ok(draft.head.active.take().map(|old| old.generation)),
                    _ => Ok(None),
                }
            }
            Version::Published(number) => {
                let Some(published) = function.versions.get(&number.get()) else { return Ok(None) };
                let mut config = published.config.clone();
                if config.state.is_unsettled() {
                    config.state = config.state.settled(outcome.clone());
                    config.revision_id = Uuid::new_v4();
                    draft.versions.insert(number.get(), Some(config));
                }
                Ok(None)
            }
        })
        .await?;
    if let Some(generation) = replaced {
        registry.deployer.retire(generation);
    }
    Ok(())
}

/// What AWS says to a change of code or configuration that comes too early.
pub(crate) fn settled(arn: &FunctionArn, state: &Lifecycle) -> Result<(), Error> {
    match state {
        Lifecycle::Pending => Err(Error::ResourceConflict(
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
                .to_owned(),
        )),
        Lifecycle::Updating => Err(Error::ResourceConflict(format!(
            "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
        ))),
        Lifecycle::Failed { .. } | Lifecycle::Active | Lifecycle::UpdateFailed { .. } => Ok(()),
    }
}

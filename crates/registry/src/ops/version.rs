//! Versions: publish, delete, list.

use std::sync::Arc;

use jiff::Timestamp;
use lambent_model::FunctionArn;
use uuid::Uuid;

use super::function::{PAGE, WRONG_REVISION, check_revision, check_sha256};
use crate::configure::not_built;
use crate::deploy::{self, settled};
use crate::locate::missing;
use crate::page::page;
use crate::record::{Config, Head, Lifecycle};
use crate::registry::Optimization;
use crate::render::{Suffix, configuration, listed, sortable};
use crate::shape::*;
use crate::snapshot::published;
use crate::{Caller, Error, Registry};

/// Counts a version off `$LATEST`. Where `$LATEST` runs the version does as well; otherwise it has yet to be prepared.
pub(super) fn publish(head: &mut Head, description: Option<String>, now: Timestamp) -> Config {
    let mut config = Config {
        version: published(head.next_version),
        revision_id: Uuid::new_v4(),
        generation: Uuid::new_v4(),
        last_modified: now,
        // A snapshot has to be taken first.
        state: if head.latest.state == Lifecycle::Active && !head.latest.settings.takes_snapshots() {
            Lifecycle::Active
        } else {
            Lifecycle::Pending
        },
        settings: head.latest.settings.clone(),
    };
    if let Some(description) = description {
        config.settings.description = description;
    }
    head.next_version += 1;
    config
}

impl Registry {
    /// AWS's `PublishVersion`. When nothing has changed since the last version, it is that one.
    pub async fn publish_version(
        self: &Arc<Self>,
        caller: &Caller,
        request: PublishVersionRequest,
    ) -> Result<FunctionConfiguration, Error> {
        let arn = self.locate_whole(caller, "PublishVersion", &request.function_name)?;
        not_built(request.publish_to.as_ref(), "PublishTo")?;
        let now = self.clock.now();
        let config = self
            .change(&arn, |function, draft| {
                let latest = &draft.head.latest;
                check_revision(request.revision_id.as_ref(), latest.revision_id, WRONG_REVISION)?;
                check_sha256(request.code_sha256.as_ref(), latest)?;
                settled(&arn, &latest.state)?;
                if let Some(last) = function.versions.values().next_back()
                    && last.config.settings.is_same_version(&latest.settings)
                {
                    return Ok(last.config.clone());
                }
                let config = publish(&mut draft.head, request.description.clone(), now);
                draft.versions.insert(draft.head.next_version - 1, Some(config.clone()));
                Ok(config)
            })
            .await?;
        if config.state.is_unsettled() {
            deploy::prepare(self, config.runnable(&arn));
        }
        Ok(configuration(&arn, &config, Suffix::Version))
    }

    /// Says whether containers of a version are made from a snapshot, and why not. AWS has no place for the reason; ours is `StateReason`.
    pub(super) fn with_optimization(&self, mut shown: FunctionConfiguration, config: &Config) -> FunctionConfiguration {
        let snap_start = shown.snap_start.as_mut().filter(|_| config.takes_snapshots());
        if let Some(snap_start) = snap_start
            && config.state == Lifecycle::Active
        {
            match self.deployer.snap_start(config.generation) {
                Optimization::On => snap_start.optimization_status = Some("On".to_owned()),
                Optimization::Off => {}
                Optimization::Impossible(reason) => {
                    shown.state_reason = Some(format!("SnapStart is off for this version: {reason}."));
                }
            }
        }
        shown
    }

    pub(super) async fn delete_version(&self, arn: &FunctionArn, number: u64) -> Result<(), Error> {
        let gone = self
            .change(arn, |function, draft| {
                let version = published(number);
                let users: Vec<&str> = (draft.head.aliases.iter())
                    .filter(|(_, alias)| {
                        alias.version == version || alias.additional.is_some_and(|(other, _)| other == version)
                    })
                    .map(|(name, _)| name.as_str())
                    .collect();
                if !users.is_empty() {
                    return Err(Error::ResourceConflict(format!(
                        "Unable to delete version because the following aliases reference it: [{}]",
                        users.join(", ")
                    )));
                }
                // Deleting what is not there is no error.
                let Some(gone) = function.versions.get(&number) else { return Ok(None) };
                let name = number.to_string();
                draft.head.policies.remove(&name);
                draft.head.provisioned.remove(&name);
                draft.head.runtime_management.remove(&name);
                draft.head.event_invoke.remove(&name);
                draft.versions.insert(number, None);
                Ok(Some(gone.running.generation))
            })
            .await?;
        if let Some(generation) = gone {
            self.deployer.retire(generation);
        }
        Ok(())
    }

    /// AWS's `ListVersionsByFunction`.
    pub async fn list_versions_by_function(
        &self,
        caller: &Caller,
        request: ListVersionsByFunctionRequest,
    ) -> Result<ListVersionsByFunctionResponse, Error> {
        let arn = self.locate_whole(caller, "ListVersionsByFunction", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let versions = function.configs();
        let shown = |config: &Config| {
            let shown = self.with_optimization(listed(&arn, config, Suffix::Version), config);
            (sortable(config.version), FunctionConfiguration { state_reason: None, ..shown })
        };
        let items = versions.map(shown).collect();
        let (versions, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListVersionsByFunctionResponse { versions: Some(versions), next_marker })
    }
}

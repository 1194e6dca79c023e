//! Aliases: names for versions, with a share for a second one.

use std::collections::BTreeMap;

use lambent_model::{FunctionArn, Version};
use uuid::Uuid;

use super::function::{PAGE, WRONG_REVISION, check_revision};
use crate::locate::missing;
use crate::page::page;
use crate::record::Alias;
use crate::render;
use crate::shape::*;
use crate::snapshot::Function;
use crate::{Caller, Error, Registry};

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.into()))
}

fn no_alias(arn: &FunctionArn, name: &str) -> Error {
    Error::ResourceNotFound(format!("Cannot find alias arn: {}", arn.qualified(name)))
}

/// The version of that text, if the function has it.
fn version(function: &Function, text: &str) -> Result<Version, Error> {
    let arn = &function.head.arn;
    let absent = || Error::ResourceNotFound(format!("Function not found: {}", arn.qualified(text)));
    let version: Version = text.parse().map_err(|_| absent())?;
    function.config(version).map(|_| version).ok_or_else(absent)
}

fn routing(
    function: &Function,
    main: Version,
    asked: &AliasRoutingConfiguration,
) -> Result<Option<(Version, f64)>, Error> {
    let weights: BTreeMap<String, f64> = asked.additional_version_weights.clone().unwrap_or_default();
    if weights.len() > 1 {
        return invalid("Number of items in AdditionalVersionWeights cannot be greater than 1");
    }
    let Some((other, share)) = weights.into_iter().next() else { return Ok(None) };
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::Validation(format!(
            "1 validation error detected: Value '{{{other}={share:?}}}' at 'routingConfig.additionalVersionWeights' \
             failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or \
             equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]"
        )));
    }
    if other == main.to_string() {
        return invalid(format!(
            "Invalid function version {main}. Function version {main} is already included in routing configuration."
        ));
    }
    if main == Version::Latest {
        return invalid("$LATEST is not supported for an alias pointing to more than 1 version");
    }
    if !other.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Validation(format!(
            "1 validation error detected: Value '{{{other}={share:?}}}' at 'routingConfig.additionalVersionWeights' \
             failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or \
             equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]"
        )));
    }
    Ok(Some((version(function, &other)?, share)))
}

impl Registry {
    /// AWS's `CreateAlias`.
    pub async fn create_alias(
        &self,
        caller: &Caller,
        request: CreateAliasRequest,
    ) -> Result<AliasConfiguration, Error> {
        let arn = self.locate_whole(caller, "CreateAlias", &request.function_name)?;
        let absent =
            || Error::ResourceNotFound(format!("Function not found: {}", arn.qualified(&request.function_version)));
        self.change_or(&arn, absent, |function, draft| {
            let main = version(function, &request.function_version)?;
            if draft.head.aliases.contains_key(&request.name) {
                let text = format!("Alias already exists: {}", arn.qualified(&request.name));
                return Err(Error::ResourceConflict(text));
            }
            let additional = match &request.routing_config {
                Some(asked) => routing(function, main, asked)?,
                None => None,
            };
            let description = request.description.clone().unwrap_or_default();
            let alias = Alias { version: main, description, additional, revision_id: Uuid::new_v4() };
            draft.head.aliases.insert(request.name.clone(), alias.clone());
            Ok(render::alias(&arn, &request.name, &alias))
        })
        .await
    }

    /// AWS's `GetAlias`.
    pub async fn get_alias(&self, caller: &Caller, request: GetAliasRequest) -> Result<AliasConfiguration, Error> {
        let arn = self.locate_whole(caller, "GetAlias", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let alias = function.head.aliases.get(&request.name).ok_or_else(|| no_alias(&arn, &request.name))?;
        Ok(render::alias(&arn, &request.name, alias))
    }

    /// AWS's `UpdateAlias`.
    pub async fn update_alias(
        &self,
        caller: &Caller,
        request: UpdateAliasRequest,
    ) -> Result<AliasConfiguration, Error> {
        let arn = self.locate_whole(caller, "UpdateAlias", &request.function_name)?;
        self.change(&arn, |function, draft| {
            let Some(alias) = draft.head.aliases.get_mut(&request.name) else {
                return Err(Error::ResourceNotFound(format!("Alias not found: {}", arn.qualified(&request.name))));
            };
            check_revision(request.revision_id.as_ref(), alias.revision_id, WRONG_REVISION)?;
            if let Some(text) = &request.function_version {
                alias.version = version(function, text)?;
            }
            if let Some(asked) = &request.routing_config {
                alias.additional = routing(function, alias.version, asked)?;
            } else if let Some((other, share)) = alias.additional {
                // The second version stays; it must still be another one than the first.
                let kept =
                    AliasRoutingConfiguration { additional_version_weights: Some([(other.to_string(), share)].into()) };
                alias.additional = routing(function, alias.version, &kept)?;
            }
            if let Some(description) = &request.description {
                alias.description.clone_from(description);
            }
            alias.revision_id = Uuid::new_v4();
            Ok(render::alias(&arn, &request.name, alias))
        })
        .await
    }

    /// AWS's `DeleteAlias`, with what hangs on it. Deleting what is not there is no error.
    pub async fn delete_alias(&self, caller: &Caller, request: DeleteAliasRequest) -> Result<(), Error> {
        let arn = self.locate_whole(caller, "DeleteAlias", &request.function_name)?;
        self.change(&arn, |_, draft| {
            let head = &mut draft.head;
            head.aliases.remove(&request.name);
            head.urls.remove(&request.name);
            head.policies.remove(&request.name);
            head.provisioned.remove(&request.name);
            head.event_invoke.remove(&request.name);
            Ok(())
        })
        .await
    }

    /// AWS's `ListAliases`.
    pub async fn list_aliases(
        &self,
        caller: &Caller,
        request: ListAliasesRequest,
    ) -> Result<ListAliasesResponse, Error> {
        let arn = self.locate_whole(caller, "ListAliases", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let points_there = |alias: &Alias| match &request.function_version {
            None => true,
            Some(text) => {
                alias.version.to_string() == *text
                    || alias.additional.is_some_and(|(other, _)| other.to_string() == *text)
            }
        };
        let aliases = function.head.aliases.iter().filter(|(_, alias)| points_there(alias));
        let items = aliases.map(|(name, alias)| (name.clone(), render::alias(&arn, name, alias))).collect();
        let (aliases, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListAliasesResponse { aliases: Some(aliases), next_marker })
    }
}

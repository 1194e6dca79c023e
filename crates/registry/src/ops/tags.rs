//! Tags of functions, layers, event source mappings and code signing configurations.

use std::collections::BTreeMap;

use lambent_model::{AccountId, FunctionArn, FunctionRef};
use uuid::Uuid;

use crate::configure;
use crate::locate::missing;
use crate::record::Lifecycle;
use crate::shape::*;
use crate::{Caller, Error, Registry, key};

type Tags = BTreeMap<String, String>;

/// Most tags of one resource.
const MOST: usize = 50;

fn invalid<T>(text: &str) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.to_owned()))
}

/// Whether a resource may have these tags.
pub(super) fn check(tags: &Tags) -> Result<(), Error> {
    if tags.len() > MOST {
        return invalid("Number of tags exceeds resource tag limit.");
    }
    if tags.keys().any(|key| key.len() >= 4 && key.as_bytes().get(..4).is_some_and(|k| k.eq_ignore_ascii_case(b"aws:")))
    {
        return invalid("aws: prefixed tag key names are not allowed for external use.");
    }
    Ok(())
}

/// What an ARN names that can have tags.
enum Tagged {
    Function(FunctionArn),
    Layer(AccountId, String),
    Mapping(AccountId, String),
    Signing(AccountId, String),
}

fn tagged(registry: &Registry, caller: &Caller, resource: &str) -> Result<Tagged, Error> {
    let parts: Vec<&str> = resource.split(':').collect();
    let bad = || {
        Error::Validation(format!(
            "1 validation error detected: Value '{resource}' at 'resource' failed to satisfy constraint: Member must \
             be the ARN of a function, a layer, an event source mapping or a code signing configuration"
        ))
    };
    let ["arn", _, "lambda", region, account, kind, name, rest @ ..] = parts.as_slice() else { return Err(bad()) };
    let account: AccountId = account.parse().map_err(|_| bad())?;
    if *region != registry.settings.region.as_str() || account != caller.account {
        return Err(crate::locate::denied(caller, "lambda:TagResource", resource));
    }
    match (*kind, rest) {
        ("function", []) => {
            let reference: FunctionRef = resource.parse().map_err(|_| bad())?;
            Ok(Tagged::Function(reference.resolve(&account, &registry.settings.region)))
        }
        ("function", _) => {
            invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
        }
        ("layer", []) => Ok(Tagged::Layer(account, (*name).to_owned())),
        ("event-source-mapping", []) => Ok(Tagged::Mapping(account, (*name).to_owned())),
        ("code-signing-config", []) => Ok(Tagged::Signing(account, (*name).to_owned())),
        _ => Err(bad()),
    }
}

fn gone() -> Error {
    Error::ResourceNotFound("The resource you requested does not exist.".to_owned())
}

impl Registry {
    /// AWS's `TagResource`.
    pub async fn tag_resource(&self, caller: &Caller, request: TagResourceRequest) -> Result<(), Error> {
        if request.tags.is_empty() {
            return invalid("An error occurred and the request cannot be processed.");
        }
        self.retag(caller, &request.resource, |tags| {
            tags.extend(request.tags.clone());
            check(tags)
        })
        .await
    }

    /// AWS's `UntagResource`.
    pub async fn untag_resource(&self, caller: &Caller, request: UntagResourceRequest) -> Result<(), Error> {
        if request.tag_keys.is_empty() {
            return Err(Error::Validation(
                "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not \
                 be null"
                    .to_owned(),
            ));
        }
        self.retag(caller, &request.resource, |tags| {
            tags.retain(|key, _| !request.tag_keys.contains(key));
            Ok(())
        })
        .await
    }

    /// AWS's `ListTags`.
    pub async fn list_tags(&self, caller: &Caller, request: ListTagsRequest) -> Result<ListTagsResponse, Error> {
        let tags = match tagged(self, caller, &request.resource)? {
            Tagged::Function(arn) => {
                self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?.head.tags.clone()
            }
            Tagged::Layer(account, name) => {
                self.snapshot.layers.get(&key::layer(&account, &name)).ok_or_else(gone)?.value.tags.clone()
            }
            Tagged::Mapping(account, uuid) => {
                self.snapshot.mappings.get(&key::mapping(&account, &uuid)).ok_or_else(gone)?.value.tags.clone()
            }
            Tagged::Signing(account, id) => {
                self.snapshot.signings.get(&key::signing(&account, &id)).ok_or_else(gone)?.value.tags.clone()
            }
        };
        Ok(ListTagsResponse { tags: Some(tags) })
    }

    async fn retag(
        &self,
        caller: &Caller,
        resource: &str,
        change: impl Fn(&mut Tags) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match tagged(self, caller, resource)? {
            Tagged::Function(arn) => self.retag_function(&arn, change).await,
            Tagged::Layer(account, name) => {
                let key = key::layer(&account, &name);
                self.revise(&self.snapshot.layers, &key, gone, |layer| change(&mut layer.tags)).await
            }
            Tagged::Mapping(account, uuid) => {
                let key = key::mapping(&account, &uuid);
                self.revise(&self.snapshot.mappings, &key, gone, |mapping| change(&mut mapping.tags)).await
            }
            Tagged::Signing(account, id) => {
                let key = key::signing(&account, &id);
                self.revise(&self.snapshot.signings, &key, gone, |signing| change(&mut signing.tags)).await
            }
        }
    }

    /// A tag can say what the function may reach; then `$LATEST` runs anew.
    async fn retag_function(
        &self,
        arn: &FunctionArn,
        change: impl Fn(&mut Tags) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let old = self
            .change(arn, |_, draft| {
                let head = &mut draft.head;
                change(&mut head.tags)?;
                let network = configure::network(&head.tags)?;
                let latest = &mut head.latest;
                if latest.settings.network == network {
                    return Ok(None);
                }
                latest.settings.network = network;
                match latest.state {
                    // The code is ready as it is.
                    Lifecycle::Active => Ok(Some(std::mem::replace(&mut latest.generation, Uuid::new_v4()))),
                    _ => Ok(None),
                }
            })
            .await?;
        if let Some(generation) = old {
            self.deployer.retire(generation);
        }
        Ok(())
    }
}

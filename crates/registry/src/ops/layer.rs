//! Layers: versions of shared code, and who may use them.

use lambent_model::clock::last_modified;
use lambent_model::{AccountId, limits};
use lambent_policy::document::{Conditions, Decision, Document, Effect, Request, Statement, Who};
use lambent_store::port::{Expect, Write};
use uuid::Uuid;

use super::function::check_revision;
use super::permission::{add, principal, remove, text};
use crate::code::{Location, Package, sha256_text};
use crate::configure::{check_architectures, used};
use crate::locate::denied;
use crate::page::page;
use crate::record::{Layer, LayerPolicy, LayerVersion, UsedLayer};
use crate::registry::{ATTEMPTS, document};
use crate::shape::*;
use crate::{Caller, Error, Registry, key};

const PAGE: usize = 50;
const ACTION: &str = "lambda:GetLayerVersion";
const WRONG_REVISION: &str = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy \
     API to retrieve the latest Revision Id";

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.into()))
}

fn gone() -> Error {
    Error::ResourceNotFound("The resource you requested does not exist.".to_owned())
}

fn no_version(arn: &str, version: u64) -> Error {
    Error::ResourceNotFound(format!("Layer version {arn}:{version} does not exist."))
}

/// A layer as a caller wrote it.
struct Named {
    account: AccountId,
    region: String,
    name: String,
    version: Option<u64>,
}

impl Named {
    fn key(&self) -> String {
        key::layer(&self.account, &self.name)
    }

    fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{}:layer:{}", self.region, self.account, self.name)
    }
}

/// `arn:PARTITION:lambda:REGION:ACCOUNT:layer:NAME[:VERSION]`.
fn parse_arn(arn: &str) -> Option<Named> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", _, "lambda", region, account, "layer", name, rest @ ..] = parts.as_slice() else { return None };
    let version = match rest {
        [] => None,
        [version] => Some(version.parse().ok()?),
        _ => return None,
    };
    Some(Named { account: account.parse().ok()?, region: (*region).to_owned(), name: (*name).to_owned(), version })
}

fn content(registry: &Registry, version: &LayerVersion) -> LayerVersionContentOutput {
    LayerVersionContentOutput {
        location: Some(registry.link(version.code.digest)),
        code_sha256: Some(sha256_text(&version.code)),
        code_size: Some(version.code.zipped_bytes),
        ..LayerVersionContentOutput::default()
    }
}

fn show(registry: &Registry, layer: &Layer, number: u64, version: &LayerVersion) -> GetLayerVersionResponse {
    GetLayerVersionResponse {
        content: Some(content(registry, version)),
        layer_arn: Some(layer.arn.clone()),
        layer_version_arn: Some(format!("{}:{number}", layer.arn)),
        description: Some(version.description.clone()),
        created_date: Some(last_modified(version.created)),
        version: Some(number),
        compatible_architectures: version.architectures.clone(),
        compatible_runtimes: version.runtimes.clone(),
        license_info: version.license.clone(),
    }
}

fn item(layer: &Layer, number: u64, version: &LayerVersion) -> LayerVersionsListItem {
    LayerVersionsListItem {
        layer_version_arn: Some(format!("{}:{number}", layer.arn)),
        version: Some(number),
        description: Some(version.description.clone()),
        created_date: Some(last_modified(version.created)),
        compatible_architectures: version.architectures.clone(),
        compatible_runtimes: version.runtimes.clone(),
        license_info: version.license.clone(),
    }
}

/// Whether a version is for what a list asks for; one that says nothing is for nothing in particular.
fn fits(version: &LayerVersion, runtime: Option<&String>, architecture: Option<&String>) -> bool {
    let names = |list: &Option<Vec<String>>, name: &String| list.as_ref().is_some_and(|list| list.contains(name));
    runtime.is_none_or(|runtime| names(&version.runtimes, runtime))
        && architecture.is_none_or(|architecture| names(&version.architectures, architecture))
}

impl Registry {
    fn name_layer(&self, caller: &Caller, name: &str) -> Result<Named, Error> {
        if name.starts_with("arn:") {
            return parse_arn(name).ok_or_else(gone);
        }
        Ok(Named {
            account: caller.account.clone(),
            region: self.settings.region.to_string(),
            name: name.to_owned(),
            version: None,
        })
    }

    /// Refuses callers of other accounts whom the version's policy does not let in.
    fn admit_to_layer(&self, caller: &Caller, named: &Named, number: u64) -> Result<(), Error> {
        if named.account == caller.account {
            return Ok(());
        }
        let resource = format!("{}:{number}", named.arn());
        let layer = self.snapshot.layers.get(&named.key());
        let version = layer.as_ref().and_then(|layer| layer.value.versions.get(&number));
        let request = Request {
            who: Who::Account { account: caller.account.as_str(), arn: &caller.arn },
            action: ACTION,
            resource: &resource,
            context: &[],
        };
        match version.and_then(|version| version.policy.as_ref()).map(|policy| policy.document.evaluate(&request)) {
            Some(Decision::Allow) => Ok(()),
            _ => Err(denied(caller, ACTION, &resource)),
        }
    }

    /// The layer versions a function asks for.
    pub(crate) fn use_layers(&self, caller: &Caller, arns: &[String]) -> Result<Vec<UsedLayer>, Error> {
        if arns.len() > limits::LAYERS {
            return invalid(format!("Cannot reference more than {} layers.", limits::LAYERS));
        }
        let mut layers: Vec<(String, UsedLayer)> = Vec::with_capacity(arns.len());
        for arn in arns {
            let absent = || Error::InvalidParameterValue(format!("Layer version {arn} does not exist."));
            let named = parse_arn(arn).ok_or_else(absent)?;
            let number = named.version.ok_or_else(absent)?;
            if named.region != self.settings.region.as_str() {
                return invalid(format!(
                    "Layers are not in the same region as the function. Layers are expected to be in region {}.",
                    self.settings.region
                ));
            }
            self.admit_to_layer(caller, &named, number)?;
            let layer = self.snapshot.layers.get(&named.key()).ok_or_else(absent)?;
            let version = layer.value.versions.get(&number).ok_or_else(absent)?;
            if let Some((_, other)) = layers.iter().find(|(key, _)| *key == named.key()) {
                return invalid(format!(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. \
                     {} and {arn} are versions of the same layer.",
                    other.layer.arn
                ));
            }
            layers.push((named.key(), used(arn.clone(), version.code.clone(), version.unzipped_bytes)));
        }
        Ok(layers.into_iter().map(|(_, used)| used).collect())
    }

    /// AWS's `PublishLayerVersion`.
    pub async fn publish_layer_version(
        &self,
        caller: &Caller,
        request: PublishLayerVersionRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        let named = self.name_layer(caller, &request.layer_name)?;
        if named.account != caller.account {
            return Err(denied(caller, "lambda:PublishLayerVersion", &named.arn()));
        }
        if request.compatible_architectures.as_ref().is_some_and(|list| list.len() == 1) {
            check_architectures(request.compatible_architectures.as_deref())?;
        }
        let content = request.content;
        let location = Location {
            zip: content.zip_file.map(|zip| zip.0),
            bucket: content.s3_bucket,
            key: content.s3_key,
            version: content.s3_object_version,
        };
        let code = self.take_code(&caller.account, location, Package::Zip).await?;
        let version = LayerVersion {
            code: code.code.clone(),
            unzipped_bytes: code.unzipped_bytes,
            created: self.clock.now(),
            description: request.description.unwrap_or_default(),
            license: request.license_info,
            runtimes: request.compatible_runtimes,
            architectures: request.compatible_architectures,
            policy: None,
        };
        let (layer, number) = self.add_layer_version(&named, version).await?;
        let version = layer.versions.get(&number).ok_or_else(gone)?;
        Ok(show(self, &layer, number, version))
    }

    async fn add_layer_version(&self, named: &Named, version: LayerVersion) -> Result<(Layer, u64), Error> {
        let key = named.key();
        for _ in 0..ATTEMPTS {
            let kept = self.snapshot.layers.get(&key);
            let expect = kept.as_ref().map_or(Expect::Absent, |kept| Expect::Revision(kept.revision));
            let mut layer = kept.map(|kept| kept.value.clone()).unwrap_or_else(|| Layer {
                arn: named.arn(),
                name: named.name.clone(),
                next_version: 1,
                versions: Default::default(),
                tags: Default::default(),
            });
            let number = layer.next_version;
            layer.next_version += 1;
            layer.versions.insert(number, version.clone());
            match self.commit(vec![Write { key: key.clone(), expect, value: Some(document(&layer)?) }]).await {
                Ok(()) => return Ok((layer, number)),
                Err(Error::Store(lambent_store::Error::Conflict { actual, .. })) => self.catch_up(actual).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyRequests)
    }

    /// AWS's `GetLayerVersion`.
    pub async fn get_layer_version(
        &self,
        caller: &Caller,
        request: GetLayerVersionRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        let named = self.name_layer(caller, &request.layer_name)?;
        self.show_layer(caller, &named, request.version_number)
    }

    /// AWS's `GetLayerVersionByArn`.
    pub async fn get_layer_version_by_arn(
        &self,
        caller: &Caller,
        request: GetLayerVersionByArnRequest,
    ) -> Result<GetLayerVersionResponse, Error> {
        let named = parse_arn(&request.arn).ok_or_else(gone)?;
        let number = named.version.ok_or_else(gone)?;
        self.show_layer(caller, &named, number)
    }

    fn show_layer(&self, caller: &Caller, named: &Named, number: u64) -> Result<GetLayerVersionResponse, Error> {
        if number < 1 {
            return invalid("Layer Version Cannot be less than 1");
        }
        self.admit_to_layer(caller, named, number)?;
        let layer = self.snapshot.layers.get(&named.key()).ok_or_else(gone)?;
        let version = layer.value.versions.get(&number).ok_or_else(gone)?;
        Ok(show(self, &layer.value, number, version))
    }

    /// AWS's `ListLayers`: of each layer the newest version that fits.
    pub async fn list_layers(&self, caller: &Caller, request: ListLayersRequest) -> Result<ListLayersResponse, Error> {
        let own = format!(":{}:", caller.account);
        let (runtime, architecture) = (request.compatible_runtime.as_ref(), request.compatible_architecture.as_ref());
        let mut items = Vec::new();
        for kept in self.snapshot.layers.all() {
            let layer = &kept.value;
            let newest = layer.versions.iter().rev().find(|(_, version)| fits(version, runtime, architecture));
            if let (true, Some((number, version))) = (layer.arn.contains(&own), newest) {
                let listed = LayersListItem {
                    layer_name: Some(layer.name.clone()),
                    layer_arn: Some(layer.arn.clone()),
                    latest_matching_version: Some(item(layer, *number, version)),
                };
                items.push((layer.name.clone(), listed));
            }
        }
        let (layers, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListLayersResponse { layers: Some(layers), next_marker })
    }

    /// AWS's `ListLayerVersions`, newest first.
    pub async fn list_layer_versions(
        &self,
        caller: &Caller,
        request: ListLayerVersionsRequest,
    ) -> Result<ListLayerVersionsResponse, Error> {
        let named = self.name_layer(caller, &request.layer_name)?;
        if named.account != caller.account {
            return Err(denied(caller, "lambda:ListLayerVersions", &named.arn()));
        }
        let (runtime, architecture) = (request.compatible_runtime.as_ref(), request.compatible_architecture.as_ref());
        let mut items = Vec::new();
        if let Some(kept) = self.snapshot.layers.get(&named.key()) {
            let versions = kept.value.versions.iter().filter(|(_, version)| fits(version, runtime, architecture));
            items.extend(
                versions.map(|(number, version)| {
                    (format!("{:020}", u64::MAX - number), item(&kept.value, *number, version))
                }),
            );
        }
        let (versions, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListLayerVersionsResponse { layer_versions: Some(versions), next_marker })
    }

    /// AWS's `DeleteLayerVersion`. Functions that use it go on; deleting what is not there is no error.
    pub async fn delete_layer_version(&self, caller: &Caller, request: DeleteLayerVersionRequest) -> Result<(), Error> {
        if request.version_number < 1 {
            return invalid("Layer Version Cannot be less than 1");
        }
        let named = self.name_layer(caller, &request.layer_name)?;
        if named.account != caller.account {
            return Err(denied(caller, "lambda:DeleteLayerVersion", &named.arn()));
        }
        let delete = |layer: &mut Layer| {
            layer.versions.remove(&request.version_number);
            Ok(())
        };
        match self.revise(&self.snapshot.layers, &named.key(), gone, delete).await {
            Err(Error::ResourceNotFound(_)) => Ok(()),
            other => other,
        }
    }

    /// AWS's `AddLayerVersionPermission`.
    pub async fn add_layer_version_permission(
        &self,
        caller: &Caller,
        request: AddLayerVersionPermissionRequest,
    ) -> Result<AddLayerVersionPermissionResponse, Error> {
        let number = request.version_number;
        self.change_layer_policy(caller, &request.layer_name, number, |arn, policy| {
            let mut condition = Conditions::new();
            if let Some(organization) = &request.organization_id {
                let keys = condition.entry("StringEquals".to_owned()).or_default();
                keys.insert("aws:PrincipalOrgID".to_owned(), organization.as_str().into());
            }
            let statement = Statement {
                sid: Some(request.statement_id.clone()),
                effect: Effect::Allow,
                principal: principal(&request.principal)?,
                action: request.action.as_str().into(),
                resource: format!("{arn}:{number}").as_str().into(),
                condition,
            };
            let mut changed = policy
                .clone()
                .unwrap_or_else(|| LayerPolicy { revision_id: Uuid::new_v4(), document: Document::empty() });
            add(&mut changed.document, statement.clone())?;
            if policy.is_some() {
                check_revision(request.revision_id.as_ref(), changed.revision_id, WRONG_REVISION)?;
            }
            changed.revision_id = Uuid::new_v4();
            let revision_id = Some(changed.revision_id.to_string());
            *policy = Some(changed);
            Ok(AddLayerVersionPermissionResponse { statement: Some(text(&statement)), revision_id })
        })
        .await
    }

    /// AWS's `RemoveLayerVersionPermission`.
    pub async fn remove_layer_version_permission(
        &self,
        caller: &Caller,
        request: RemoveLayerVersionPermissionRequest,
    ) -> Result<(), Error> {
        self.change_layer_policy(caller, &request.layer_name, request.version_number, |_, policy| {
            let sid = &request.statement_id;
            let Some(kept) = policy else {
                return Err(Error::ResourceNotFound(format!("Statement {sid} is not found in resource policy.")));
            };
            check_revision(request.revision_id.as_ref(), kept.revision_id, WRONG_REVISION)?;
            remove(&mut kept.document, sid)?;
            kept.revision_id = Uuid::new_v4();
            if kept.document.statement.is_empty() {
                *policy = None;
            }
            Ok(())
        })
        .await
    }

    async fn change_layer_policy<T>(
        &self,
        caller: &Caller,
        name: &str,
        number: u64,
        change: impl Fn(&str, &mut Option<LayerPolicy>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let named = self.name_layer(caller, name)?;
        if named.account != caller.account {
            return Err(denied(caller, "lambda:AddLayerVersionPermission", &named.arn()));
        }
        let arn = named.arn();
        let absent = || no_version(&arn, number);
        self.revise(&self.snapshot.layers, &named.key(), absent, |layer| {
            let version = layer.versions.get_mut(&number).ok_or_else(absent)?;
            change(&arn, &mut version.policy)
        })
        .await
    }

    /// AWS's `GetLayerVersionPolicy`.
    pub async fn get_layer_version_policy(
        &self,
        caller: &Caller,
        request: GetLayerVersionPolicyRequest,
    ) -> Result<GetLayerVersionPolicyResponse, Error> {
        let named = self.name_layer(caller, &request.layer_name)?;
        if named.account != caller.account {
            return Err(denied(caller, "lambda:GetLayerVersionPolicy", &named.arn()));
        }
        let absent = || no_version(&named.arn(), request.version_number);
        let layer = self.snapshot.layers.get(&named.key()).ok_or_else(absent)?;
        let version = layer.value.versions.get(&request.version_number).ok_or_else(absent)?;
        match &version.policy {
            Some(policy) => Ok(GetLayerVersionPolicyResponse {
                policy: Some(text(&policy.document)),
                revision_id: Some(policy.revision_id.to_string()),
            }),
            None => Err(Error::ResourceNotFound("No policy is associated with the given resource.".to_owned())),
        }
    }
}

//! Code signing configurations. No code is signed here, so one that enforces signatures refuses all code.

use lambent_model::{AccountId, FunctionArn};
use lambent_store::port::{Expect, Write};
use uuid::Uuid;

use crate::locate::missing;
use crate::page::page;
use crate::record::Signing;
use crate::registry::document;
use crate::shape::*;
use crate::{Caller, Error, Registry, key};

const PAGE: usize = 50;

fn gone(arn: &str) -> Error {
    Error::ResourceNotFound(format!("The Lambda code signing configuration {arn} can not be found."))
}

/// The document key of the configuration that `arn` names in `account`.
fn key_of(account: &AccountId, arn: &str) -> String {
    key::signing(account, arn.rsplit(':').next().unwrap_or(arn))
}

/// The configuration of that ARN, for a function that shall use it.
pub(super) fn find_to_use(registry: &Registry, account: &AccountId, arn: &str) -> Result<Signing, Error> {
    let kept = registry.snapshot.signings.get(&key_of(account, arn)).filter(|kept| kept.value.arn == arn);
    kept.map(|kept| kept.value.clone()).ok_or_else(|| {
        Error::CodeSigningConfigNotFound(format!(
            "The code signing configuration cannot be found. Check that the provided configuration is not deleted: \
             {arn}."
        ))
    })
}

fn show(signing: &Signing) -> CodeSigningConfig {
    CodeSigningConfig {
        code_signing_config_id: signing.id.clone(),
        code_signing_config_arn: signing.arn.clone(),
        description: signing.description.clone(),
        allowed_publishers: AllowedPublishers { signing_profile_version_arns: signing.publishers.clone() },
        code_signing_policies: signing.policies.clone(),
        last_modified: lambent_model::clock::last_modified(signing.modified),
    }
}

impl Registry {
    fn signing(&self, caller: &Caller, arn: &str) -> Result<Signing, Error> {
        let kept = self.snapshot.signings.get(&key_of(&caller.account, arn)).filter(|kept| kept.value.arn == arn);
        kept.map(|kept| kept.value.clone()).ok_or_else(|| gone(arn))
    }

    fn signed_by(&self, caller: &Caller, arn: &str) -> Vec<FunctionArn> {
        let functions = self.snapshot.functions.all();
        let own = functions.iter().filter(|function| function.head.arn.account == caller.account);
        own.filter(|function| function.head.code_signing.as_deref() == Some(arn))
            .map(|function| function.head.arn.clone())
            .collect()
    }

    /// AWS's `CreateCodeSigningConfig`.
    pub async fn create_code_signing_config(
        &self,
        caller: &Caller,
        request: CreateCodeSigningConfigRequest,
    ) -> Result<CreateCodeSigningConfigResponse, Error> {
        let tags = request.tags.unwrap_or_default();
        super::tags::check(&tags)?;
        let id = format!("csc-{}", Uuid::new_v4().simple().to_string().get(..17).unwrap_or_default());
        let signing = Signing {
            arn: format!("arn:aws:lambda:{}:{}:code-signing-config:{id}", self.settings.region, caller.account),
            id,
            description: request.description,
            publishers: request.allowed_publishers.signing_profile_version_arns,
            policies: CodeSigningPolicies {
                untrusted_artifact_on_deployment: request
                    .code_signing_policies
                    .and_then(|policies| policies.untrusted_artifact_on_deployment)
                    .or_else(|| Some("Warn".to_owned())),
            },
            modified: self.clock.now(),
            tags,
        };
        let key = key::signing(&caller.account, &signing.id);
        self.commit(vec![Write { key, expect: Expect::Absent, value: Some(document(&signing)?) }]).await?;
        Ok(CreateCodeSigningConfigResponse { code_signing_config: show(&signing) })
    }

    /// AWS's `GetCodeSigningConfig`.
    pub async fn get_code_signing_config(
        &self,
        caller: &Caller,
        request: GetCodeSigningConfigRequest,
    ) -> Result<GetCodeSigningConfigResponse, Error> {
        let signing = self.signing(caller, &request.code_signing_config_arn)?;
        Ok(GetCodeSigningConfigResponse { code_signing_config: show(&signing) })
    }

    /// AWS's `UpdateCodeSigningConfig`.
    pub async fn update_code_signing_config(
        &self,
        caller: &Caller,
        request: UpdateCodeSigningConfigRequest,
    ) -> Result<UpdateCodeSigningConfigResponse, Error> {
        let arn = &request.code_signing_config_arn;
        self.signing(caller, arn)?;
        let now = self.clock.now();
        let key = key_of(&caller.account, arn);
        self.revise(
            &self.snapshot.signings,
            &key,
            || gone(arn),
            |signing| {
                if let Some(publishers) = &request.allowed_publishers {
                    signing.publishers.clone_from(&publishers.signing_profile_version_arns);
                }
                if let Some(policies) = &request.code_signing_policies {
                    signing.policies.clone_from(policies);
                }
                if request.description.is_some() {
                    signing.description.clone_from(&request.description);
                }
                signing.modified = now;
                Ok(UpdateCodeSigningConfigResponse { code_signing_config: show(signing) })
            },
        )
        .await
    }

    /// AWS's `DeleteCodeSigningConfig`.
    pub async fn delete_code_signing_config(
        &self,
        caller: &Caller,
        request: DeleteCodeSigningConfigRequest,
    ) -> Result<DeleteCodeSigningConfigResponse, Error> {
        let arn = &request.code_signing_config_arn;
        self.signing(caller, arn)?;
        if !self.signed_by(caller, arn).is_empty() {
            return Err(Error::ResourceConflict(format!(
                "The code signing configuration {arn} is in use by one or more functions."
            )));
        }
        let key = key_of(&caller.account, arn);
        self.commit(vec![Write { key, expect: Expect::Anything, value: None }]).await?;
        Ok(DeleteCodeSigningConfigResponse {})
    }

    /// AWS's `ListCodeSigningConfigs`.
    pub async fn list_code_signing_configs(
        &self,
        caller: &Caller,
        request: ListCodeSigningConfigsRequest,
    ) -> Result<ListCodeSigningConfigsResponse, Error> {
        let own = format!(":{}:", caller.account);
        let kept = self.snapshot.signings.all();
        let items = (kept.iter().filter(|kept| kept.value.arn.contains(&own)))
            .map(|kept| (kept.value.id.clone(), show(&kept.value)))
            .collect();
        let (configs, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListCodeSigningConfigsResponse { code_signing_configs: Some(configs), next_marker })
    }

    /// AWS's `ListFunctionsByCodeSigningConfig`.
    pub async fn list_functions_by_code_signing_config(
        &self,
        caller: &Caller,
        request: ListFunctionsByCodeSigningConfigRequest,
    ) -> Result<ListFunctionsByCodeSigningConfigResponse, Error> {
        self.signing(caller, &request.code_signing_config_arn)?;
        let arns = self.signed_by(caller, &request.code_signing_config_arn);
        let items = arns.into_iter().map(|arn| (arn.name.to_string(), arn.to_string())).collect();
        let (function_arns, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListFunctionsByCodeSigningConfigResponse { function_arns: Some(function_arns), next_marker })
    }

    /// AWS's `PutFunctionCodeSigningConfig`.
    pub async fn put_function_code_signing_config(
        &self,
        caller: &Caller,
        request: PutFunctionCodeSigningConfigRequest,
    ) -> Result<PutFunctionCodeSigningConfigResponse, Error> {
        let arn = self.locate_whole(caller, "PutFunctionCodeSigningConfig", &request.function_name)?;
        find_to_use(self, &arn.account, &request.code_signing_config_arn)?;
        self.change(&arn, |_, draft| {
            draft.head.code_signing = Some(request.code_signing_config_arn.clone());
            Ok(PutFunctionCodeSigningConfigResponse {
                code_signing_config_arn: request.code_signing_config_arn.clone(),
                function_name: arn.name.to_string(),
            })
        })
        .await
    }

    /// AWS's `GetFunctionCodeSigningConfig`; empty where the function has none.
    pub async fn get_function_code_signing_config(
        &self,
        caller: &Caller,
        request: GetFunctionCodeSigningConfigRequest,
    ) -> Result<GetFunctionCodeSigningConfigResponse, Error> {
        let arn = self.locate_whole(caller, "GetFunctionCodeSigningConfig", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let code_signing_config_arn = function.head.code_signing.clone();
        let function_name = code_signing_config_arn.is_some().then(|| arn.name.to_string());
        Ok(GetFunctionCodeSigningConfigResponse { code_signing_config_arn, function_name })
    }

    /// AWS's `DeleteFunctionCodeSigningConfig`.
    pub async fn delete_function_code_signing_config(
        &self,
        caller: &Caller,
        request: DeleteFunctionCodeSigningConfigRequest,
    ) -> Result<(), Error> {
        let arn = self.locate_whole(caller, "DeleteFunctionCodeSigningConfig", &request.function_name)?;
        self.change(&arn, |_, draft| {
            draft.head.code_signing = None;
            Ok(())
        })
        .await
    }
}

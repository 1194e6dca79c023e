//! Concurrency: reserved and provisioned, and the account's. What provisioned concurrency becomes is [`crate::provision`]'s.

use std::sync::Arc;

use lambent_model::{FunctionArn, Qualifier, Version, limits};

use crate::locate::{Target, missing};
use crate::page::page;
use crate::provision::shown;
use crate::record::Provisioned;
use crate::shape::*;
use crate::snapshot::Function;
use crate::{Caller, Error, Registry};

const PAGE: usize = 50;
const PUT_PROVISIONED: &str = "PutProvisionedConcurrencyConfig";

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.into()))
}

impl Registry {
    fn unreserved(&self, account: &lambent_model::AccountId, without: Option<&FunctionArn>) -> u32 {
        let functions = self.snapshot.functions.all();
        let reserved: u32 = (functions.iter())
            .filter(|function| function.head.arn.account == *account && Some(&function.head.arn) != without)
            .filter_map(|function| function.head.reserved_concurrency)
            .fold(0, u32::saturating_add);
        self.settings.concurrency.saturating_sub(reserved)
    }

    /// AWS's `PutFunctionConcurrency`.
    pub async fn put_function_concurrency(
        &self,
        caller: &Caller,
        request: PutFunctionConcurrencyRequest,
    ) -> Result<Concurrency, Error> {
        let Target { arn, qualifier } = self.locate(caller, "PutFunctionConcurrency", &request.function_name, None)?;
        if qualifier.is_some() {
            return invalid(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this \
                 operation. Please specify either a function name or an unqualified function ARN.",
            );
        }
        let asked = request.reserved_concurrent_executions;
        // The sum over all functions is looked at and changed by one at a time.
        let _alone = self.concurrency.lock().await;
        let absent = || missing(&arn, Some(&Qualifier::Version(Version::Latest)));
        self.change_or(&arn, absent, |function, draft| {
            let left = self.unreserved(&arn.account, Some(&arn));
            if asked > 0 && left.saturating_sub(asked) < limits::UNRESERVED_CONCURRENCY_MINIMUM {
                return invalid(format!(
                    "Specified ReservedConcurrentExecutions for function decreases account's \
                     UnreservedConcurrentExecution below its minimum value of [{}].",
                    limits::UNRESERVED_CONCURRENCY_MINIMUM
                ));
            }
            let provisioned: u32 = function.head.provisioned.values().map(|provisioned| provisioned.requested).sum();
            if asked < provisioned {
                return invalid(format!(
                    " ReservedConcurrentExecutions  {asked} should not be lower than function's total provisioned \
                     concurrency [{provisioned}]."
                ));
            }
            draft.head.reserved_concurrency = Some(asked);
            Ok(Concurrency { reserved_concurrent_executions: Some(asked) })
        })
        .await
    }

    /// AWS's `GetFunctionConcurrency`.
    pub async fn get_function_concurrency(
        &self,
        caller: &Caller,
        request: GetFunctionConcurrencyRequest,
    ) -> Result<GetFunctionConcurrencyResponse, Error> {
        let arn = self.locate_whole(caller, "GetFunctionConcurrency", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        Ok(GetFunctionConcurrencyResponse { reserved_concurrent_executions: function.head.reserved_concurrency })
    }

    /// AWS's `DeleteFunctionConcurrency`.
    pub async fn delete_function_concurrency(
        &self,
        caller: &Caller,
        request: DeleteFunctionConcurrencyRequest,
    ) -> Result<(), Error> {
        let arn = self.locate_whole(caller, "DeleteFunctionConcurrency", &request.function_name)?;
        self.change(&arn, |_, draft| {
            draft.head.reserved_concurrency = None;
            Ok(())
        })
        .await
    }

    /// AWS's `GetAccountSettings`.
    pub async fn get_account_settings(
        &self,
        caller: &Caller,
        _: GetAccountSettingsRequest,
    ) -> Result<GetAccountSettingsResponse, Error> {
        let functions = self.snapshot.functions.all();
        let count = functions.iter().filter(|function| function.head.arn.account == caller.account).count();
        Ok(GetAccountSettingsResponse {
            account_limit: Some(AccountLimit {
                total_code_size: Some(limits::TOTAL_CODE_BYTES),
                code_size_unzipped: Some(limits::UNZIPPED_CODE_BYTES),
                code_size_zipped: Some(limits::ZIPPED_CODE_BYTES),
                concurrent_executions: Some(self.settings.concurrency),
                unreserved_concurrent_executions: Some(self.unreserved(&caller.account, None)),
            }),
            account_usage: Some(AccountUsage {
                total_code_size: Some(self.code_bytes(&caller.account)),
                function_count: Some(count as u64),
            }),
        })
    }

    /// The function and the name of the version or alias that provisioned concurrency is asked for.
    fn provisionable(
        &self,
        caller: &Caller,
        action: &str,
        name: &str,
        qualifier: &str,
        unpublished: &str,
    ) -> Result<(FunctionArn, Qualifier, Arc<Function>), Error> {
        let Target { arn, qualifier } = self.locate(caller, action, name, Some(qualifier))?;
        let Some(qualifier) = qualifier.filter(|qualifier| *qualifier != Qualifier::Version(Version::Latest)) else {
            return invalid(unpublished);
        };
        let absent = || match &qualifier {
            Qualifier::Alias(_) => {
                Error::ResourceNotFound(format!("Cannot find alias arn: {}", arn.qualified(&qualifier)))
            }
            Qualifier::Version(_) => missing(&arn, Some(&qualifier)),
        };
        let function = self.snapshot.functions.get(&arn).ok_or_else(absent)?;
        let config = function.qualified(Some(&qualifier)).ok_or_else(absent)?;
        if action == PUT_PROVISIONED && config.takes_snapshots() {
            return invalid("Provisioned Concurrency is not supported for SnapStart enabled functions.");
        }
        if action == PUT_PROVISIONED && config.settings.per_tenant {
            return invalid("Provisioned Concurrency is not supported for functions with tenancy configuration.");
        }
        Ok((arn, qualifier, function))
    }

    /// AWS's `PutProvisionedConcurrencyConfig`.
    pub async fn put_provisioned_concurrency_config(
        &self,
        caller: &Caller,
        request: PutProvisionedConcurrencyConfigRequest,
    ) -> Result<ProvisionedConcurrency, Error> {
        let (arn, qualifier, _) = self.provisionable(
            caller,
            PUT_PROVISIONED,
            &request.function_name,
            &request.qualifier,
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        )?;
        let asked = request.provisioned_concurrent_executions;
        let now = self.clock.now();
        // The sum over all functions is looked at and changed by one at a time.
        let _alone = self.concurrency.lock().await;
        self.change(&arn, |function, draft| {
            self.check_provisioned(function, &qualifier, asked)?;
            let (name, provisioned) = (qualifier.to_string(), Provisioned { requested: asked, modified: now });
            draft.head.provisioned.insert(name.clone(), provisioned.clone());
            let available = self.provisioned(function, &name, &provisioned).available_provisioned_concurrent_executions;
            Ok(shown(&provisioned, available, "IN_PROGRESS", None))
        })
        .await
    }

    /// Provisioned by functions that have no reservation of their own, but for one qualifier of `without`.
    fn provisioned_unreserved(&self, account: &lambent_model::AccountId, without: (&FunctionArn, &str)) -> u32 {
        let mut total: u32 = 0;
        for function in self.snapshot.functions.all() {
            let head = &function.head;
            if head.arn.account != *account || head.reserved_concurrency.is_some() {
                continue;
            }
            let others = head.provisioned.iter().filter(|(name, _)| (&head.arn, name.as_str()) != without);
            total = others.map(|(_, provisioned)| provisioned.requested).fold(total, u32::saturating_add);
        }
        total
    }

    fn check_provisioned(&self, function: &Function, qualifier: &Qualifier, asked: u32) -> Result<(), Error> {
        let head = &function.head;
        let others = head.provisioned.iter().filter(|(name, _)| **name != qualifier.to_string());
        let total = others.map(|(_, provisioned)| provisioned.requested).fold(asked, u32::saturating_add);
        let elsewhere = self.provisioned_unreserved(&head.arn.account, (&head.arn, &qualifier.to_string()));
        let unreserved = self.unreserved(&head.arn.account, None).saturating_sub(elsewhere);
        match head.reserved_concurrency {
            Some(reserved) if total > reserved => {
                return invalid(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for \
                     function",
                );
            }
            Some(_) => {}
            None if asked > unreserved => {
                return invalid(format!(
                    "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency \
                     [{unreserved}]."
                ));
            }
            None if unreserved - asked < limits::UNRESERVED_CONCURRENCY_MINIMUM => {
                return invalid(format!(
                    "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution \
                     below its minimum value of [{}].",
                    limits::UNRESERVED_CONCURRENCY_MINIMUM
                ));
            }
            None => {}
        }
        match qualifier {
            Qualifier::Alias(name) => {
                let version = head.aliases.get(&**name).map(|alias| alias.version.to_string());
                if version.is_some_and(|version| head.provisioned.contains_key(&version)) {
                    let text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version";
                    return Err(Error::ResourceConflict(text.to_owned()));
                }
            }
            Qualifier::Version(version) => {
                let is_aliased = |name: &String| head.aliases.get(name).is_some_and(|alias| alias.version == *version);
                if head.provisioned.keys().any(is_aliased) {
                    let text = "Version is pointed by a Provisioned Concurrency alias";
                    return Err(Error::ResourceConflict(text.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// AWS's `GetProvisionedConcurrencyConfig`.
    pub async fn get_provisioned_concurrency_config(
        &self,
        caller: &Caller,
        request: GetProvisionedConcurrencyConfigRequest,
    ) -> Result<ProvisionedConcurrency, Error> {
        let (_, qualifier, function) = self.provisionable(
            caller,
            "GetProvisionedConcurrencyConfig",
            &request.function_name,
            &request.qualifier,
            "The function resource provided must be an alias or a published version.",
        )?;
        let name = qualifier.to_string();
        let found = function.head.provisioned.get(&name);
        found.map(|provisioned| self.provisioned(&function, &name, provisioned)).ok_or_else(|| {
            let text = "No Provisioned Concurrency Config found for this function";
            Error::ProvisionedConcurrencyConfigNotFound(text.to_owned())
        })
    }

    /// AWS's `DeleteProvisionedConcurrencyConfig`.
    pub async fn delete_provisioned_concurrency_config(
        &self,
        caller: &Caller,
        request: DeleteProvisionedConcurrencyConfigRequest,
    ) -> Result<(), Error> {
        let (arn, qualifier, _) = self.provisionable(
            caller,
            "DeleteProvisionedConcurrencyConfig",
            &request.function_name,
            &request.qualifier,
            "The function resource provided must be an alias or a published version.",
        )?;
        self.change(&arn, |_, draft| {
            draft.head.provisioned.remove(&qualifier.to_string());
            Ok(())
        })
        .await
    }

    /// AWS's `ListProvisionedConcurrencyConfigs`.
    pub async fn list_provisioned_concurrency_configs(
        &self,
        caller: &Caller,
        request: ListProvisionedConcurrencyConfigsRequest,
    ) -> Result<ListProvisionedConcurrencyConfigsResponse, Error> {
        let arn = self.locate_whole(caller, "ListProvisionedConcurrencyConfigs", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let item = |name: &String, provisioned: &Provisioned| {
            let shown = self.provisioned(&function, name, provisioned);
            let available = shown.available_provisioned_concurrent_executions;
            ProvisionedConcurrencyConfigListItem {
                function_arn: Some(arn.qualified(name)),
                requested_provisioned_concurrent_executions: Some(shown.requested_provisioned_concurrent_executions),
                available_provisioned_concurrent_executions: Some(available),
                allocated_provisioned_concurrent_executions: Some(shown.allocated_provisioned_concurrent_executions),
                status: Some(shown.status),
                status_reason: shown.status_reason,
                last_modified: Some(shown.last_modified),
            }
        };
        let items = function.head.provisioned.iter().map(|(name, p)| (name.clone(), item(name, p))).collect();
        let (configs, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListProvisionedConcurrencyConfigsResponse { provisioned_concurrency_configs: Some(configs), next_marker })
    }
}

//! Small settings of a function: recursion, runtime management.

use lambent_model::Qualifier;

use crate::locate::{Target, missing};
use crate::record::{LATEST, RuntimeManagement};
use crate::shape::*;
use crate::{Caller, Error, Registry};

fn place(qualifier: Option<&Qualifier>) -> String {
    qualifier.map_or_else(|| LATEST.to_owned(), ToString::to_string)
}

impl Registry {
    /// AWS's `PutFunctionRecursionConfig`. Loops are looked for where events are: in the invoker.
    pub async fn put_function_recursion_config(
        &self,
        caller: &Caller,
        request: PutFunctionRecursionConfigRequest,
    ) -> Result<PutFunctionRecursionConfigResponse, Error> {
        let arn = self.locate_whole(caller, "PutFunctionRecursionConfig", &request.function_name)?;
        self.change(&arn, |_, draft| {
            draft.head.recursive_loop = Some(request.recursive_loop.clone());
            Ok(PutFunctionRecursionConfigResponse { recursive_loop: Some(request.recursive_loop.clone()) })
        })
        .await
    }

    /// AWS's `GetFunctionRecursionConfig`.
    pub async fn get_function_recursion_config(
        &self,
        caller: &Caller,
        request: GetFunctionRecursionConfigRequest,
    ) -> Result<GetFunctionRecursionConfigResponse, Error> {
        let arn = self.locate_whole(caller, "GetFunctionRecursionConfig", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let recursive_loop = function.head.recursive_loop.clone().unwrap_or_else(|| "Terminate".to_owned());
        Ok(GetFunctionRecursionConfigResponse { recursive_loop: Some(recursive_loop) })
    }

    /// AWS's `PutRuntimeManagementConfig`. Kept; the interpreters are the machine's, whoever updates them.
    pub async fn put_runtime_management_config(
        &self,
        caller: &Caller,
        request: PutRuntimeManagementConfigRequest,
    ) -> Result<PutRuntimeManagementConfigResponse, Error> {
        let target =
            self.locate(caller, "PutRuntimeManagementConfig", &request.function_name, request.qualifier.as_deref())?;
        let is_manual = request.update_runtime_on == "Manual";
        if is_manual != request.runtime_version_arn.is_some() {
            return Err(Error::InvalidParameterValue(if is_manual {
                "You must provide a RuntimeVersionArn when UpdateRuntimeOn is set to Manual.".to_owned()
            } else {
                "You can provide a RuntimeVersionArn only when UpdateRuntimeOn is set to Manual.".to_owned()
            }));
        }
        let Target { arn, qualifier } = &target;
        self.change(arn, |function, draft| {
            function.qualified(qualifier.as_ref()).ok_or_else(|| missing(arn, qualifier.as_ref()))?;
            let kept = RuntimeManagement {
                update_on: request.update_runtime_on.clone(),
                runtime_version_arn: request.runtime_version_arn.clone(),
            };
            draft.head.runtime_management.insert(place(qualifier.as_ref()), kept);
            Ok(PutRuntimeManagementConfigResponse {
                update_runtime_on: request.update_runtime_on.clone(),
                function_arn: target.qualified_arn(),
                runtime_version_arn: request.runtime_version_arn.clone(),
            })
        })
        .await
    }

    /// AWS's `GetRuntimeManagementConfig`.
    pub async fn get_runtime_management_config(
        &self,
        caller: &Caller,
        request: GetRuntimeManagementConfigRequest,
    ) -> Result<GetRuntimeManagementConfigResponse, Error> {
        let target =
            self.locate(caller, "GetRuntimeManagementConfig", &request.function_name, request.qualifier.as_deref())?;
        let (function, _) = self.find(&target)?;
        let kept = function.head.runtime_management.get(&place(target.qualifier.as_ref()));
        Ok(GetRuntimeManagementConfigResponse {
            update_runtime_on: Some(kept.map_or_else(|| "Auto".to_owned(), |kept| kept.update_on.clone())),
            function_arn: Some(target.qualified_arn()),
            runtime_version_arn: kept.and_then(|kept| kept.runtime_version_arn.clone()),
        })
    }
}

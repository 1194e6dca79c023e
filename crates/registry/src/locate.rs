//! Which function a caller means, and whether it is theirs to ask about.

use lambent_model::{FunctionArn, FunctionRef, Qualifier};
use lambent_policy::document::{Decision, Request, Who};

use crate::{Caller, Error, Registry};

/// A function and the qualifier behind its name or beside it.
pub(crate) struct Target {
    pub(crate) arn: FunctionArn,
    pub(crate) qualifier: Option<Qualifier>,
}

impl Target {
    /// The ARN with the qualifier, if there is one.
    pub(crate) fn qualified_arn(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => self.arn.qualified(qualifier),
            None => self.arn.to_string(),
        }
    }
}

/// `Function not found: ARN`, as AWS says it to nearly every operation.
pub(crate) fn missing(arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Error {
    Error::ResourceNotFound(match qualifier {
        Some(qualifier) => format!("Function not found: {}", arn.qualified(qualifier)),
        None => format!("Function not found: {arn}"),
    })
}

impl Registry {
    /// What `name` (a name, partial or full ARN) and `qualifier` mean for `caller`, who wants to do `action`
    /// (`GetFunction`, ...). Functions of other accounts are there for whom their policy lets in only.
    pub(crate) fn locate(
        &self,
        caller: &Caller,
        action: &str,
        name: &str,
        qualifier: Option<&str>,
    ) -> Result<Target, Error> {
        let region = &self.settings.region;
        // What does not parse cannot exist; the pattern was checked before.
        let unknown = |rest: &str| {
            Error::ResourceNotFound(format!(
                "Function not found: arn:aws:lambda:{region}:{}:function:{rest}",
                caller.account
            ))
        };
        let reference: FunctionRef = name.parse().map_err(|_| unknown(name))?;
        if let Some(other) = reference.region.as_ref().filter(|other| *other != region) {
            let text = format!("Functions from '{other}' are not reachable in this region ('{region}')");
            return Err(Error::ResourceNotFound(text));
        }
        let arn = reference.resolve(&caller.account, region);
        let beside: Option<Qualifier> = match qualifier {
            Some(text) => Some(text.parse().map_err(|_| unknown(&format!("{}:{text}", arn.name)))?),
            None => None,
        };
        if let (Some(behind), Some(beside)) = (&reference.qualifier, &beside)
            && behind != beside
        {
            let text = "The derived qualifier from the function name does not match the specified qualifier.";
            return Err(Error::InvalidParameterValue(text.to_owned()));
        }
        let target = Target { arn, qualifier: reference.qualifier.or(beside) };
        self.admit(caller, action, &target)?;
        Ok(target)
    }

    /// As [`Registry::locate`], for operations that take no qualifier beside the name and mean the function as a whole.
    pub(crate) fn locate_whole(&self, caller: &Caller, action: &str, name: &str) -> Result<FunctionArn, Error> {
        self.locate(caller, action, name, None).map(|target| target.arn)
    }

    fn admit(&self, caller: &Caller, action: &str, target: &Target) -> Result<(), Error> {
        if target.arn.account == caller.account {
            return Ok(());
        }
        let action = format!("lambda:{action}");
        let resource = target.qualified_arn();
        let request = Request {
            who: Who::Account { account: caller.account.as_str(), arn: &caller.arn },
            action: &action,
            resource: &resource,
            context: &[],
        };
        let name = target.qualifier.as_ref().map_or_else(|| crate::record::LATEST.to_owned(), ToString::to_string);
        let function = self.snapshot.functions.get(&target.arn);
        let policy = function.as_ref().and_then(|function| function.policy(&name));
        match policy.map(|policy| policy.evaluate(&request)) {
            Some(Decision::Allow) => Ok(()),
            _ => Err(denied(caller, &action, &resource)),
        }
    }
}

/// AWS's refusal of a caller from another account.
pub(crate) fn denied(caller: &Caller, action: &str, resource: &str) -> Error {
    Error::AccessDenied(format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} because no resource-based policy \
         allows the {action} action",
        caller.arn
    ))
}

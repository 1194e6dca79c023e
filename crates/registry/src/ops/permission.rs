//! Resource policies of functions.
//!
//! A policy belongs to the function, to a version or to an alias, and changing it changes that one's revision.

use lambent_model::{FunctionArn, Qualifier, Version};
use lambent_policy::document::{Conditions, Document, Effect, Principal, Statement};
use uuid::Uuid;

use super::function::{WRONG_REVISION, check_revision};
use crate::locate::{Target, missing};
use crate::record::LATEST;
use crate::registry::Draft;
use crate::shape::*;
use crate::snapshot::Function;
use crate::{Caller, Error, Registry};

/// The longest policy, as JSON.
const POLICY_BYTES: usize = 20_480;

/// A principal as AWS renders the one a caller names.
pub(super) fn principal(name: &str) -> Result<Principal, Error> {
    let is_account = name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_digit());
    if name == "*" {
        Ok(Principal::Text(name.to_owned()))
    } else if is_account {
        Ok(Principal::of("AWS", &format!("arn:aws:iam::{name}:root")))
    } else if name.starts_with("arn:") && name.split(':').nth(2).is_some_and(|part| part == "iam" || part == "sts") {
        Ok(Principal::of("AWS", name))
    } else if name.ends_with(".amazonaws.com") || name.ends_with(".amazon.com") {
        Ok(Principal::of("Service", name))
    } else {
        let text = "The provided principal was invalid. Please check the principal and try again.";
        Err(Error::InvalidParameterValue(text.to_owned()))
    }
}

/// Adds `statement`, if its name is free and the whole does not become too long.
pub(super) fn add(policy: &mut Document, statement: Statement) -> Result<(), Error> {
    let sid = statement.sid.clone().unwrap_or_default();
    if policy.statement(&sid).is_some() {
        return Err(Error::ResourceConflict(format!(
            "The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the \
             existing statement."
        )));
    }
    policy.statement.push(statement);
    let size = text(policy).len();
    if size > POLICY_BYTES {
        return Err(too_long(size));
    }
    Ok(())
}

/// Takes the statement away; none where there is no such.
pub(super) fn remove(policy: &mut Document, sid: &str) -> Result<(), Error> {
    let before = policy.statement.len();
    policy.statement.retain(|statement| statement.sid.as_deref() != Some(sid));
    if policy.statement.len() == before {
        return Err(Error::ResourceNotFound(format!("Statement {sid} is not found in resource policy.")));
    }
    Ok(())
}

pub(super) fn text(document: &impl serde::Serialize) -> String {
    serde_json::to_string(document).unwrap_or_default()
}

fn conditions(request: &AddPermissionRequest) -> Conditions {
    let mut conditions = Conditions::new();
    let mut add = |operator: &str, key: &str, value: Option<&str>| {
        if let Some(value) = value {
            conditions.entry(operator.to_owned()).or_default().insert(key.to_owned(), value.into());
        }
    };
    add(
        "StringEquals",
        "lambda:FunctionUrlAuthType",
        request.function_url_auth_type.map(|auth| auth.to_string()).as_deref(),
    );
    add("StringEquals", "aws:PrincipalOrgID", request.principal_org_id.as_deref());
    add("StringEquals", "AWS:SourceAccount", request.source_account.as_deref());
    add("StringEquals", "lambda:EventSourceToken", request.event_source_token.as_deref());
    add("ArnLike", "AWS:SourceArn", request.source_arn.as_deref());
    add(
        "Bool",
        "lambda:InvokedViaFunctionUrl",
        request.invoked_via_function_url.map(|yes| if yes { "true" } else { "false" }),
    );
    conditions
}

/// What a policy hangs on.
fn place(qualifier: Option<&Qualifier>) -> String {
    qualifier.map_or_else(|| LATEST.to_owned(), ToString::to_string)
}

/// The revision of what a policy hangs on; the errors of AWS where that is not there.
fn revision(function: &Function, qualifier: Option<&Qualifier>) -> Result<Uuid, Error> {
    let arn = &function.head.arn;
    match qualifier {
        None | Some(Qualifier::Version(Version::Latest)) => Ok(function.head.latest.revision_id),
        Some(Qualifier::Version(version)) => {
            Ok(function.config(*version).ok_or_else(|| missing(arn, qualifier))?.revision_id)
        }
        Some(Qualifier::Alias(name)) => match function.head.aliases.get(&**name) {
            Some(alias) => Ok(alias.revision_id),
            None => Err(Error::ResourceNotFound(format!("Cannot find alias arn: {}", arn.qualified(name)))),
        },
    }
}

fn renew(function: &Function, draft: &mut Draft, qualifier: Option<&Qualifier>) {
    let fresh = Uuid::new_v4();
    match qualifier {
        None | Some(Qualifier::Version(Version::Latest)) => draft.head.latest.revision_id = fresh,
        Some(Qualifier::Version(Version::Published(number))) => {
            if let Some(published) = function.versions.get(&number.get()) {
                let mut config = published.config.clone();
                config.revision_id = fresh;
                draft.versions.insert(number.get(), Some(config));
            }
        }
        Some(Qualifier::Alias(name)) => {
            if let Some(alias) = draft.head.aliases.get_mut(&**name) {
                alias.revision_id = fresh;
            }
        }
    }
}

impl Registry {
    /// AWS's `AddPermission`.
    pub async fn add_permission(
        &self,
        caller: &Caller,
        request: AddPermissionRequest,
    ) -> Result<AddPermissionResponse, Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "AddPermission", &request.function_name, request.qualifier.as_deref())?;
        if qualifier == Some(Qualifier::Version(Version::Latest)) {
            let text = "We currently do not support adding policies for $LATEST.";
            return Err(Error::InvalidParameterValue(text.to_owned()));
        }
        self.change(&arn, |function, draft| {
            let text = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to \
                        retrieve the latest Revision Id";
            check_revision(request.revision_id.as_ref(), revision(function, qualifier.as_ref())?, text)?;
            let statement = Statement {
                sid: Some(request.statement_id.clone()),
                effect: Effect::Allow,
                principal: principal(&request.principal)?,
                action: request.action.as_str().into(),
                resource: resource(&arn, qualifier.as_ref()).as_str().into(),
                condition: conditions(&request),
            };
            let policy = draft.head.policies.entry(place(qualifier.as_ref())).or_insert_with(Document::empty);
            add(policy, statement.clone())?;
            renew(function, draft, qualifier.as_ref());
            Ok(AddPermissionResponse { statement: Some(self::text(&statement)) })
        })
        .await
    }

    /// AWS's `RemovePermission`.
    pub async fn remove_permission(&self, caller: &Caller, request: RemovePermissionRequest) -> Result<(), Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "RemovePermission", &request.function_name, request.qualifier.as_deref())?;
        let absent = || Error::ResourceNotFound(format!("No policy found for: {arn}"));
        self.change_or(&arn, absent, |function, draft| {
            let actual = revision(function, qualifier.as_ref())?;
            let place = place(qualifier.as_ref());
            let Some(policy) = draft.head.policies.get_mut(&place) else {
                let text = "No policy is associated with the given resource.";
                return Err(Error::ResourceNotFound(text.to_owned()));
            };
            remove(policy, &request.statement_id)?;
            check_revision(request.revision_id.as_ref(), actual, WRONG_REVISION)?;
            if policy.statement.is_empty() {
                draft.head.policies.remove(&place);
            }
            renew(function, draft, qualifier.as_ref());
            Ok(())
        })
        .await
    }

    /// AWS's `GetPolicy`.
    pub async fn get_policy(&self, caller: &Caller, request: GetPolicyRequest) -> Result<GetPolicyResponse, Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "GetPolicy", &request.function_name, request.qualifier.as_deref())?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        let Some(policy) = function.policy(&place(qualifier.as_ref())) else {
            return Err(Error::ResourceNotFound("The resource you requested does not exist.".to_owned()));
        };
        let revision_id = revision(&function, qualifier.as_ref())?;
        Ok(GetPolicyResponse { policy: Some(text(&**policy)), revision_id: Some(revision_id.to_string()) })
    }

    /// AWS's `GetResourcePolicy`: `GetPolicy` by ARN.
    pub async fn get_resource_policy(
        &self,
        caller: &Caller,
        request: GetResourcePolicyRequest,
    ) -> Result<GetResourcePolicyResponse, Error> {
        let request = GetPolicyRequest { function_name: request.resource_arn, qualifier: None };
        let GetPolicyResponse { policy, revision_id } = self.get_policy(caller, request).await?;
        Ok(GetResourcePolicyResponse { policy, revision_id })
    }

    /// AWS's `PutResourcePolicy`: a whole document in place of what was there.
    pub async fn put_resource_policy(
        &self,
        caller: &Caller,
        request: PutResourcePolicyRequest,
    ) -> Result<PutResourcePolicyResponse, Error> {
        let Target { arn, qualifier } = self.locate(caller, "PutResourcePolicy", &request.resource_arn, None)?;
        let resource = resource(&arn, qualifier.as_ref());
        let document: Document = serde_json::from_str(&request.policy).map_err(|error| {
            Error::InvalidParameterValue(format!("The policy is not a valid policy document: {error}"))
        })?;
        check_document(&document, &resource)?;
        let answer = self
            .change(&arn, |function, draft| {
                check_revision(request.revision_id.as_ref(), revision(function, qualifier.as_ref())?, WRONG_REVISION)?;
                draft.head.policies.insert(place(qualifier.as_ref()), document.clone());
                renew(function, draft, qualifier.as_ref());
                Ok(())
            })
            .await;
        answer?;
        let request = GetResourcePolicyRequest { resource_arn: request.resource_arn };
        let GetResourcePolicyResponse { policy, revision_id } = self.get_resource_policy(caller, request).await?;
        Ok(PutResourcePolicyResponse { policy, revision_id })
    }

    /// AWS's `DeleteResourcePolicy`.
    pub async fn delete_resource_policy(
        &self,
        caller: &Caller,
        request: DeleteResourcePolicyRequest,
    ) -> Result<(), Error> {
        let Target { arn, qualifier } = self.locate(caller, "DeleteResourcePolicy", &request.resource_arn, None)?;
        self.change(&arn, |function, draft| {
            check_revision(request.revision_id.as_ref(), revision(function, qualifier.as_ref())?, WRONG_REVISION)?;
            if draft.head.policies.remove(&place(qualifier.as_ref())).is_none() {
                return Err(Error::ResourceNotFound("The resource you requested does not exist.".to_owned()));
            }
            renew(function, draft, qualifier.as_ref());
            Ok(())
        })
        .await
    }
}

/// Whether a document that a caller wrote is one for `resource`.
fn check_document(document: &Document, resource: &str) -> Result<(), Error> {
    let size = text(document).len();
    if size > POLICY_BYTES {
        return Err(too_long(size));
    }
    if document.statement.is_empty() {
        return Err(Error::InvalidParameterValue("The policy has no statement.".to_owned()));
    }
    let strange =
        document.statement.iter().flat_map(|statement| statement.resource.iter()).find(|name| *name != resource);
    match strange {
        Some(name) => {
            Err(Error::InvalidParameterValue(format!("The policy is about {name}, but it is put on {resource}.")))
        }
        None => Ok(()),
    }
}

fn too_long(size: usize) -> Error {
    Error::PolicyLengthExceeded(format!("The final policy size ({size}) is bigger than the limit ({POLICY_BYTES})."))
}

fn resource(arn: &FunctionArn, qualifier: Option<&Qualifier>) -> String {
    match qualifier {
        Some(qualifier) => arn.qualified(qualifier),
        None => arn.to_string(),
    }
}

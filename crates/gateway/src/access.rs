//! Who may call a function URL.
//!
//! Since October 2025 AWS asks the resource policy two questions: `lambda:InvokeFunctionUrl` (with
//! `lambda:FunctionUrlAuthType`) and `lambda:InvokeFunction` (with `lambda:InvokedViaFunctionUrl`). Both must be
//! allowed. A signed caller of the owner's own account needs no statement, but a `Deny` holds for it, too.

use lambent_policy::document::{Decision, Document, Request, Who};
use lambent_policy::sigv4::Principal;
use lambent_registry::shape::AuthType;
use lambent_registry::{FunctionUrl, Resolved};

/// Whether the policy lets `principal` (none: an unsigned caller) in.
pub(crate) fn is_allowed(url: &FunctionUrl, resolved: &Resolved, principal: Option<&Principal>) -> bool {
    let auth_type = match url.auth_type {
        AuthType::None => "NONE",
        AuthType::AwsIam => "AWS_IAM",
    };
    let who = match principal {
        None => Who::Anonymous,
        Some(principal) => Who::Account { account: principal.account.as_str(), arn: &principal.arn },
    };
    let is_owner = principal.is_some_and(|principal| principal.account == url.function.account);
    let context = [("lambda:FunctionUrlAuthType", auth_type), ("lambda:InvokedViaFunctionUrl", "true")];
    ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"].iter().all(|action| {
        let request = Request { who, action, resource: &resolved.invoked_arn, context: &context };
        match resolved.policy.as_deref().map_or(Decision::Silent, |policy: &Document| policy.evaluate(&request)) {
            Decision::Allow => true,
            Decision::Deny => false,
            Decision::Silent => is_owner,
        }
    })
}

//! Who may call a function URL, and what they may decide.
//!
//! Since October 2025 AWS asks the resource policy two questions: `lambda:InvokeFunctionUrl` (with
//! `lambda:FunctionUrlAuthType`) and `lambda:InvokeFunction` (with `lambda:InvokedViaFunctionUrl`). Both must be
//! allowed. A signed caller of the owner's own account needs no statement, but a `Deny` holds for it, too.

use http::HeaderMap;
use lambent_invoker::executions::Ask;
use lambent_model::idempotency::{Idempotency, Mode};
use lambent_policy::document::{Decision, Document, Request, Who};
use lambent_policy::sigv4::Principal;
use lambent_registry::shape::AuthType;
use lambent_registry::{FunctionUrl, Resolved};

use crate::refusal::Refusal;

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

/// What a request says of its idempotency, if its caller may; none: nothing is kept of it.
///
/// Signed callers may say what callers of `Invoke` may. Of a stranger nothing is taken that changes what the owner has decided, as that costs
/// runs and room, or lets something happen twice. A stranger may bring a key where the owner asks for keys and does not take them from the
/// payload, and may repeat what is configured.
pub(crate) fn ask(
    resolved: &Resolved,
    principal: Option<&Principal>,
    headers: &HeaderMap,
) -> Result<Option<Ask>, Refusal> {
    decide(resolved.idempotency.as_deref(), principal, headers)
}

fn decide(
    setting: Option<&Idempotency>,
    principal: Option<&Principal>,
    headers: &HeaderMap,
) -> Result<Option<Ask>, Refusal> {
    let ask = Ask::read(headers).map_err(|refused| Refusal::Invoke(refused.into()))?;
    if let (None, Some(ask)) = (principal, &ask) {
        let configured = setting.map_or(Mode::Off, |setting| setting.mode);
        let takes_keys = configured == Mode::Key && setting.is_some_and(|setting| setting.key.is_none());
        if ask.mode.is_some_and(|mode| mode != configured) || (ask.key.is_some() && !takes_keys) {
            return Err(Refusal::Idempotency(configured));
        }
    }
    Ok(ask.or_else(|| setting.filter(|setting| setting.mode != Mode::Off).map(|_| Ask::default())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use lambent_invoker::executions::{KEY, MODE};

    use super::*;

    fn says(setting: Option<&str>, is_signed: bool, headers: &[(&'static str, &'static str)]) -> Option<bool> {
        let setting: Option<Idempotency> = setting.map(|text| serde_json::from_str(text).unwrap());
        let principal = Principal {
            account: "111111111111".parse().unwrap(),
            arn: "arn:aws:iam::111111111111:root".to_owned(),
            access_key_id: "K".to_owned(),
            function: None,
        };
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let asked = decide(setting.as_ref(), is_signed.then_some(&principal), &HeaderMap::from_iter(headers));
        asked.ok().map(|ask| ask.is_some())
    }

    #[test]
    fn a_stranger_weakens_nothing() {
        let (off, key, path) = (None, Some(r#"{"mode": "key"}"#), Some(r#"{"mode": "key", "key": "$.body"}"#));
        let dependencies = Some(r#"{"mode": "dependencies"}"#);
        for setting in [off, key, path, dependencies] {
            assert_eq!(says(setting, false, &[]), Some(setting.is_some()));
            for headers in [&[(MODE, "off")][..], &[(MODE, "dependencies")], &[(MODE, "key")], &[(KEY, "a")]] {
                assert_eq!(says(setting, true, headers), Some(true), "{setting:?} {headers:?}");
            }
        }
        for (setting, mode) in [(off, "off"), (key, "key"), (path, "key"), (dependencies, "dependencies")] {
            for asked in ["off", "key", "dependencies"] {
                let expected = (asked == mode).then_some(true);
                assert_eq!(says(setting, false, &[(MODE, asked)]), expected, "{setting:?} {asked}");
            }
        }
        assert_eq!(says(key, false, &[(KEY, "a")]), Some(true));
        for setting in [off, path, dependencies] {
            assert_eq!(says(setting, false, &[(KEY, "a")]), None, "{setting:?}");
        }
    }
}

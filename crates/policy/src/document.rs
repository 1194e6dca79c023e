//! Resource policies: who else may do what with a function, and whether a request is covered.
//!
//! A [`Document`] has AWS's shape and reads and writes as AWS renders it. [`Document::evaluate`] knows the principals,
//! actions and conditions that Lambda's policies use. It fails closed: a condition it does not understand makes an
//! `Allow` miss and a `Deny` hit.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>.

mod condition;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The condition block: operator, then key, then the values of which one must fit.
pub type Conditions = BTreeMap<String, BTreeMap<String, OneOrMany>>;

/// A resource policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// Of the policy language.
    #[serde(default = "Document::language")]
    pub version: String,
    /// `default` in what Lambda writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is allowed or denied.
    #[serde(default)]
    pub statement: Vec<Statement>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// Its name, unique in the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Allows or denies.
    pub effect: Effect,
    /// Whom it is about.
    pub principal: Principal,
    /// What they do; `*` and `?` stand for anything.
    pub action: OneOrMany,
    /// To what; `*` and `?` stand for anything.
    pub resource: OneOrMany,
    /// Under which conditions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: Conditions,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Lets in.
    Allow,
    /// Keeps out, whatever else allows.
    Deny,
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Principal {
    /// `"*"`: everybody, unsigned callers too.
    Text(String),
    /// `{"AWS": ..}`, `{"Service": ..}`.
    Kinds(BTreeMap<String, OneOrMany>),
}

/// JSON's habit of writing a list of one as the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(text) => std::slice::from_ref(text).iter(),
            Self::Many(texts) => texts.iter(),
        }
        .map(String::as_str)
    }
}

impl From<&str> for OneOrMany {
    fn from(text: &str) -> Self {
        Self::One(text.to_owned())
    }
}

/// Who makes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who<'a> {
    /// Nobody known: unsigned.
    Anonymous,
    /// A signed caller.
    Account {
        /// The account id.
        account: &'a str,
        /// The principal's ARN.
        arn: &'a str,
    },
    /// A service of this system or of AWS, e.g. `s3.amazonaws.com`.
    Service(&'a str),
}

/// A request to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who makes it.
    pub who: Who<'a>,
    /// `lambda:InvokeFunction`, `lambda:InvokeFunctionUrl`, ...
    pub action: &'a str,
    /// ARN of what it is made to.
    pub resource: &'a str,
    /// Condition keys and their values, e.g. `("lambda:FunctionUrlAuthType", "NONE")`. Names compare without case.
    pub context: &'a [(&'a str, &'a str)],
}

/// What a document says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement is about it.
    Silent,
}

impl Document {
    /// A policy without statements, as Lambda begins one.
    pub fn empty() -> Self {
        Self { version: Self::language(), id: Some("default".to_owned()), statement: Vec::new() }
    }

    fn language() -> String {
        "2012-10-17".to_owned()
    }

    /// The statement of this name.
    pub fn statement(&self, sid: &str) -> Option<&Statement> {
        self.statement.iter().find(|statement| statement.sid.as_deref() == Some(sid))
    }

    /// What the document says about `request`.
    pub fn evaluate(&self, request: &Request<'_>) -> Decision {
        let mut decision = Decision::Silent;
        for statement in &self.statement {
            if !statement.is_about(request) {
                continue;
            }
            match statement.effect {
                Effect::Deny if condition::hold(&statement.condition, request, condition::Unknown::Holds) => {
                    return Decision::Deny;
                }
                Effect::Allow if condition::hold(&statement.condition, request, condition::Unknown::Fails) => {
                    decision = Decision::Allow;
                }
                Effect::Deny | Effect::Allow => {}
            }
        }
        decision
    }

    /// Whether some statement allows everybody, with no condition that narrows it to an account, organisation or
    /// source.
    pub fn is_public(&self) -> bool {
        self.statement.iter().any(|statement| {
            statement.effect == Effect::Allow
                && statement.principal.is_everybody()
                && !condition::narrows(&statement.condition)
        })
    }
}

impl Statement {
    fn is_about(&self, request: &Request<'_>) -> bool {
        self.principal.covers(request.who)
            && self.action.iter().any(|pattern| fits_ignoring_case(pattern, request.action))
            && self.resource.iter().any(|pattern| fits(pattern, request.resource))
    }
}

impl Principal {
    /// `{kind: name}`.
    pub fn of(kind: &str, name: &str) -> Self {
        Self::Kinds(BTreeMap::from([(kind.to_owned(), name.into())]))
    }

    fn is_everybody(&self) -> bool {
        match self {
            Self::Text(text) => text == "*",
            Self::Kinds(kinds) => kinds.get("AWS").is_some_and(|names| names.iter().any(|name| name == "*")),
        }
    }

    fn covers(&self, who: Who<'_>) -> bool {
        if self.is_everybody() && !matches!(who, Who::Service(_)) {
            return true;
        }
        match (self, who) {
            (Self::Text(text), _) => text == "*",
            (_, Who::Anonymous) => false,
            (Self::Kinds(kinds), Who::Service(service)) => {
                kinds.get("Service").is_some_and(|names| names.iter().any(|name| name == "*" || name == service))
            }
            (Self::Kinds(kinds), Who::Account { account, arn }) => kinds.get("AWS").is_some_and(|names| {
                names.iter().any(|name| name == account || name == arn || is_root_of(name, account))
            }),
        }
    }
}

/// Whether `name` is `arn:PARTITION:iam::ACCOUNT:root`, which stands for everybody in the account.
fn is_root_of(name: &str, account: &str) -> bool {
    let mut parts = name.split(':');
    let head = [parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(head, [Some("arn"), Some(_), Some("iam"), Some("")])
        && parts.next() == Some(account)
        && parts.next() == Some("root")
        && parts.next().is_none()
}

fn fits_ignoring_case(pattern: &str, text: &str) -> bool {
    fits(&lower(pattern), &lower(text))
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run and `?` for any one byte. Linear in memory-free
/// backtracking to the last star only, so a hostile pattern costs at most the product of the lengths.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(b'?'), Some(_)) => (p, t) = (p + 1, t + 1),
            (Some(a), Some(b)) if a == b => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
#[path = "document/tests.rs"]
mod tests;

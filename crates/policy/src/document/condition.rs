//! Condition blocks. All operators must hold, for each all keys, for each key one of the values.
//!
//! Known: `StringEquals`, `StringNotEquals`, `StringEqualsIgnoreCase`, `StringNotEqualsIgnoreCase`, `StringLike`,
//! `StringNotLike`, `ArnEquals`, `ArnLike`, `ArnNotEquals`, `ArnNotLike`, `Bool`, `Null`, and `...IfExists` of them.

use super::{Conditions, OneOrMany, Request, fits, lower};

/// What an operator counts as that this system does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Holds,
    Fails,
}

/// Keys that tie a statement for everybody to somebody in particular.
const NARROWING: [&str; 6] = [
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:principalorgid",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:sourceowner",
];

pub(super) fn narrows(conditions: &Conditions) -> bool {
    let is_positive = |operator: &str| !operator.contains("Not") && operator != "Null";
    conditions.iter().any(|(operator, keys)| {
        is_positive(operator) && keys.keys().any(|key| NARROWING.contains(&lower(key).as_ref()))
    })
}

pub(super) fn hold(conditions: &Conditions, request: &Request<'_>, unknown: Unknown) -> bool {
    conditions
        .iter()
        .all(|(operator, keys)| keys.iter().all(|(key, values)| holds(operator, key, values, request, unknown)))
}

fn holds(operator: &str, key: &str, values: &OneOrMany, request: &Request<'_>, unknown: Unknown) -> bool {
    let actual = request.context.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| *value);
    if operator == "Null" {
        return values.iter().any(|value| value.eq_ignore_ascii_case("true") == actual.is_none());
    }
    let (operator, if_exists) = match operator.strip_suffix("IfExists") {
        Some(operator) => (operator, true),
        None => (operator, false),
    };
    // A negated operator holds for a key that the request lacks, a positive one does not.
    let any = |fit: fn(&str, &str) -> bool| match actual {
        Some(actual) => values.iter().any(|value| fit(value, actual)),
        None => if_exists,
    };
    let none = |fit: fn(&str, &str) -> bool| actual.is_none_or(|actual| !values.iter().any(|value| fit(value, actual)));
    let equal: fn(&str, &str) -> bool = |a, b| a == b;
    let equal_without_case: fn(&str, &str) -> bool = |a, b| a.eq_ignore_ascii_case(b);
    match operator {
        "StringEquals" => any(equal),
        "StringNotEquals" => none(equal),
        "StringEqualsIgnoreCase" | "Bool" => any(equal_without_case),
        "StringNotEqualsIgnoreCase" => none(equal_without_case),
        "StringLike" => any(fits),
        "StringNotLike" => none(fits),
        "ArnEquals" | "ArnLike" => any(arn_fits),
        "ArnNotEquals" | "ArnNotLike" => none(arn_fits),
        _ => unknown == Unknown::Holds,
    }
}

/// Each of an ARN's six parts by itself, so that a `*` does not run over a colon of the first five.
fn arn_fits(pattern: &str, arn: &str) -> bool {
    let (patterns, parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    pattern == "*"
        || (patterns.clone().count() == parts.clone().count() && patterns.zip(parts).all(|(p, a)| fits(p, a)))
}

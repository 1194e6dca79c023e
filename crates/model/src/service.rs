//! What is asked of auxiliary services: their names, and queries whose values are bound, never part of the text.
//!
//! A query is written with its values in braces, each a JSON text, number or truth value:
//!
//! ```text
//! SELECT price FROM items WHERE id = {7} AND shop = {"north"}
//! ```
//! Whoever runs it puts its own placeholders there and hands the values over beside it. So a brace always begins a value, also between
//! quotes: text that has braces must be a value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// Longest name of a service.
const MAX_NAME_CHARS: usize = 32;

/// Why a text is no name or no query; for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No name.
    #[error(
        "{0:?} is no name of a service: it begins with a lower-case letter, and has at most {MAX_NAME_CHARS} of a-z, 0-9 and _"
    )]
    Name(String),
    /// No value in braces.
    #[error("{0:?}: a brace begins a value, as in {{7}} or {{\"text\"}}")]
    Value(String),
    /// No text.
    #[error("a query must have text")]
    Empty,
}

/// The name that an operator gave an auxiliary service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Box<str>);

impl ServiceName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let is_rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        match text.as_bytes() {
            [b'a'..=b'z', rest @ ..] if rest.len() < MAX_NAME_CHARS && rest.iter().copied().all(is_rest) => {
                Ok(Self(text.into()))
            }
            _ => Err(Error::Name(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ServiceName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that a query is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
    /// A truth value.
    Truth(bool),
}

impl Scalar {
    /// None: it is null, a list or an object.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Some(Self::Number(number.clone())),
            Value::Bool(truth) => Some(Self::Truth(*truth)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl fmt::Display for Scalar {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Value::from(text.as_str()).fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

/// A piece of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// A value that is bound in this place.
    Value(Scalar),
}

/// A query with all of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<Piece>);

impl Query {
    /// Of these pieces, in this order.
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }

    /// Its text with what `placeholder` makes of a value's number, counted from 1, in the place of each value.
    pub fn text(&self, placeholder: impl Fn(usize) -> String) -> String {
        let mut count = 0;
        let of = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(_) => {
                count += 1;
                placeholder(count)
            }
        };
        self.0.iter().map(of).collect()
    }

    /// Its values, in the order of their numbers.
    pub fn values(&self) -> impl Iterator<Item = &Scalar> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value(value) => Some(value),
            Piece::Text(_) => None,
        })
    }
}

impl fmt::Display for Query {
    /// As it is written, so that it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Value(value) => write!(f, "{{{value}}}"),
        })
    }
}

impl FromStr for Query {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Err(Error::Empty);
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (value, behind) = value(behind)?;
            pieces.push(Piece::Value(value));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

/// A value in braces: what follows the opening one to the value, and what is behind the closing one.
pub(crate) fn value(text: &str) -> Result<(Scalar, &str), Error> {
    let wrong = || Error::Value(std::iter::once('{').chain(text.chars().take(32)).collect());
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let found = values.next().and_then(Result::ok).as_ref().and_then(Scalar::of).ok_or_else(wrong)?;
    let behind = text.get(values.byte_offset()..).and_then(|rest| rest.trim_start().strip_prefix('}'));
    Ok((found, behind.ok_or_else(wrong)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_beside_the_text() {
        let text = r#"SELECT a FROM t WHERE b = {"x} y\"{"} AND c > { 1.5 } OR d = {true} LIMIT {7}"#;
        let query: Query = text.parse().unwrap();
        assert_eq!(
            query.text(|number| format!("${number}")),
            "SELECT a FROM t WHERE b = $1 AND c > $2 OR d = $3 LIMIT $4"
        );
        assert_eq!(query.values().map(ToString::to_string).collect::<Vec<_>>(), [r#""x} y\"{""#, "1.5", "true", "7"]);
        let written = query.to_string();
        assert_eq!(written.parse::<Query>().unwrap().to_string(), written);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for text in [
            "",
            "  ",
            "SELECT {",
            "SELECT {x}",
            "SELECT {null}",
            "SELECT {[1]}",
            "SELECT {1 2}",
            "SELECT {1",
            "SELECT '{\"a\": 1}'",
        ] {
            assert!(text.parse::<Query>().is_err(), "{text}");
        }
        assert_eq!(
            "a {x}".parse::<Query>().unwrap_err().to_string(),
            r#""{x}": a brace begins a value, as in {7} or {"text"}"#
        );
    }

    #[test]
    fn names_are_fit_for_keys_and_variables() {
        for name in ["a", "shop_2", &"a".repeat(32)] {
            assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
        }
        for name in ["", "A", "2a", "_a", "a-b", "a.b", &"a".repeat(33)] {
            assert!(name.parse::<ServiceName>().is_err(), "{name}");
        }
    }
}

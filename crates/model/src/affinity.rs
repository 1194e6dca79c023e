//! Which calls of a function belong together: those of one value of its routing parameter go to one container, while it lives and has time.
//!
//! ```text
//! header:NAME     a header of the request
//! query:NAME      a parameter of its query
//! $.PATH          what is at a JSONPath of the payload
//! account         the caller's account
//! address         the address that the request came from
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::idempotency::Selector;

/// Most bytes of a parameter, as it is written.
pub const MAX_PARAMETER_BYTES: usize = 255;
/// Most bytes of a value that a request names itself.
pub const MAX_VALUE_BYTES: usize = 255;

/// Where the value of a request is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Parameter {
    /// In this header, whose name is in lower case.
    Header(String),
    /// In this parameter of the query.
    Query(String),
    /// At this place of the payload.
    Payload(Selector),
    /// It is the caller's account.
    Account,
    /// It is the address that the request came from.
    Address,
}

/// What is wrong with a parameter. The text is for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing of what it may be.
    #[error(
        "{0:?} is no routing parameter: use header:NAME, query:NAME, a JSONPath such as $.user.id, account or address"
    )]
    Unknown(String),
    /// Too long.
    #[error("the routing parameter {begin:?}... has {bytes} bytes; {MAX_PARAMETER_BYTES} are the most")]
    Long {
        /// Its first characters.
        begin: String,
        /// How many there are.
        bytes: usize,
    },
    /// No name of a header.
    #[error("{0:?} is no name of a header: use letters, digits and any of !#$%&'*+-.^_`|~")]
    Header(String),
    /// No path.
    #[error(transparent)]
    Path(crate::idempotency::Error),
}

/// RFC 9110's `token`.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl FromStr for Parameter {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_PARAMETER_BYTES {
            return Err(Error::Long { begin: text.chars().take(20).collect(), bytes: text.len() });
        }
        match (text, text.split_once(':')) {
            ("account", _) => Ok(Self::Account),
            ("address", _) => Ok(Self::Address),
            (path, _) if path.starts_with('$') => path.parse().map(Self::Payload).map_err(Error::Path),
            (_, Some(("header", name))) if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            (_, Some(("header", name))) => Err(Error::Header(name.to_owned())),
            (_, Some(("query", name))) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(Error::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Payload(path) => f.write_str(path.as_str()),
            Self::Account => f.write_str("account"),
            Self::Address => f.write_str("address"),
        }
    }
}

impl TryFrom<String> for Parameter {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Parameter> for String {
    fn from(parameter: Parameter) -> Self {
        parameter.to_string()
    }
}

/// The setting of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// Where the value of a request is.
    pub by: Parameter,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_written_as_they_are_read() {
        for text in ["header:x-user", "query:user id", "$.user.id", "$['a'][0]", "account", "address"] {
            assert_eq!(text.parse::<Parameter>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse::<Parameter>().unwrap().to_string(), "header:x-user");
        let setting: Affinity = serde_json::from_value(json!({"by": "$.a"})).unwrap();
        assert_eq!(serde_json::to_value(&setting).unwrap(), json!({"by": "$.a"}));
    }

    #[test]
    fn what_is_no_parameter_is_refused_by_name_and_limit() {
        let said = |text: &str| text.parse::<Parameter>().unwrap_err().to_string();
        for text in ["", "user", "query:", "cookie:a", "Account"] {
            assert!(said(text).starts_with(&format!("{text:?} is no routing parameter")), "{text}");
        }
        assert!(said("header:a b").contains("\"a b\" is no name of a header"));
        assert!(said("$.a[").starts_with("\"$.a[\" is no JSONPath"));
        assert!(said(&format!("header:{}", "x".repeat(300))).contains("307 bytes; 255 are the most"));
        for wrong in [json!({}), json!({"by": 1}), json!({"by": "x"}), json!({"by": "account", "to": 1})] {
            assert!(serde_json::from_value::<Affinity>(wrong).is_err());
        }
    }
}

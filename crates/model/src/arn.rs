//! Function names, ARNs, qualifiers and versions, read once at the edge into strict types.
//!
//! The Lambda API takes a function as a name (`my-function`), a name with a qualifier (`my-function:prod`), a partial
//! ARN (`123456789012:function:my-function`) or a full one, each with or without qualifier. The qualifier may also come
//! as a query parameter of its own; both at once must agree.
//! Source: <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html> (FunctionName, Qualifier).

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, Region};

/// Why a text names no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a function name of letters, digits, `-` and `_`, 1 to 64 long.
    #[error("{0:?} is not a function name")]
    Name(String),
    /// Neither a name nor a partial nor a full function ARN.
    #[error("{0:?} is not a function ARN")]
    Arn(String),
    /// Not `$LATEST`, a version number or an alias name.
    #[error("{0:?} is not a version or an alias")]
    Qualifier(String),
}

fn is_word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The bare name of a function: letters, digits, `-` and `_`, 1 to 64 long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(Box<str>);

impl FunctionName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if is_word(text, 64) { Ok(Self(text.into())) } else { Err(Error::Name(text.to_owned())) }
    }
}

impl TryFrom<String> for FunctionName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version of a function: the mutable `$LATEST`, or a published number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Version {
    /// What updates change.
    Latest,
    /// Published, immutable, counted from 1.
    Published(NonZeroU64),
}

impl FromStr for Version {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "$LATEST" {
            return Ok(Self::Latest);
        }
        text.parse().map(Self::Published).map_err(|_| Error::Qualifier(text.to_owned()))
    }
}

impl TryFrom<String> for Version {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Published(number) => number.fmt(f),
        }
    }
}

/// What follows the name of a function: a version, or an alias that stands for one or two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qualifier {
    /// A version by number, or `$LATEST`.
    Version(Version),
    /// An alias by name.
    Alias(Box<str>),
}

impl FromStr for Qualifier {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        // An alias is a word with at least one character that is not a digit.
        if is_word(text, 128) && !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Alias(text.into()));
        }
        Err(Error::Qualifier(text.to_owned()))
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Alias(name) => f.write_str(name),
        }
    }
}

/// The ARN of a function without qualifier: `arn:aws:lambda:REGION:ACCOUNT:function:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionArn {
    /// The region that holds it.
    pub region: Region,
    /// The account that owns it.
    pub account: AccountId,
    /// Its bare name.
    pub name: FunctionName,
}

impl FunctionArn {
    /// The ARN with `:qualifier` behind it.
    pub fn qualified(&self, qualifier: impl fmt::Display) -> String {
        format!("{self}:{qualifier}")
    }
}

impl fmt::Display for FunctionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Piece by piece: it is written several times in each call, and what `write!` does for each piece shows there.
        let pieces =
            ["arn:aws:lambda:", self.region.as_str(), ":", self.account.as_str(), ":function:", self.name.as_str()];
        pieces.iter().try_for_each(|piece| f.write_str(piece))
    }
}

/// A function as a caller wrote it: the account and region may be left out and then are the caller's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRef {
    /// The region, when a full ARN was given.
    pub region: Option<Region>,
    /// The account, when a partial or full ARN was given.
    pub account: Option<AccountId>,
    /// The bare name.
    pub name: FunctionName,
    /// The qualifier, when one stood behind the name.
    pub qualifier: Option<Qualifier>,
}

impl FunctionRef {
    /// The ARN this reference means for a caller in `account` and `region`.
    pub fn resolve(&self, account: &AccountId, region: &Region) -> FunctionArn {
        FunctionArn {
            region: self.region.clone().unwrap_or_else(|| region.clone()),
            account: self.account.clone().unwrap_or_else(|| account.clone()),
            name: self.name.clone(),
        }
    }
}

impl FromStr for FunctionRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Arn(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let (region, account, rest) = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", rest @ ..] if partition.starts_with("aws") => {
                (Some(Region::new(*region)), Some(account.parse().map_err(|_| bad())?), rest)
            }
            [account, "function", rest @ ..] => (None, Some(account.parse().map_err(|_| bad())?), rest),
            ["function", rest @ ..] if !rest.is_empty() => (None, None, rest),
            rest => (None, None, rest),
        };
        let (name, qualifier) = match rest {
            [name] => (*name, None),
            [name, qualifier] => (*name, Some(qualifier.parse()?)),
            _ => return Err(bad()),
        };
        Ok(Self { region, account, name: name.parse()?, qualifier })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_function() {
        for (text, account, qualifier) in [
            ("thumb", None, None),
            ("thumb:prod", None, Some("prod")),
            ("thumb:$LATEST", None, Some("$LATEST")),
            ("123456789012:function:thumb", Some("123456789012"), None),
            ("123456789012:function:thumb:7", Some("123456789012"), Some("7")),
            ("arn:aws:lambda:us-east-1:123456789012:function:thumb", Some("123456789012"), None),
            ("arn:aws:lambda:us-east-1:123456789012:function:thumb:prod", Some("123456789012"), Some("prod")),
        ] {
            let parsed: FunctionRef = text.parse().unwrap();
            assert_eq!(parsed.name.as_str(), "thumb", "{text}");
            assert_eq!(parsed.account.as_ref().map(AccountId::as_str), account, "{text}");
            assert_eq!(parsed.qualifier.map(|q| q.to_string()).as_deref(), qualifier, "{text}");
        }
    }

    #[test]
    fn what_is_no_function_is_refused() {
        for text in ["", "a b", "a:b:c", "arn:aws:s3:::bucket", "12:function:x", "x:0", "x:has space"] {
            assert!(text.parse::<FunctionRef>().is_err(), "{text}");
        }
        assert!("n".repeat(65).parse::<FunctionName>().is_err());
    }

    #[test]
    fn a_number_is_a_version_and_a_word_is_an_alias() {
        assert_eq!("12".parse(), Ok(Qualifier::Version(Version::Published(NonZeroU64::new(12).unwrap()))));
        assert_eq!("v12".parse(), Ok(Qualifier::Alias("v12".into())));
        assert_eq!("$LATEST".parse(), Ok(Qualifier::Version(Version::Latest)));
    }
}

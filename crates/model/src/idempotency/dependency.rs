//! What an answer depends on: as an owner writes it, with places for values of the payload ([`Dependency`]), and as it is for one request
//! ([`Resource`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Selector};
use crate::arn::FunctionRef;
use crate::service::{self, Piece, Query, Scalar, ServiceName};

/// Most bytes of a dependency's text.
pub const MAX_DEPENDENCY_BYTES: usize = 2048;

const SCHEMES: &str = "begin it with https:, http:, s3:, file:, function: or rows:";

/// Something that an answer depends on:
///
/// ```text
/// https://HOST/PATH            an HTTP resource, by its ETag, its Last-Modified or its content
/// s3://BUCKET/KEY              an object, by its ETag and version
/// file:///PATH                 a file of the node, by its content
/// function:NAME[:QUALIFIER]    another function's version, by its code and configuration
/// rows:SERVICE/QUERY           the rows that a query gives at an auxiliary service, by their content
/// ```
/// Behind the host, the bucket or `file://`, `{$.a.b}` stands for what the payload has at that JSONPath; in a query, for a value that is
/// bound there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dependency {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Http(Vec<Part>),
    S3 { bucket: String, key: Vec<Part> },
    File(Vec<Part>),
    Function(FunctionRef),
    Rows { service: ServiceName, query: Vec<Slot> },
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Selector),
}

/// A part of a query.
#[derive(Debug, Clone, PartialEq)]
enum Slot {
    Piece(Piece),
    Path(Selector),
}

/// A dependency of one request. As text it is what a [`Dependency`] is, filled in: braces of an address stand for themselves, those of a
/// query hold values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// An HTTP resource.
    Http(String),
    /// An object.
    S3 {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
    /// A file of the node.
    File(String),
    /// A function's version.
    Function {
        /// As it was written.
        text: String,
        /// Which.
        function: FunctionRef,
    },
    /// The rows that a query gives.
    Rows {
        /// Where.
        service: ServiceName,
        /// The query.
        query: Query,
    },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::File(path) => write!(f, "file://{path}"),
            Self::Function { text, .. } => f.write_str(text),
            Self::Rows { service, query } => write!(f, "rows:{service}/{query}"),
        }
    }
}

impl Dependency {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it says something only together with a payload.
    pub fn needs_payload(&self) -> bool {
        match &self.kind {
            Kind::Http(parts) | Kind::File(parts) | Kind::S3 { key: parts, .. } => {
                parts.iter().any(|part| matches!(part, Part::Path(_)))
            }
            Kind::Rows { query, .. } => query.iter().any(|slot| matches!(slot, Slot::Path(_))),
            Kind::Function(_) => false,
        }
    }

    /// What it is for this payload; none where a path does not lead to one text, number or truth value. `encode` makes a value fit to stand in a URL.
    pub fn of(&self, payload: &Value, encode: impl Fn(&str) -> String) -> Option<Resource> {
        let plain = |parts: &[Part]| filled(parts, payload, str::to_owned);
        Some(match &self.kind {
            Kind::Http(parts) => Resource::Http(filled(parts, payload, encode)?),
            Kind::S3 { bucket, key } => Resource::S3 { bucket: bucket.clone(), key: plain(key)? },
            Kind::File(parts) => Resource::File(plain(parts)?),
            Kind::Function(function) => Resource::Function { text: self.text.clone(), function: function.clone() },
            Kind::Rows { service, query } => Resource::Rows { service: service.clone(), query: asked(query, payload)? },
        })
    }
}

fn filled(parts: &[Part], payload: &Value, encode: impl Fn(&str) -> String) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => match Scalar::of(path.one(payload)?)? {
                Scalar::Text(value) => text.push_str(&encode(&value)),
                value @ (Scalar::Number(_) | Scalar::Truth(_)) => text.push_str(&encode(&value.to_string())),
            },
        }
    }
    Some(text)
}

fn asked(slots: &[Slot], payload: &Value) -> Option<Query> {
    let piece = |slot: &Slot| match slot {
        Slot::Piece(piece) => Some(piece.clone()),
        Slot::Path(path) => Scalar::of(path.one(payload)?).map(Piece::Value),
    };
    slots.iter().map(piece).collect::<Option<Vec<Piece>>>().map(Query::new)
}

/// A path in braces: what follows the opening one to the path, and what is behind the closing one. A brace inside of a path is not
/// understood; there is no need for one but in filters.
fn path(text: &str) -> Result<(Selector, &str), String> {
    let (path, behind) = text.split_once('}').ok_or("a { has no }")?;
    Ok((path.parse().map_err(|error: Error| error.to_string())?, behind))
}

/// Text with `{$…}` in it.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (path, behind) = path(behind)?;
        parts.push(Part::Path(path));
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// A query with `{$…}` and `{VALUE}` in it.
fn slots(text: &str) -> Result<Vec<Slot>, String> {
    let mut slots = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        if !before.is_empty() {
            slots.push(Slot::Piece(Piece::Text(before.to_owned())));
        }
        rest = if behind.starts_with('$') {
            let (path, behind) = path(behind)?;
            slots.push(Slot::Path(path));
            behind
        } else {
            let (value, behind) = service::value(behind).map_err(|error| error.to_string())?;
            slots.push(Slot::Piece(Piece::Value(value)));
            behind
        };
    }
    if !rest.is_empty() {
        slots.push(Slot::Piece(Piece::Text(rest.to_owned())));
    }
    Ok(slots)
}

/// The frame of a dependency, and in it what values can stand in.
enum Frame<'a> {
    Http(&'a str),
    S3 { bucket: &'a str, key: &'a str },
    File(&'a str),
    Function(FunctionRef),
    Rows { service: ServiceName, query: &'a str },
}

fn frame(text: &str) -> Result<Frame<'_>, String> {
    if text.len() > MAX_DEPENDENCY_BYTES {
        return Err(format!("it has {} bytes; it may have {MAX_DEPENDENCY_BYTES}", text.len()));
    }
    let (scheme, rest) = text.split_once(':').ok_or(SCHEMES)?;
    match (scheme, rest.strip_prefix("//")) {
        ("http" | "https", Some(rest)) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if host.is_empty() || host.contains(['{', '}', '@']) {
                return Err("its host must be there, without a user, and cannot come from the payload".to_owned());
            }
            Ok(Frame::Http(text))
        }
        ("s3", Some(rest)) => match rest.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !bucket.contains('{') && !key.is_empty() => {
                Ok(Frame::S3 { bucket, key })
            }
            _ => Err("write s3://BUCKET/KEY; the bucket cannot come from the payload".to_owned()),
        },
        ("file", Some(path)) if path.starts_with('/') => Ok(Frame::File(path)),
        ("file", _) => Err("write file:///PATH".to_owned()),
        ("function", None) => rest.parse().map(Frame::Function).map_err(|error| format!("{error}")),
        ("rows", None) => match rest.split_once('/') {
            Some((service, query)) if !query.trim().is_empty() => {
                Ok(Frame::Rows { service: service.parse().map_err(|error| format!("{error}"))?, query })
            }
            _ => Err("write rows:SERVICE/QUERY".to_owned()),
        },
        _ => Err(SCHEMES.to_owned()),
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    Ok(match frame(text)? {
        Frame::Http(url) => Kind::Http(parts(url)?),
        Frame::S3 { bucket, key } => Kind::S3 { bucket: bucket.to_owned(), key: parts(key)? },
        Frame::File(path) => Kind::File(parts(path)?),
        Frame::Function(function) => Kind::Function(function),
        Frame::Rows { service, query } => Kind::Rows { service, query: slots(query)? },
    })
}

fn resource(text: &str) -> Result<Resource, String> {
    Ok(match frame(text)? {
        Frame::Http(url) => Resource::Http(url.to_owned()),
        Frame::S3 { bucket, key } => Resource::S3 { bucket: bucket.to_owned(), key: key.to_owned() },
        Frame::File(path) => Resource::File(path.to_owned()),
        Frame::Function(function) => Resource::Function { text: text.to_owned(), function },
        Frame::Rows { service, query } => {
            Resource::Rows { service, query: query.parse().map_err(|error: service::Error| error.to_string())? }
        }
    })
}

/// What is wrong with a text. A very long one is not repeated.
fn error(text: &str, problem: String) -> Error {
    Error::Dependency { text: text.chars().take(MAX_DEPENDENCY_BYTES).collect(), problem }
}

impl FromStr for Dependency {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let kind = kind(text).map_err(|problem| error(text, problem))?;
        Ok(Self { text: text.to_owned(), kind })
    }
}

impl FromStr for Resource {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        resource(text).map_err(|problem| error(text, problem))
    }
}

impl TryFrom<String> for Dependency {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Dependency> for String {
    fn from(dependency: Dependency) -> Self {
        dependency.text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str, payload: Value) -> Option<String> {
        let dependency: Dependency = text.parse().unwrap();
        dependency.of(&payload, |text| text.replace('/', "%2F")).map(|resource| resource.to_string())
    }

    #[test]
    fn dependencies_take_values_from_the_payload() {
        assert_eq!(of("https://h/a?b=1", json!(null)).unwrap(), "https://h/a?b=1");
        assert_eq!(of("https://h/{$.id}/x", json!({"id": "a/b"})).unwrap(), "https://h/a%2Fb/x");
        assert_eq!(of("s3://b/{$.k}", json!({"k": "a/b"})).unwrap(), "s3://b/a/b");
        assert_eq!(of("file:///srv/{$.n}.json", json!({"n": 7})).unwrap(), "file:///srv/7.json");
        assert_eq!(of("function:f:live", json!(1)).unwrap(), "function:f:live");
        for payload in [json!({}), json!({"k": null}), json!({"k": [1]}), json!(3)] {
            assert_eq!(of("s3://b/{$.k}", payload), None);
        }
    }

    #[test]
    fn what_is_no_dependency_is_refused() {
        for text in [
            "",
            "x",
            "ftp://h/",
            "https://",
            "https://{$.h}/",
            "https://u@h/",
            "https://h/{$.a",
            "https://h/{a}",
            "s3://b",
            "s3://{$.b}/k",
            "file://relative",
            "file:x",
            "function:a b",
            "rows:shop",
            "rows:shop/ ",
            "rows:Shop/SELECT 1",
            "rows://shop/SELECT 1",
            "rows:shop/SELECT {$.a",
            "rows:shop/SELECT {null}",
        ] {
            let error = text.parse::<Dependency>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no dependency: ")), "{error}");
        }
    }

    #[test]
    fn values_of_a_query_are_bound() {
        let text = r#"rows:shop/SELECT price FROM items WHERE id = {$.id} AND kind = {"a"}"#;
        let hostile = json!({"id": "1' OR '1'='1"});
        let dependency: Dependency = text.parse().unwrap();
        assert!(dependency.needs_payload());
        let resource = dependency.of(&hostile, str::to_owned).unwrap();
        let Resource::Rows { service, query } = &resource else { panic!("{resource:?}") };
        assert_eq!(service.as_str(), "shop");
        assert_eq!(query.text(|n| format!("?{n}")), "SELECT price FROM items WHERE id = ?1 AND kind = ?2");
        assert_eq!(query.values().next(), Some(&Scalar::Text("1' OR '1'='1".to_owned())));
        assert_eq!(dependency.of(&json!({"id": [1]}), str::to_owned), None);
    }

    #[test]
    fn a_resource_is_read_to_the_letter_and_back() {
        for text in [
            "https://h/a?b={c}",
            "s3://b/{$.k}",
            "file:///srv/{n}",
            "function:f:live",
            r#"rows:shop/SELECT 1 WHERE a = {"}{"} AND b = {7}"#,
        ] {
            assert_eq!(text.parse::<Resource>().unwrap().to_string(), text);
        }
        for text in ["", "x", "ftp://h/", "https://u@h/", "s3://b", "file:x", "rows:shop/SELECT {$.a}"] {
            assert!(text.parse::<Resource>().is_err(), "{text}");
        }
        let long = format!("s3://b/{}", "k".repeat(MAX_DEPENDENCY_BYTES));
        let error = long.parse::<Resource>().unwrap_err().to_string();
        assert!(error.ends_with("it has 2055 bytes; it may have 2048"), "{error}");
    }
}

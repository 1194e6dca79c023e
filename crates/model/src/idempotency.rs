//! What makes two requests of a function the same, and how long the answer of one counts for the other.
//!
//! ```text
//! off            every request runs
//! key            requests with the same key run once within the window
//! dependencies   a request is answered from the record of an earlier one with the same input, as long as nothing has changed that
//!                the execution depended on
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::arn::FunctionRef;

/// Longest time that a record counts.
pub const MAX_WINDOW_SECS: u32 = 7 * 24 * 3600;
/// How long a record counts where nothing else was said.
pub const DEFAULT_WINDOW_SECS: u32 = 3600;
/// Most dependencies of a function.
pub const MAX_DEPENDENCIES: usize = 32;
/// Most paths that make up the input.
pub const MAX_INPUTS: usize = 16;
/// Most bytes of a key, and of a dependency's text.
pub const MAX_KEY_BYTES: usize = 255;
const MAX_DEPENDENCY_BYTES: usize = 2048;

/// What makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing: each runs.
    #[default]
    Off,
    /// A key.
    Key,
    /// The same input, while no dependency has changed.
    Dependencies,
}

impl Mode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Key => "key",
            Self::Dependencies => "dependencies",
        }
    }
}

impl FromStr for Mode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "off" => Ok(Self::Off),
            "key" => Ok(Self::Key),
            "dependencies" => Ok(Self::Dependencies),
            other => Err(Error::Mode(other.to_owned())),
        }
    }
}

/// What is wrong with a setting. The text is for whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such mode.
    #[error("{0:?} is no idempotency: use off, key or dependencies")]
    Mode(String),
    /// No path.
    #[error("{text:?} is no JSONPath ({problem}); one begins with $, as in $.order.id")]
    Selector {
        /// As written.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A number that is too large or too small.
    #[error("{name} = {value} is not between {least} and {most}")]
    Range {
        /// The member.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// A dependency that cannot be understood.
    #[error("{text:?} is no dependency: {problem}")]
    Dependency {
        /// As written.
        text: String,
        /// What is wrong.
        problem: String,
    },
}

/// A JSONPath (RFC 9535): what it leads to in a payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    path: JsonPath,
}

impl Selector {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// All that it leads to.
    pub fn all<'a>(&self, payload: &'a Value) -> Vec<&'a Value> {
        self.path.query(payload).all()
    }

    /// The one thing that it leads to; none where there is nothing, or more.
    pub fn one<'a>(&self, payload: &'a Value) -> Option<&'a Value> {
        self.path.query(payload).exactly_one().ok()
    }
}

impl FromStr for Selector {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let failed = |problem: serde_json_path::ParseError| Error::Selector {
            text: text.to_owned(),
            problem: problem.to_string(),
        };
        Ok(Self { text: text.to_owned(), path: JsonPath::parse(text).map_err(failed)? })
    }
}

impl TryFrom<String> for Selector {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

/// How a function's requests are told apart. The members beside `mode` also serve requests that choose another mode by a header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    /// What makes two requests the same, unless a request says otherwise.
    pub mode: Mode,
    /// `key`: where in the payload the key is, for requests that bring none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Selector>,
    /// `dependencies`: the parts of the payload that matter; none: all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Selector>,
    /// `dependencies`: what else the answer depends on, beside the function's code and configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Dependency>,
    /// How long a record counts.
    pub window_secs: u32,
    /// `dependencies`: for so long after it was looked at, a dependency counts as unchanged.
    pub fresh_ms: u32,
    /// Whether an error of the function is an answer like any other.
    pub reuse_errors: bool,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            key: None,
            input: Vec::new(),
            on: Vec::new(),
            window_secs: DEFAULT_WINDOW_SECS,
            fresh_ms: 0,
            reuse_errors: false,
        }
    }
}

impl Idempotency {
    /// Whether it can be; what serde cannot see.
    pub fn check(&self) -> Result<(), Error> {
        let within = |name, value: u64, least: u64, most: u64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::Range { name, value, least, most }),
        };
        within("window_secs", self.window_secs.into(), 1, MAX_WINDOW_SECS.into())?;
        within("fresh_ms", self.fresh_ms.into(), 0, u64::from(self.window_secs) * 1000)?;
        within("the number of dependencies", self.on.len() as u64, 0, MAX_DEPENDENCIES as u64)?;
        within("the number of input paths", self.input.len() as u64, 0, MAX_INPUTS as u64)
    }
}

/// Something that an answer depends on:
///
/// ```text
/// https://HOST/PATH            an HTTP resource, by its ETag, its Last-Modified or its content
/// s3://BUCKET/KEY              an object, by its ETag and version
/// file:///PATH                 a file of the node, by its content
/// function:NAME[:QUALIFIER]    another function's version, by its code and configuration
/// ```
/// Behind the host, the bucket or `file://`, `{$.a.b}` stands for what the payload has at that JSONPath.
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
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Selector),
}

/// A dependency of one request.
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
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::File(path) => write!(f, "file://{path}"),
            Self::Function { text, .. } => f.write_str(text),
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
        let parts = match &self.kind {
            Kind::Http(parts) | Kind::File(parts) | Kind::S3 { key: parts, .. } => parts.as_slice(),
            Kind::Function(_) => &[],
        };
        parts.iter().any(|part| matches!(part, Part::Path(_)))
    }

    /// What it is for this payload; none where a path does not lead to one text, number or truth value. `encode` makes a value fit to stand in a URL.
    pub fn of(&self, payload: &Value, encode: impl Fn(&str) -> String) -> Option<Resource> {
        let plain = |parts: &[Part]| filled(parts, payload, str::to_owned);
        Some(match &self.kind {
            Kind::Http(parts) => Resource::Http(filled(parts, payload, encode)?),
            Kind::S3 { bucket, key } => Resource::S3 { bucket: bucket.clone(), key: plain(key)? },
            Kind::File(parts) => Resource::File(plain(parts)?),
            Kind::Function(function) => Resource::Function { text: self.text.clone(), function: function.clone() },
        })
    }
}

fn filled(parts: &[Part], payload: &Value, encode: impl Fn(&str) -> String) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => match path.one(payload)? {
                Value::String(value) => text.push_str(&encode(value)),
                value @ (Value::Number(_) | Value::Bool(_)) => text.push_str(&encode(&value.to_string())),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            },
        }
    }
    Some(text)
}

/// Text with `{$…}` in it. A brace inside of a path is not understood; there is no need for one but in filters.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (path, behind) = behind.split_once('}').ok_or("a { has no }")?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(Part::Path(path.parse().map_err(|error: Error| error.to_string())?));
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn kind(text: &str) -> Result<Kind, String> {
    if text.len() > MAX_DEPENDENCY_BYTES {
        return Err(format!("it is longer than {MAX_DEPENDENCY_BYTES} bytes"));
    }
    let (scheme, rest) = text.split_once(':').ok_or("begin it with https:, http:, s3:, file: or function:")?;
    match (scheme, rest.strip_prefix("//")) {
        ("http" | "https", Some(rest)) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if host.is_empty() || host.contains(['{', '}', '@']) {
                return Err("its host must be there, without a user, and cannot come from the payload".to_owned());
            }
            Ok(Kind::Http(parts(text)?))
        }
        ("s3", Some(rest)) => match rest.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !bucket.contains('{') && !key.is_empty() => {
                Ok(Kind::S3 { bucket: bucket.to_owned(), key: parts(key)? })
            }
            _ => Err("write s3://BUCKET/KEY; the bucket cannot come from the payload".to_owned()),
        },
        ("file", Some(path)) if path.starts_with('/') => Ok(Kind::File(parts(path)?)),
        ("file", _) => Err("write file:///PATH".to_owned()),
        ("function", None) => rest.parse().map(Kind::Function).map_err(|error| format!("{error}")),
        _ => Err("begin it with https:, http:, s3:, file: or function:".to_owned()),
    }
}

impl FromStr for Dependency {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let kind = kind(text).map_err(|problem| Error::Dependency { text: text.to_owned(), problem })?;
        Ok(Self { text: text.to_owned(), kind })
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
        ] {
            let error = text.parse::<Dependency>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no dependency: ")), "{error}");
        }
    }

    #[test]
    fn settings_are_strict_and_bounded() {
        let setting: Idempotency =
            serde_json::from_value(json!({"mode": "key", "key": "$.order.id", "window_secs": 60})).unwrap();
        assert_eq!((setting.mode, setting.window_secs, setting.check()), (Mode::Key, 60, Ok(())));
        let written = serde_json::to_value(&setting).unwrap();
        assert_eq!(serde_json::from_value::<Idempotency>(written).unwrap(), setting);
        for wrong in [json!({"mode": "sometimes"}), json!({"windows": 1}), json!({"key": "id"}), json!({"on": ["x"]})] {
            assert!(serde_json::from_value::<Idempotency>(wrong).is_err());
        }
        assert!(Idempotency { window_secs: 0, ..setting.clone() }.check().is_err());
        assert!(Idempotency { window_secs: MAX_WINDOW_SECS + 1, ..setting.clone() }.check().is_err());
        let error = Idempotency { fresh_ms: 60_001, ..setting }.check().unwrap_err();
        assert_eq!(error.to_string(), "fresh_ms = 60001 is not between 0 and 60000");
    }
}

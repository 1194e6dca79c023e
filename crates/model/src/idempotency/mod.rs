//! What makes two requests of a function the same, and how long the answer of one counts for the other.
//!
//! ```text
//! off            every request runs
//! key            requests with the same key run once within the window
//! dependencies   a request is answered from the record of an earlier one with the same input, as long as nothing has changed that
//!                the execution depended on
//! ```

mod dependency;

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json_path::JsonPath;

pub use dependency::{Dependency, MAX_DEPENDENCY_BYTES, Resource};

/// Longest time that a record counts.
pub const MAX_WINDOW_SECS: u32 = 7 * 24 * 3600;
/// How long a record counts where nothing else was said.
pub const DEFAULT_WINDOW_SECS: u32 = 3600;
/// Most dependencies of a function.
pub const MAX_DEPENDENCIES: usize = 32;
/// Most paths that make up the input.
pub const MAX_INPUTS: usize = 16;
/// Most dependencies that the code of one invocation reports.
pub const MAX_REPORTED: usize = 64;
/// Most bytes of a key.
pub const MAX_KEY_BYTES: usize = 255;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

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

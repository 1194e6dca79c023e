//! The service models as data: what operations there are, what they take and what they answer.
//!
//! `cargo xtask model` takes the JSON files from botocore; here they are read once into typed tables. Nothing else in
//! this crate knows an operation's path, a limit or a pattern.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use serde::Deserialize;

use crate::pattern::Pattern;

/// The model of the Lambda API.
pub(crate) static LAMBDA: LazyLock<Model> = LazyLock::new(|| Model::read(include_str!("../model/lambda.json")));
/// The model of the EventBridge Scheduler API.
pub(crate) static SCHEDULER: LazyLock<Model> = LazyLock::new(|| Model::read(include_str!("../model/scheduler.json")));
/// The model of the part of the CloudWatch Logs API that is known here.
pub(crate) static LOGS: LazyLock<Model> = LazyLock::new(|| Model::read(include_str!("../model/logs.json")));

/// A service.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Model {
    pub operations: HashMap<String, Operation>,
    pub shapes: HashMap<String, Shape>,
}

/// An operation.
#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub http: Http,
    pub input: Option<String>,
    pub output: Option<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests ask which errors an operation may answer with"))]
    pub errors: Vec<String>,
}

/// How an operation travels.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http {
    pub method: String,
    pub request_uri: String,
    #[serde(default = "ok")]
    pub response_code: u16,
}

fn ok() -> u16 {
    200
}

/// A type.
#[derive(Debug, Deserialize)]
pub(crate) struct Shape {
    #[serde(rename = "type")]
    pub kind: Kind,
    #[serde(default, rename = "enum")]
    pub words: Vec<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub pattern: Option<String>,
    #[serde(default)]
    pub required: Vec<String>,
    /// In the model's order, which is the order in which violations are told.
    #[serde(default, deserialize_with = "in_order")]
    pub members: Vec<(String, Member)>,
    /// What a list holds.
    pub member: Option<String>,
    pub key: Option<String>,
    pub value: Option<String>,
    /// The member that is the whole body.
    pub payload: Option<String>,
    #[serde(default)]
    pub sensitive: bool,
    pub error: Option<ErrorTrait>,
    #[serde(skip)]
    compiled: OnceLock<Option<Pattern>>,
}

/// An error's status.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorTrait {
    pub http_status_code: u16,
}

/// A structure's member.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Member {
    pub shape: String,
    #[serde(default)]
    pub location: Location,
    pub location_name: Option<String>,
}

/// Where a member travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Location {
    #[default]
    Body,
    Uri,
    #[serde(rename = "querystring")]
    Query,
    Header,
    StatusCode,
}

/// What a shape is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    String,
    Integer,
    Long,
    Double,
    Float,
    Boolean,
    Blob,
    Timestamp,
    List,
    Map,
    Structure,
}

impl Model {
    fn read(text: &str) -> Self {
        // The file is part of the program and a test reads it; there is no one to tell at run time.
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.shapes.get(name)
    }

    /// The status and message key of an error shape.
    pub fn error(&self, code: &str) -> Option<(u16, &Shape)> {
        let shape = self.shapes.get(code)?;
        Some((shape.error.as_ref()?.http_status_code, shape))
    }
}

impl Shape {
    pub fn has(&self, member: &str) -> bool {
        self.get(member).is_some()
    }

    pub fn get(&self, member: &str) -> Option<&Member> {
        self.members.iter().find(|(name, _)| name == member).map(|(_, member)| member)
    }

    /// Whether `text` is as the pattern wants it.
    pub fn fits_pattern(&self, text: &str) -> bool {
        let Some(source) = &self.pattern else { return true };
        let compiled = self.compiled.get_or_init(|| Pattern::compile(source).ok());
        compiled.as_ref().is_none_or(|pattern| pattern.fits(text))
    }
}

/// A JSON object as a list, in its order.
fn in_order<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(String, Member)>, D::Error> {
    struct Pairs;
    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, Member)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_models_are_read_whole() {
        assert_eq!(LAMBDA.operations.len(), 91);
        assert_eq!(LOGS.operations.len(), 14);
        assert_eq!(SCHEDULER.operations.len(), 12);
        for model in [&*LAMBDA, &*LOGS, &*SCHEDULER] {
            for (name, operation) in &model.operations {
                for shape in operation.input.iter().chain(&operation.output).chain(&operation.errors) {
                    assert!(model.shape(shape).is_some(), "{name}: {shape}");
                }
            }
        }
    }
}

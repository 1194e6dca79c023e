//! Answers "what is the value of this key?" from all sources, and remembers which keys were asked for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;

use super::Env;

/// What all our environment variables start with.
const PREFIX: &str = "LAMBENT_";

/// Variables with our prefix that are no configuration of a node: what client commands read, and what tests set.
const NOT_CONFIGURATION: &[&str] = &["LAMBENT_ENDPOINT", "LAMBENT_TEST_"];

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key that does not exist.
    #[error("unknown key {key:?} in {origin}{}", suggestion(.near))]
    Unknown {
        /// The key as written.
        key: String,
        /// Where it was written.
        origin: String,
        /// The known key that it resembles.
        near: Option<String>,
    },
    /// A value that the key cannot have.
    #[error("{key} = {value} (from {origin}) is not usable: {problem}")]
    Value {
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// Values that cannot hold together.
    #[error("{0}")]
    Contradiction(String),
}

fn suggestion(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// One key in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Its name.
    pub key: Cow<'static, str>,
    /// Its value; none where it is not set and has no default.
    pub value: Option<Value>,
    /// Where that came from.
    pub origin: Origin,
}

/// The sources, and what was asked of them so far.
pub struct Reader<'a> {
    file: Option<PathBuf>,
    from_file: BTreeMap<String, Value>,
    env: &'a dyn Env,
    flags: &'a [(String, String)],
    asked: Vec<Effective>,
}

impl<'a> Reader<'a> {
    /// A reader over these sources.
    pub fn new(file: Option<(PathBuf, toml::Table)>, env: &'a dyn Env, flags: &'a [(String, String)]) -> Self {
        let mut from_file = BTreeMap::new();
        let file = file.map(|(path, table)| {
            flatten("", table, &mut from_file);
            path
        });
        Self { file, from_file, env, flags, asked: Vec::new() }
    }

    /// The value of `key`, or its default.
    pub fn value<T: DeserializeOwned + Serialize>(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        default: T,
    ) -> Result<T, Error> {
        let key = key.into();
        let (value, origin) = self.set(&key)?.unwrap_or((default, Origin::Default));
        self.asked.push(Effective { key, value: Value::try_from(&value).ok(), origin });
        Ok(value)
    }

    /// The value of `key`, where somebody set it.
    pub fn optional<T: DeserializeOwned + Serialize>(
        &mut self,
        key: impl Into<Cow<'static, str>>,
    ) -> Result<Option<T>, Error> {
        let key = key.into();
        let (value, origin) = self.set(&key)?.map_or((None, Origin::Default), |(value, origin)| (Some(value), origin));
        let shown = value.as_ref().and_then(|value| Value::try_from(value).ok());
        self.asked.push(Effective { key, value: shown, origin });
        Ok(value)
    }

    /// The names that the file and the flags have below `section`, for sections of which there may be several.
    pub fn below(&self, section: &str) -> BTreeSet<String> {
        let keys = self.from_file.keys().chain(self.flags.iter().map(|(key, _)| key));
        let rests = keys.filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'));
        rests.map(|rest| rest.split('.').next().unwrap_or(rest).to_owned()).collect()
    }

    fn set<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Origin)>, Error> {
        let Some((raw, origin)) = self.raw(key) else { return Ok(None) };
        match read(&raw, &origin) {
            Ok(value) => Ok(Some((value, origin))),
            Err(problem) => Err(Error::Value { key: key.to_owned(), value: raw.to_string(), origin, problem }),
        }
    }

    /// What was asked and answered; an error where a source says something that nobody asked for.
    pub fn finish(self) -> Result<Vec<Effective>, Error> {
        let known = |key: &str| self.asked.iter().any(|asked| asked.key == key);
        let unknown = |key: &str, origin: String| {
            Err(Error::Unknown { key: key.to_owned(), origin, near: nearest(key, &self.asked) })
        };
        if let Some((key, _)) = self.flags.iter().find(|(key, _)| !known(key)) {
            return unknown(key, "--set".to_owned());
        }
        let mut names = self.env.names(PREFIX);
        names.retain(|name| !NOT_CONFIGURATION.iter().any(|other| name.starts_with(other)));
        if let Some(name) = names.iter().find(|name| !self.asked.iter().any(|asked| variable(&asked.key) == **name)) {
            let near = nearest_of(name, self.asked.iter().map(|asked| variable(&asked.key)));
            return Err(Error::Unknown { key: name.clone(), origin: "the environment".to_owned(), near });
        }
        if let Some(key) = self.from_file.keys().find(|key| !known(key)) {
            let file = self.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            return unknown(key, file);
        }
        Ok(self.asked)
    }

    fn raw(&self, key: &str) -> Option<(Value, Origin)> {
        if let Some((_, text)) = self.flags.iter().rev().find(|(name, _)| name == key) {
            return Some((Value::String(text.clone()), Origin::Flag));
        }
        let name = variable(key);
        if let Some(text) = self.env.get(&name) {
            return Some((Value::String(text), Origin::Environment(name)));
        }
        let path = self.file.clone()?;
        self.from_file.get(key).map(|value| (value.clone(), Origin::File(path)))
    }
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Flags and variables are text whatever the key's type is, so what is no string is read as TOML there.
fn read<T: DeserializeOwned>(raw: &Value, origin: &Origin) -> Result<T, String> {
    let first = raw.clone().try_into::<T>().map_err(|error| error.message().to_owned());
    let (Err(problem), Value::String(text), Origin::Environment(_) | Origin::Flag) = (&first, raw, origin) else {
        return first;
    };
    let table: toml::Table = format!("value = {text}").parse().map_err(|_| problem.clone())?;
    match table.into_iter().next() {
        Some((_, value)) => value.try_into().map_err(|error: toml::de::Error| error.message().to_owned()),
        None => first,
    }
}

fn flatten(prefix: &str, table: toml::Table, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, into),
            value => _ = into.insert(key, value),
        }
    }
}

fn nearest(key: &str, asked: &[Effective]) -> Option<String> {
    nearest_of(key, asked.iter().map(|asked| asked.key.to_string()))
}

/// The candidate a mistyped word most likely meant: at most a third of it differs.
fn nearest_of(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let (distance, best) = candidates.map(|candidate| (distance(word, &candidate), candidate)).min()?;
    (distance <= word.len().div_ceil(3)).then_some(best)
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            left = changed.min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

//! What is kept of an execution.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::idempotency::Mode;
use lambent_model::{Digest, RequestId, Version};
use lambent_store::records::{Record, RecordId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::inspect::State;

/// What a record says of its execution, beside the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub mode: Mode,
    /// The version that ran.
    pub version: Version,
    /// Its code and configuration.
    pub generation: Uuid,
    pub code: Digest,
    /// The request that ran it.
    pub request_id: RequestId,
    /// The key, in [`Mode::Key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// SHA-256 of what it got.
    pub payload: String,
    #[serde(default)]
    pub is_error: bool,
    #[serde(default)]
    pub content_type: String,
    /// What the answer depends on and the state that was in before and after the run. None where it could not be told, or was not the same.
    #[serde(default)]
    pub dependencies: BTreeMap<String, Option<State>>,
    /// Those of them that are not declared: its code has reported them while it ran, and they were looked at then.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reported: BTreeSet<String>,
    /// A report of its code was refused, so what else it depends on is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut_short: bool,
    /// When they were looked at last; the first of them.
    pub looked: Timestamp,
}

/// A finished record.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub id: RecordId,
    pub meta: Meta,
    pub answer: Bytes,
    pub finished: Timestamp,
    pub expires: Timestamp,
}

impl Meta {
    pub fn written(&self) -> Bytes {
        // A structure of texts and numbers can be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Whether each dependency and its state is known.
    pub fn is_checked(&self) -> bool {
        !self.is_cut_short && self.dependencies.values().all(Option::is_some)
    }

    /// What was declared when it ran.
    pub fn declared(&self) -> impl Iterator<Item = &String> {
        self.dependencies.keys().filter(|name| !self.reported.contains(*name))
    }

    /// None where a later release wrote it, or it is damaged: then the record is as if it were not there.
    pub fn read(record: &Record) -> Option<Self> {
        match serde_json::from_slice(&record.meta) {
            Ok(meta) => Some(meta),
            Err(error) => {
                tracing::warn!(record = %record.id, %error, "an execution record cannot be read");
                None
            }
        }
    }
}

impl Kept {
    pub fn read(record: &Record, answer: Bytes) -> Option<Self> {
        let finished = record.finished?;
        Some(Self { id: record.id, meta: Meta::read(record)?, answer, finished, expires: record.expires })
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let dependencies: usize = self.meta.dependencies.keys().map(|text| text.len() + 128).sum();
        let reported: usize = self.meta.reported.iter().map(|text| text.len() + 32).sum();
        self.answer.len() + dependencies + reported + 512
    }
}

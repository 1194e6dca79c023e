//! What is kept in the catalog.
//!
//! ```text
//! registry/function/ACCOUNT/NAME     Head: $LATEST and everything that can change; the root of the aggregate
//! registry/version/ACCOUNT/NAME/N    Config: one published version
//! registry/number/ACCOUNT/NAME       the next version number of a deleted function, as numbers are never used twice
//! registry/layer/ACCOUNT/NAME        Layer: all versions of a layer and their policies
//! registry/mapping/ACCOUNT/UUID      Mapping: an event source mapping
//! registry/pair/ACCOUNT/DIGEST       UUID of the mapping that joins this source and function, so that no two do
//! registry/signing/ACCOUNT/ID        Signing: a code signing configuration
//! registry/secret                    the key that signs download links
//! ```
//! Records are written with their [`FORMAT`]; `registry/secret` is bare bytes.
//! A commit writes the root of what it changes last; when a reader has seen the root, it has seen the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use lambent_model::affinity::Affinity;
use lambent_model::function::{CodeRef, FunctionVersion, LayerRef, Logging, Network, Runtime, TracingMode};
use lambent_model::idempotency::Idempotency;
use lambent_model::{FunctionArn, Version};
use lambent_policy::document::Document;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::shape::{
    AuthType, CodeSigningPolicies, Cors, EventSourceMappingConfiguration, InvokeMode, LastUpdateStatus, State,
};

/// Format of these records, and of the types of `model` and `shape` that they hold ([`lambent_store::record`] says when to count on).
/// `tests/stored` has documents of each format, which stay readable.
pub(crate) const FORMAT: u32 = 1;

/// Everything about a function that changes, in one document, so that one expectation guards it all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) arn: FunctionArn,
    /// What updates change.
    pub(crate) latest: Config,
    /// What `$LATEST` runs while an update of it is prepared, or after one failed; none: `latest` itself.
    pub(crate) active: Option<FunctionVersion>,
    /// Grows for ever.
    pub(crate) next_version: u64,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) aliases: BTreeMap<String, Alias>,
    /// By qualifier; `$LATEST` is the function's own.
    pub(crate) policies: BTreeMap<String, Document>,
    pub(crate) urls: BTreeMap<String, Url>,
    pub(crate) reserved_concurrency: Option<u32>,
    pub(crate) provisioned: BTreeMap<String, Provisioned>,
    pub(crate) runtime_management: BTreeMap<String, RuntimeManagement>,
    pub(crate) recursive_loop: Option<String>,
    pub(crate) code_signing: Option<String>,
    /// By qualifier; `$LATEST` is the function's own.
    #[serde(default)]
    pub(crate) event_invoke: BTreeMap<String, EventInvoke>,
    /// None: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency: Option<Arc<Idempotency>>,
    /// None: any container does for any call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<Arc<Affinity>>,
}

/// The qualifier under which what belongs to the unqualified function is kept.
pub(crate) const LATEST: &str = "$LATEST";

/// Code and configuration of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) version: Version,
    /// Changes with anything a caller could see change.
    pub(crate) revision_id: Uuid,
    /// Changes when what runs changes.
    pub(crate) generation: Uuid,
    pub(crate) last_modified: Timestamp,
    pub(crate) state: Lifecycle,
    pub(crate) settings: Configured,
}

/// The part of a [`Config`] that a published version shares with the `$LATEST` it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Configured {
    pub(crate) code: CodeRef,
    pub(crate) unzipped_bytes: u64,
    pub(crate) runtime: Runtime,
    pub(crate) role: String,
    pub(crate) handler: Option<String>,
    pub(crate) description: String,
    pub(crate) timeout_secs: u32,
    pub(crate) memory_mib: u32,
    pub(crate) ephemeral_mib: u32,
    pub(crate) environment: Option<BTreeMap<String, String>>,
    pub(crate) layers: Vec<UsedLayer>,
    pub(crate) architecture: String,
    pub(crate) tracing: TracingMode,
    pub(crate) dead_letter: Option<String>,
    pub(crate) snap_start: String,
    /// Said at the creation and never again.
    #[serde(default)]
    pub(crate) per_tenant: bool,
    pub(crate) logging: Logging,
    pub(crate) network: Network,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UsedLayer {
    pub(crate) layer: LayerRef,
    pub(crate) unzipped_bytes: u64,
}

/// `Pending → Active | Failed`; from `Active`, an update leads `InProgress → Successful | Failed` and back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Lifecycle {
    /// Created; its code is being prepared.
    Pending,
    /// Its code could not be prepared.
    Failed { reason: String },
    /// It runs.
    Active,
    /// It runs as before; an update is being prepared.
    Updating,
    /// It runs as before; the update could not be prepared.
    UpdateFailed { reason: String },
}

impl Lifecycle {
    pub(crate) fn state(&self) -> State {
        match self {
            Self::Pending => State::Pending,
            Self::Failed { .. } => State::Failed,
            Self::Active | Self::Updating | Self::UpdateFailed { .. } => State::Active,
        }
    }

    /// None before the first update could have been.
    pub(crate) fn last_update(&self) -> Option<LastUpdateStatus> {
        match self {
            Self::Pending | Self::Failed { .. } => None,
            Self::Active => Some(LastUpdateStatus::Successful),
            Self::Updating => Some(LastUpdateStatus::InProgress),
            Self::UpdateFailed { .. } => Some(LastUpdateStatus::Failed),
        }
    }

    /// Whether something is being prepared.
    pub(crate) fn is_unsettled(&self) -> bool {
        matches!(self, Self::Pending | Self::Updating)
    }

    /// What comes of preparing.
    pub(crate) fn settled(&self, outcome: Result<(), String>) -> Self {
        match (self, outcome) {
            (Self::Pending | Self::Updating, Ok(())) => Self::Active,
            (Self::Pending, Err(reason)) => Self::Failed { reason },
            (Self::Updating, Err(reason)) => Self::UpdateFailed { reason },
            (Self::Failed { .. } | Self::Active | Self::UpdateFailed { .. }, _) => self.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alias {
    pub(crate) version: Version,
    pub(crate) description: String,
    /// The other version and its share.
    pub(crate) additional: Option<(Version, f64)>,
    pub(crate) revision_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Url {
    pub(crate) id: String,
    pub(crate) auth_type: AuthType,
    pub(crate) cors: Option<Cors>,
    pub(crate) invoke_mode: InvokeMode,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provisioned {
    pub(crate) requested: u32,
    pub(crate) modified: Timestamp,
}

/// What is configured for asynchronous invocation; none: AWS's default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct EventInvoke {
    pub(crate) retries: Option<u32>,
    pub(crate) age_secs: Option<u32>,
    pub(crate) on_success: Option<String>,
    pub(crate) on_failure: Option<String>,
    pub(crate) modified: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RuntimeManagement {
    pub(crate) update_on: String,
    pub(crate) runtime_version_arn: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// `arn:aws:lambda:REGION:ACCOUNT:layer:NAME`.
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) next_version: u64,
    pub(crate) versions: BTreeMap<u64, LayerVersion>,
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerVersion {
    pub(crate) code: CodeRef,
    pub(crate) unzipped_bytes: u64,
    pub(crate) created: Timestamp,
    pub(crate) description: String,
    pub(crate) license: Option<String>,
    pub(crate) runtimes: Option<Vec<String>>,
    pub(crate) architectures: Option<Vec<String>>,
    pub(crate) policy: Option<LayerPolicy>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerPolicy {
    pub(crate) revision_id: Uuid,
    pub(crate) document: Document,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mapping {
    pub(crate) configuration: EventSourceMappingConfiguration,
    pub(crate) tags: BTreeMap<String, String>,
    /// Key of the document that holds its place.
    pub(crate) pair: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signing {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) description: Option<String>,
    pub(crate) publishers: Vec<String>,
    pub(crate) policies: CodeSigningPolicies,
    pub(crate) modified: Timestamp,
    pub(crate) tags: BTreeMap<String, String>,
}

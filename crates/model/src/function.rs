//! A function version as the data path sees it: everything that is needed to run it, nothing that is only shown.
//!
//! The control plane (`registry`) keeps more about a function than this; what it publishes to the rest of the system is
//! an immutable [`FunctionVersion`] behind an `Arc`. A change of configuration or code makes a new one with a new
//! [`FunctionVersion::generation`]; containers made for an older generation are drained and never reused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arn::{FunctionArn, Version};
use crate::id::Digest;

/// One runnable version of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionVersion {
    /// Whose and which function.
    pub arn: FunctionArn,
    /// `$LATEST` or a published number.
    pub version: Version,
    /// Changes with every change of code or configuration; equal generations run alike. AWS calls it `RevisionId`.
    pub generation: uuid::Uuid,
    /// What runs it.
    pub runtime: Runtime,
    /// `module.function` for the language runtimes; free text (or nothing) for `provided`.
    pub handler: Option<String>,
    /// The unpacked code.
    pub code: CodeRef,
    /// Layers, in the order in which they are laid over each other under `/opt` (later ones win).
    pub layers: Vec<LayerRef>,
    /// The user's environment variables.
    pub environment: BTreeMap<String, String>,
    /// How long an invocation may run.
    pub timeout: Duration,
    /// Memory limit, which also sets the CPU share.
    pub memory_mib: u32,
    /// Size of `/tmp`.
    pub ephemeral_mib: u32,
    /// What the function may reach.
    pub network: Network,
    /// Where and how it logs.
    pub logging: Logging,
    /// Whether a trace id is handed to the function (`Active`) or only passed on (`PassThrough`).
    pub tracing: TracingMode,
    /// Whether containers are to be made from a snapshot of an initialised one: `SnapStart` of a published version.
    #[serde(default)]
    pub snap_start: bool,
    /// Whether a container serves one tenant only, as long as it lives: AWS's tenant isolation mode `PER_TENANT`.
    #[serde(default)]
    pub per_tenant: bool,
}

impl FunctionVersion {
    /// The ARN with its version, as `Lambda-Runtime-Invoked-Function-Arn` has it for unqualified calls to a version.
    pub fn qualified_arn(&self) -> String {
        self.arn.qualified(self.version)
    }

    /// The share of one CPU this version gets, in thousandths: AWS gives a full one at 1,769 MiB.
    pub fn milli_cpus(&self) -> u32 {
        (self.memory_mib * 1000).div_ceil(crate::limits::MEMORY_MIB_PER_VCPU)
    }
}

/// Zipped code in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRef {
    /// SHA-256 of the zip, which names the blob.
    pub digest: Digest,
    /// Bytes of the zip.
    pub zipped_bytes: u64,
}

/// A layer version that a function uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// `arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION`.
    pub arn: String,
    /// The layer's zip.
    pub code: CodeRef,
}

/// What runs the code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Runtime {
    /// `python3.N`: our bootstrap on that interpreter.
    Python {
        /// The N of `python3.N`.
        minor: u8,
    },
    /// `nodejsN.x`: our bootstrap on that interpreter.
    Node {
        /// The N of `nodejsN.x`.
        major: u8,
    },
    /// `provided.al2` or `provided.al2023`: the `bootstrap` of the code or of a layer.
    Provided(Provided),
    /// `provided.wasm`: a WebAssembly component. Lambent's own; AWS has no such runtime.
    Wasm,
}

/// The operating system a `provided` function asks for. Lambent gives both the host's; the name is kept as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provided {
    /// `provided.al2`.
    Al2,
    /// `provided.al2023`.
    Al2023,
}

/// A runtime identifier that Lambent does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("runtime {0:?} is not one that this system runs")]
pub struct UnknownRuntime(pub String);

impl TryFrom<String> for Runtime {
    type Error = UnknownRuntime;

    fn try_from(text: String) -> Result<Self, UnknownRuntime> {
        let number = |digits: &str| digits.parse::<u8>().ok();
        let known = match text.as_str() {
            "provided.al2" => Some(Self::Provided(Provided::Al2)),
            "provided.al2023" => Some(Self::Provided(Provided::Al2023)),
            "provided.wasm" => Some(Self::Wasm),
            other => match (other.strip_prefix("python3."), other.strip_prefix("nodejs")) {
                (Some(minor), _) => number(minor).map(|minor| Self::Python { minor }),
                (_, Some(rest)) => rest.strip_suffix(".x").and_then(number).map(|major| Self::Node { major }),
                _ => None,
            },
        };
        known.ok_or(UnknownRuntime(text))
    }
}

impl From<Runtime> for String {
    fn from(runtime: Runtime) -> Self {
        runtime.to_string()
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Python { minor } => write!(f, "python3.{minor}"),
            Self::Node { major } => write!(f, "nodejs{major}.x"),
            Self::Provided(Provided::Al2) => f.write_str("provided.al2"),
            Self::Provided(Provided::Al2023) => f.write_str("provided.al2023"),
            Self::Wasm => f.write_str("provided.wasm"),
        }
    }
}

/// What a container may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Network {
    /// Outbound connections to anything but the host, link-local addresses and other containers.
    #[default]
    Internet,
    /// Its own loopback only.
    None,
}

/// Where and how a function logs. AWS's `LoggingConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Log group; `/aws/lambda/NAME` unless set.
    pub group: String,
    /// Format of platform lines, and of what the language runtimes' loggers write.
    pub format: LogFormat,
    /// Least level of application lines kept; JSON format only.
    pub application_level: Option<LogLevel>,
    /// Least level of platform lines kept; JSON format only.
    pub system_level: Option<LogLevel>,
}

/// AWS's `LogFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LogFormat {
    /// Plain lines.
    #[default]
    Text,
    /// One JSON object a line.
    #[serde(rename = "JSON")]
    Json,
}

/// Log levels, least severe first, so that `>=` means "at least as severe".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For debugging.
    Debug,
    /// The default.
    Info,
    /// Something to look at.
    Warn,
    /// An error of the function.
    Error,
    /// The function is dead.
    Fatal,
}

/// AWS's `TracingConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TracingMode {
    /// Pass on what the caller sent.
    #[default]
    PassThrough,
    /// Start a trace where the caller sent none.
    Active,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_read_back_as_written() {
        for text in ["python3.8", "python3.13", "nodejs20.x", "provided.al2", "provided.al2023", "provided.wasm"] {
            assert_eq!(Runtime::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["java21", "python2.7", "nodejs20", "provided", "go1.x", "python3."] {
            assert!(Runtime::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}

//! Calls that belong together: the value they share, and what came of it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The value of a call's routing parameter, of which only a digest is ever kept: it may be a name, or a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Value([u8; 16]);

impl Value {
    /// The digest of a value.
    pub fn of(value: &[u8]) -> Self {
        let mut short = [0; 16];
        let whole = digest(&SHA256, value);
        short.iter_mut().zip(whole.as_ref()).for_each(|(short, byte)| *short = *byte);
        Self(short)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value")
    }
}

/// Where a call with a value ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In its value's container.
    Hit,
    /// In the container that is its value's from now on; there was none.
    Miss,
    /// In another one, because its value's had no time, or too many values.
    Spill,
}

impl Outcome {
    /// As metrics and the header `X-Lambent-Affinity` have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Spill => "spill",
        }
    }
}

/// What affinity does for one function's version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AffinityStatus {
    /// The function's ARN, with version.
    pub function: String,
    /// Values that have a container.
    pub values: usize,
    /// Containers that hold values.
    pub containers: usize,
    /// Calls that ran in their value's container, since the version's first call with a value.
    pub hits: u64,
    /// Calls whose value had none.
    pub misses: u64,
    /// Calls whose value's container had no time, or too many values.
    pub spills: u64,
    /// What a hit saves: by so much the mean duration of misses is above that of hits; none where one of the two is not known yet.
    pub gain_ms: Option<f64>,
    /// Memory and `/tmp` of the containers that hold values.
    pub bytes: u64,
}

//! What the control-plane operations take and answer: AWS's shapes under AWS's names.
//!
//! Members are spelled as Rust spells them and (de)serialise as AWS spells them, so a front end builds an input from
//! one JSON object (labels, query and body merged) and writes an output as it is. Values were validated against the
//! service model's constraints before they come here. Structures that this system keeps and echoes without reading them
//! are [`serde_json::Value`].
#![allow(missing_docs, reason = "the members are AWS's; its API reference describes them")]

mod alias;
mod event;
mod function;
mod layer;
mod mapping;
mod permission;
mod settings;
mod signing;
mod url;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use alias::*;
pub use event::*;
pub use function::*;
pub use layer::*;
pub use mapping::*;
pub use permission::*;
pub use settings::*;
pub use signing::*;
pub use url::*;

/// Binary content; base64 in JSON.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Bytes);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        STANDARD.decode(text.as_bytes()).map(|bytes| Self(bytes.into())).map_err(D::Error::custom)
    }
}

/// A time as seconds since 1970, with milliseconds behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(pub Timestamp);

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0.as_millisecond() as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(from)?;
        Timestamp::from_millisecond((seconds * 1000.0).round() as i64).map(Self).map_err(D::Error::custom)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$attr])* #[serde(rename = $text)] $variant),*
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
    };
}

words! {
    /// State of a function version. `Pending → Active | Failed`; `ActiveNonInvocable`, `Inactive` and the rest of AWS's
    /// list do not occur here.
    State {
        /// Its code is being prepared.
        #[default] Pending = "Pending",
        /// It can be invoked.
        Active = "Active",
        /// Its code could not be prepared.
        Failed = "Failed",
    }
}
words! {
    /// State of the last update of `$LATEST`. While it is in progress the function runs as before it.
    LastUpdateStatus {
        /// It is in force.
        #[default] Successful = "Successful",
        /// The new code or configuration could not be prepared; the one before it runs.
        Failed = "Failed",
        /// The new code or configuration is being prepared.
        InProgress = "InProgress",
    }
}
words! {
    /// Who may call a function URL.
    AuthType {
        /// Whoever the resource policy lets in, unsigned.
        #[default] None = "NONE",
        /// Signed requests only.
        AwsIam = "AWS_IAM",
    }
}
words! {
    /// How a function URL answers.
    InvokeMode {
        /// When the whole answer is there.
        #[default] Buffered = "BUFFERED",
        /// As the function writes it.
        ResponseStream = "RESPONSE_STREAM",
    }
}
words! {
    /// How code is packed. Container images are not run here.
    PackageType {
        /// A zip.
        #[default] Zip = "Zip",
        /// A container image.
        Image = "Image",
    }
}

//! AWS Signature Version 4: proof that a request was made with an access key.
//!
//! The server side is [`Verifier`]: [`Verifier::begin`] judges the head of a request, so that a stranger's body is never
//! read where the head alone shows that it is a stranger's, and [`Pending::finish`] judges the body. The client side is
//! [`sign`] and [`presign`].
//!
//! The order in which faults are named, and their words, are those of AWS's services: missing token, unreadable
//! signature, time, credential scope, unknown key, wrong signature. Nothing before the last step tells a stranger
//! whether a key exists, except that step itself, as with AWS.
//!
//! Session tokens are those of [`crate::sessions`]; any other is refused as AWS refuses an invalid one.
//!
//! Not done: `STREAMING-…` payloads, which only S3 takes.
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

mod canonical;
mod claim;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use sign::{Signer, presign, sign};
pub use verify::{Pending, Verifier};

use http::StatusCode;
use lambent_model::{AccountId, FunctionArn};

/// The only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last part of a credential's scope.
const TERMINATOR: &str = "aws4_request";
/// What stands for the body's digest where the body is not signed.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Who made a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account.
    pub account: AccountId,
    /// `arn:aws:iam::ACCOUNT:root`, `arn:aws:iam::ACCOUNT:user/NAME`, or `arn:aws:sts::ACCOUNT:assumed-role/lambda/FUNCTION`.
    pub arn: String,
    /// The key it signed with.
    pub access_key_id: String,
    /// The function in whose container it was signed; none: it was signed with an access key.
    pub function: Option<FunctionArn>,
}

/// Why a request is not accepted. `Display` is AWS's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing in the request claims an identity.
    #[error("Missing Authentication Token")]
    MissingToken,
    /// The access key is not known, or not active.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// Temporary credentials are no longer good.
    #[error("The security token included in the request is expired")]
    Expired,
    /// Part of the signature is missing or not readable.
    #[error("{0}")]
    Incomplete(String),
    /// The signature does not fit the request, the time or the scope.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// AWS's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "MissingAuthenticationTokenException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::Expired => "ExpiredTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::Invalid(_) => "InvalidSignatureException",
        }
    }

    /// AWS's HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Incomplete(_) => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::UnknownKey | Self::Expired | Self::Invalid(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// `20150830T123600Z`.
fn basic_format(at: jiff::Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// SHA-256 in lower-case hexadecimal digits.
fn sha256_hex(content: &[u8]) -> String {
    in_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref())
}

/// As `hex::encode`, which gathers its text character by character; every call has three of these.
fn in_hex(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    // The room is exact, and digits are text.
    let _ = hex::encode_to_slice(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// The key that signs for one day, region and service.
pub(crate) fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> aws_lc_rs::hmac::Key {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let mut key = Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [day, region, service, TERMINATOR] {
        let tag = sign(&key, part.as_bytes());
        key = Key::new(HMAC_SHA256, tag.as_ref());
    }
    key
}

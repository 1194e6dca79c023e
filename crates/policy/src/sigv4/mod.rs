//! AWS Signature Version 4: proof that a request was made with an access key.
//!
//! The server side is [`Verifier`]: [`Verifier::begin`] judges the head of a request, so that a stranger's body is never
//! read, and [`Pending::finish`] judges the body. The client side is [`sign`] and [`presign`].

use std::sync::Arc;

use http::request::Parts;
use jiff::Timestamp;
use lambent_model::{AccountId, Clock, Region};

use crate::keys::Keys;

/// Who made a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account.
    pub account: AccountId,
    /// `arn:aws:iam::ACCOUNT:root`, or `arn:aws:iam::ACCOUNT:user/NAME`.
    pub arn: String,
    /// The key it signed with.
    pub access_key_id: String,
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
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::Invalid(_) => "InvalidSignatureException",
        }
    }

    /// AWS's HTTP status.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Incomplete(_) => http::StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::UnknownKey | Self::Invalid(_) => http::StatusCode::FORBIDDEN,
        }
    }
}

/// Checks signatures against the access keys.
pub struct Verifier {
    _keys: Arc<Keys>,
    _region: Region,
    _clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier for requests to services of `region`.
    pub fn new(keys: Arc<Keys>, region: Region, clock: Arc<dyn Clock>) -> Self {
        Self { _keys: keys, _region: region, _clock: clock }
    }

    /// Judges the head of a request to `service` (`lambda`, `logs`, `sts`): everything that does not need the body.
    pub fn begin(&self, _head: &Parts, _service: &str) -> Result<Pending, Error> {
        Err(Error::MissingToken)
    }
}

/// A request whose head is in order; its body is still to be judged.
#[must_use]
pub struct Pending {
    principal: Principal,
}

impl Pending {
    /// Who the request claims to be from, not yet proven.
    pub fn claimed(&self) -> &Principal {
        &self.principal
    }

    /// Judges the body and says who made the request.
    pub fn finish(self, _body: &[u8]) -> Result<Principal, Error> {
        Ok(self.principal)
    }
}

/// What a client signs with.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The access key's id.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// A session token, for temporary credentials.
    pub session_token: Option<&'a str>,
    /// The region called.
    pub region: &'a str,
    /// The service called: `lambda`, `logs`.
    pub service: &'a str,
    /// The time of the signature.
    pub at: Timestamp,
}

/// Signs a request in its headers: adds `host` (from the URI) where it is missing, `x-amz-date`, and `authorization`.
pub fn sign(_head: &mut Parts, _body: &[u8], _signer: Signer<'_>) {}

/// Signs a request in its query string, good for `expires_secs` seconds.
pub fn presign(_head: &mut Parts, _signer: Signer<'_>, _expires_secs: u32) {}

//! The server's side.

use std::sync::Arc;

use aws_lc_rs::hmac;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use lambent_model::{Clock, Region};
use subtle::ConstantTimeEq;

use super::claim::{self, Claim};
use super::{ALGORITHM, Error, Principal, TERMINATOR, UNSIGNED_PAYLOAD, basic_format, canonical, in_hex, sha256_hex};
use crate::keys::Keys;
use crate::sessions::Sessions;

/// How far a client's clock may be from ours.
const MOST_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Checks signatures against the access keys.
pub struct Verifier {
    keys: Arc<Keys>,
    /// None: no session token is good.
    sessions: Option<Arc<Sessions>>,
    region: Region,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier for requests to services of `region`.
    pub fn new(keys: Arc<Keys>, region: Region, clock: Arc<dyn Clock>) -> Self {
        Self { keys, sessions: None, region, clock }
    }

    /// The same, and functions may sign with their short-lived credentials.
    pub fn with_sessions(self, sessions: Arc<Sessions>) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// Who claims a session token, and what signs for that one.
    fn session(
        &self,
        token: &str,
        scope: &Scope<'_>,
        service: &str,
    ) -> Result<(Arc<Principal>, Arc<hmac::Key>), Error> {
        let sessions = self.sessions.as_ref().ok_or(Error::UnknownKey)?;
        let session = sessions.read(token, scope.key_id, self.clock.now())?;
        let function = session.function;
        let principal = Principal {
            account: function.account.clone(),
            arn: format!("arn:aws:sts::{}:assumed-role/lambda/{}", function.account, function.name),
            access_key_id: scope.key_id.to_owned(),
            function: Some(function),
        };
        let key = super::signing_key(&session.secret, scope.day, scope.region, service);
        Ok((Arc::new(principal), Arc::new(key)))
    }

    /// Judges the head of a request to `service` (`lambda`, `logs`, `sts`): everything that does not need the body.
    pub fn begin(&self, head: &Parts, service: &str) -> Result<Pending, Error> {
        let claim = claim::read(head)?;
        let mut signed_headers: Vec<&str> = claim.signed_headers.split(';').collect();
        signed_headers.sort_unstable();
        if !signed_headers.iter().any(|name| name.eq_ignore_ascii_case("host")) {
            let text = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
            return Err(Error::Invalid(text.to_owned()));
        }
        in_time(&claim, self.clock.now())?;
        let scope = Scope::read(&claim, self.region.as_str(), service)?;
        let (principal, key) = match &claim.session_token {
            None => self.keys.signing_key(scope.key_id, scope.day, scope.region, service).ok_or(Error::UnknownKey)?,
            Some(token) => self.session(token, &scope, service)?,
        };
        let pending = Pending {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            text_to_sign: format!("{ALGORITHM}\n{}\n{}\n", claim.date, scope.text),
            signature: claim.signature.into_owned(),
            canonical: canonical::request(&canonical::Parts {
                method: head.method.as_str(),
                path: head.uri.path(),
                query: head.uri.query(),
                headers: &head.headers,
                host: head.uri.authority().map(|authority| authority.as_str()),
                signed_headers: &signed_headers,
                payload_hash: "",
            }),
            declared: declared_hash(head, claim.expires.is_some())?,
            principal,
            key,
        };
        // Where the head says what the body is, the signature can be judged before the body is read.
        if let Some(declared) = &pending.declared {
            pending.judge(declared)?;
        }
        Ok(pending)
    }
}

/// A request whose head is in order as far as it can be judged; its body is still to come.
#[must_use]
pub struct Pending {
    method: String,
    path: String,
    /// The canonical request up to the body's digest.
    canonical: String,
    /// The string to sign up to the canonical request's digest.
    text_to_sign: String,
    signature: String,
    /// `x-amz-content-sha256`.
    declared: Option<String>,
    principal: Arc<Principal>,
    key: Arc<hmac::Key>,
}

impl Pending {
    /// Who the request claims to be from, not yet proven.
    pub fn claimed(&self) -> &Principal {
        &self.principal
    }

    /// Judges the body and says who made the request.
    pub fn finish(self, body: &[u8]) -> Result<Arc<Principal>, Error> {
        match self.declared.as_deref() {
            Some(UNSIGNED_PAYLOAD) => {}
            Some(declared) => {
                if !bool::from(declared.as_bytes().ct_eq(sha256_hex(body).as_bytes())) {
                    tracing::debug!(method = self.method, path = self.path, "the body is not the one that was signed");
                    // What AWS says where the digest in the head is not the body's.
                    self.judge(&sha256_hex(body))?;
                    return Err(Error::Invalid(MISMATCH.to_owned()));
                }
            }
            None => self.judge(&sha256_hex(body))?,
        }
        Ok(self.principal)
    }

    fn judge(&self, payload_hash: &str) -> Result<(), Error> {
        let canonical = format!("{}{payload_hash}", self.canonical);
        let to_sign = format!("{}{}", self.text_to_sign, sha256_hex(canonical.as_bytes()));
        let expected = in_hex(hmac::sign(&self.key, to_sign.as_bytes()).as_ref());
        if bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{MISMATCH}\n\nThe Canonical String for this request should have been\n'{canonical}'\n\n\
             The String-to-Sign should have been\n'{to_sign}'\n"
        )))
    }
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS \
                        Secret Access Key and signing method. Consult the service documentation for details.";

/// A credential's parts.
struct Scope<'a> {
    key_id: &'a str,
    day: &'a str,
    region: &'a str,
    /// `DAY/REGION/SERVICE/aws4_request`.
    text: &'a str,
}

impl<'a> Scope<'a> {
    /// The scope, where it is the one that requests to `service` in `region` at the claimed time have.
    fn read(claim: &'a Claim<'_>, region: &str, service: &str) -> Result<Self, Error> {
        let credential: &str = &claim.credential;
        let parts: Vec<&str> = credential.split('/').collect();
        let [key_id, day, of_region, of_service, terminator] = *parts.as_slice() else {
            return Err(Error::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
                 '{credential}'"
            )));
        };
        let mut faults = Vec::new();
        if of_region != region {
            faults.push(format!("Credential should be scoped to a valid region, not '{of_region}'."));
        }
        if of_service != service {
            faults.push(format!("Credential should be scoped to correct service: '{service}'."));
        }
        if terminator != TERMINATOR {
            faults.push(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{terminator}'."
            ));
        }
        let signed_day = claim.date.get(..8).unwrap_or_default();
        if day != signed_day {
            faults.push(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != \
                 '{signed_day}', from '{}'.",
                claim.date
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults.join(" ")));
        }
        let text = credential.split_once('/').map_or("", |(_, rest)| rest);
        Ok(Self { key_id, day, region: of_region, text })
    }
}

/// A signature is good for five minutes before and after its time; a presigned URL from its time for as long as it says.
fn in_time(claim: &Claim<'_>, now: Timestamp) -> Result<(), Error> {
    let age = now.duration_since(claim.at);
    let signed = &claim.date;
    // Made only when something is wrong: formatting times is slow, and this is on the path of every call.
    let shown = || basic_format(now);
    if age < -MOST_SKEW {
        let latest = basic_format(now.saturating_add(MOST_SKEW).unwrap_or(now));
        return Err(Error::Invalid(format!(
            "Signature not yet current: {signed} is still later than {latest} ({} + 5 min.)",
            shown()
        )));
    }
    match claim.expires {
        None if age > MOST_SKEW => {
            let earliest = basic_format(now.saturating_sub(MOST_SKEW).unwrap_or(now));
            Err(Error::Invalid(format!(
                "Signature expired: {signed} is now earlier than {earliest} ({} - 5 min.)",
                shown()
            )))
        }
        Some(expires) if age > SignedDuration::from_secs(expires) => {
            let until = basic_format(claim.at.saturating_add(SignedDuration::from_secs(expires)).unwrap_or(claim.at));
            Err(Error::Invalid(format!("Signature expired: {until} is now earlier than {}", shown())))
        }
        _ => Ok(()),
    }
}

/// The digest of the body that the head declares. Presigned URLs of services other than S3 sign the body itself.
fn declared_hash(head: &Parts, presigned: bool) -> Result<Option<String>, Error> {
    let header = head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    let declared = match (header, presigned) {
        (Some(value), _) => Some(value.to_owned()),
        (None, true) => {
            claim::parameter(head.uri.query().unwrap_or_default(), "X-Amz-Content-Sha256").map(|v| v.into_owned())
        }
        (None, false) => None,
    };
    match declared.as_deref() {
        None | Some(UNSIGNED_PAYLOAD) => Ok(declared),
        Some(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) => {
            Ok(declared)
        }
        Some(text) => Err(Error::Invalid(format!("The value of 'x-amz-content-sha256' is invalid: '{text}'"))),
    }
}

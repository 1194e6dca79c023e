//! Short-lived credentials of functions: what the code in a container signs with.
//!
//! Nothing is kept of them: a session token holds whose it is and until when, sealed with the node's key, and the secret that goes with it
//! follows from the same words and the same key. Whoever has the key can check them, which is every node that shares the catalog. The
//! key is made once and kept in the catalog; deleting it there ends all sessions at the next start.
//!
//! ```text
//! words  = "expiry in ms" SP "region" SP "account" SP "function" SP "access key id"
//! token  = base64(words || HMAC(key, "token" || words))
//! secret = base64(HMAC(key, "secret" || words)), 40 characters
//! ```

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lambent_model::{FunctionArn, Region};
use lambent_store::port::{Expect, Write};
use lambent_store::{Catalog, record};
use serde::{Deserialize, Serialize};

use crate::keys::{Error, random_id, random_text};
use crate::sigv4;

/// Where the key is kept in the catalog.
const PLACE: &str = "session-key/1";
/// Format of its document ([`record`]).
const FORMAT: u32 = 1;
/// Bytes of a seal.
const SEAL: usize = 32;
/// A token is longer than this only if it is not ours; nothing of such a one is read.
const MOST_TOKEN_BYTES: usize = 2048;
/// What is left of an HMAC in a secret: 40 characters.
const SECRET_BYTES: usize = 30;

/// What a container signs with.
#[derive(Clone)]
pub struct Credentials {
    /// `ASIA…`, twenty characters.
    pub access_key_id: String,
    /// Forty characters.
    pub secret_access_key: String,
    /// What goes with every request.
    pub session_token: String,
    /// Until when they are accepted.
    pub expires_at: Timestamp,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub function: FunctionArn,
    pub secret: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Hexadecimal.
    key: String,
}

/// Makes and reads sessions.
pub struct Sessions {
    key: hmac::Key,
}

impl Sessions {
    /// Reads the key in `catalog`; makes it where there is none.
    pub async fn open(catalog: &dyn Catalog) -> Result<Self, Error> {
        if let Some(found) = Self::find(catalog).await? {
            return Ok(found);
        }
        let key = random_text()?;
        let value = record::write(FORMAT, &Kept { key: key.clone() }).map_err(Error::Store)?;
        let write = Write { key: PLACE.to_owned(), expect: Expect::Absent, value: Some(value) };
        match catalog.commit(vec![write]).await {
            Ok(_) => Ok(Self::of(&key)),
            // Another node may have been faster.
            Err(error) => Self::find(catalog).await?.ok_or(Error::Store(error)),
        }
    }

    async fn find(catalog: &dyn Catalog) -> Result<Option<Self>, Error> {
        let Some(document) = catalog.get(PLACE).await.map_err(Error::Store)? else { return Ok(None) };
        let kept: Kept = record::read(FORMAT, &document).map_err(Error::Store)?;
        Ok(Some(Self::of(&kept.key)))
    }

    fn of(key: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()) }
    }

    /// Credentials for the containers of `function`.
    pub fn mint(&self, function: &FunctionArn, now: Timestamp, life: Duration) -> Result<Credentials, Error> {
        let access_key_id = random_id("ASIA")?;
        let expires_at = now.saturating_add(life).unwrap_or(Timestamp::MAX);
        let FunctionArn { region, account, name } = function;
        let words = format!("{} {region} {account} {name} {access_key_id}", expires_at.as_millisecond());
        let mut token = words.clone().into_bytes();
        token.extend_from_slice(self.seal("token", words.as_bytes()).as_ref());
        let (session_token, secret_access_key) = (STANDARD.encode(token), self.secret(&words));
        Ok(Credentials { access_key_id, secret_access_key, session_token, expires_at })
    }

    /// Whose `token` is, where it goes with this access key and has not expired.
    pub(crate) fn read(&self, token: &str, access_key_id: &str, now: Timestamp) -> Result<Session, sigv4::Error> {
        let unknown = sigv4::Error::UnknownKey;
        if token.len() > MOST_TOKEN_BYTES {
            return Err(unknown);
        }
        let bytes = STANDARD.decode(token).map_err(|_| unknown.clone())?;
        let at = bytes.len().checked_sub(SEAL).ok_or_else(|| unknown.clone())?;
        let (words, seal) = bytes.split_at(at);
        hmac::verify(&self.key, &[b"token".as_slice(), words].concat(), seal).map_err(|_| unknown.clone())?;
        let words = std::str::from_utf8(words).map_err(|_| unknown.clone())?;
        let parts: Vec<&str> = words.split(' ').collect();
        let [expiry, region, account, name, id] = *parts.as_slice() else { return Err(unknown) };
        let (Ok(expiry), Ok(account), Ok(name)) = (expiry.parse::<i64>(), account.parse(), name.parse()) else {
            return Err(unknown);
        };
        let function = FunctionArn { region: Region::new(region), account, name };
        if id != access_key_id {
            return Err(unknown);
        }
        if now.as_millisecond() >= expiry {
            return Err(sigv4::Error::Expired);
        }
        Ok(Session { function, secret: self.secret(words) })
    }

    fn seal(&self, what: &str, words: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &[what.as_bytes(), words].concat())
    }

    fn secret(&self, words: &str) -> String {
        let seal = self.seal("secret", words.as_bytes());
        STANDARD.encode(seal.as_ref().get(..SECRET_BYTES).unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is_until_it_expires_and_with_its_own_key_only() {
        let sessions = Sessions::of("key");
        let (region, account) = (Default::default(), Default::default());
        let function = FunctionArn { region, account, name: "f".parse().unwrap() };
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let made = sessions.mint(&function, now, Duration::from_secs(60)).unwrap();
        assert_eq!((made.access_key_id.len(), made.secret_access_key.len()), (20, 40));
        let read = |token: &str, id: &str, after: u64| {
            sessions.read(token, id, now.saturating_add(Duration::from_secs(after)).unwrap())
        };
        let expected = Session { function: function.clone(), secret: made.secret_access_key.clone() };
        assert_eq!(read(&made.session_token, &made.access_key_id, 59).unwrap(), expected);
        assert_eq!(read(&made.session_token, &made.access_key_id, 60), Err(sigv4::Error::Expired));
        assert_eq!(read(&made.session_token, "ASIAOTHER", 0), Err(sigv4::Error::UnknownKey));
        for text in ["", "AAAA", "%", &"A".repeat(4096)] {
            assert_eq!(read(text, &made.access_key_id, 0), Err(sigv4::Error::UnknownKey), "{text}");
        }
        let mut bytes = STANDARD.decode(&made.session_token).unwrap();
        for i in 0..bytes.len() {
            bytes[i] ^= 1;
            assert_eq!(
                read(&STANDARD.encode(&bytes), &made.access_key_id, 0),
                Err(sigv4::Error::UnknownKey),
                "byte {i}"
            );
            bytes[i] ^= 1;
        }
        let other = Sessions::of("other");
        assert_eq!(other.read(&made.session_token, &made.access_key_id, now), Err(sigv4::Error::UnknownKey));
    }
}

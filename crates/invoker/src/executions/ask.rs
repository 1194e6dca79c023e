//! What a request says of itself, beside what is configured for its function.

use bytes::Bytes;
use http::HeaderMap;
use lambent_model::idempotency::{self, MAX_KEY_BYTES, Mode};

/// The mode of one request.
pub const MODE: &str = "x-lambent-idempotency";
/// Its key.
pub const KEY: &str = "x-lambent-idempotency-key";
/// How an answer came about.
pub const HEADER: &str = "x-lambent-execution";

/// What a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// The mode instead of the function's.
    pub mode: Option<Mode>,
    /// Its key; without a mode beside it, it means [`Mode::Key`].
    pub key: Option<String>,
    /// What of it is the input, where the function's setting does not say; none: all of the payload. For payloads that are never the same
    /// twice, because they tell when they were sent.
    pub input: Option<Bytes>,
}

/// Headers that say nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not readable.
    #[error("{0} has characters other than printable ASCII")]
    NotAscii(&'static str),
    /// No mode.
    #[error("{MODE}: {0}")]
    Mode(#[source] idempotency::Error),
    /// No key.
    #[error("{KEY} has {0} characters; it must have 1 to {MAX_KEY_BYTES}")]
    KeyLength(usize),
    /// A key that nothing looks at.
    #[error("{KEY} has no meaning with {MODE}: {}", .0.as_str())]
    KeyWithout(Mode),
}

impl Ask {
    /// What the headers of a request say; none: nothing.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        let text = |name: &'static str| match headers.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Refused::NotAscii(name)),
        };
        let mode: Option<Mode> = text(MODE)?.map(|word| word.parse().map_err(Refused::Mode)).transpose()?;
        let key = text(KEY)?.map(str::to_owned);
        if let Some(length) = key.as_ref().map(String::len).filter(|length| !(1..=MAX_KEY_BYTES).contains(length)) {
            return Err(Refused::KeyLength(length));
        }
        if let (Some(mode @ (Mode::Off | Mode::Dependencies)), Some(_)) = (mode, &key) {
            return Err(Refused::KeyWithout(mode));
        }
        Ok((mode.is_some() || key.is_some()).then_some(Self { mode, key, input: None }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(pairs: &[(&'static str, &'static str)]) -> Result<Option<Ask>, Refused> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Ask::read(&HeaderMap::from_iter(headers))
    }

    #[test]
    fn headers_are_read_strictly() {
        assert_eq!(said(&[]), Ok(None));
        let key = Some("a".to_owned());
        assert_eq!(said(&[(KEY, "a")]), Ok(Some(Ask { key: key.clone(), ..Ask::default() })));
        assert_eq!(said(&[(MODE, "key"), (KEY, "a")]), Ok(Some(Ask { mode: Some(Mode::Key), key, input: None })));
        assert_eq!(said(&[(MODE, "off")]), Ok(Some(Ask { mode: Some(Mode::Off), ..Ask::default() })));
        for wrong in [vec![(MODE, "on")], vec![(KEY, "")], vec![(MODE, "off"), (KEY, "a")], vec![(KEY, "\u{e9}")]] {
            assert!(said(&wrong).is_err(), "{wrong:?}");
        }
        let text = said(&[(KEY, "")]).unwrap_err().to_string();
        assert_eq!(text, "x-lambent-idempotency-key has 0 characters; it must have 1 to 255");
    }
}

//! What a catalog document looks like: a record and the format it is written in.
//!
//! ```text
//! {"format":1,"record":{…}}
//! ```
//! Whoever keeps records counts their formats by itself. A release reads its own format and all before it, and refuses later ones: guessing
//! at what another release meant would lose what it kept. Records from before there were formats stand alone; they read as format 1.
//!
//! A field that is added with a default needs no new format, as long as an older release may ignore it. Anything else does, and a
//! test with documents of the old one.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;
use crate::port::Document;

#[derive(Serialize)]
struct Written<'a, T> {
    format: u32,
    record: &'a T,
}

/// No record of ours has fields of these names, so that one without a format cannot be taken for one with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Found<'a> {
    format: u32,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// A record as a document's content.
pub fn write(format: u32, record: &impl Serialize) -> Result<Bytes, Error> {
    let content = serde_json::to_vec(&Written { format, record });
    content.map(Bytes::from).map_err(|source| Error::backend("writing a document", source))
}

/// The record of a document that is in format `known` or an earlier one.
pub fn read<T: DeserializeOwned>(known: u32, document: &Document) -> Result<T, Error> {
    // An array would do for a structure as well, and a record may be one.
    let found = document.value.starts_with(b"{").then(|| serde_json::from_slice::<Found<'_>>(&document.value));
    let record = match found {
        Some(Ok(Found { format, .. })) if format > known => {
            return Err(Error::NewerRecord { key: document.key.clone(), found: format, known });
        }
        Some(Ok(Found { record, .. })) => serde_json::from_str(record.get()),
        Some(Err(_)) | None => serde_json::from_slice(&document.value),
    };
    record.map_err(|source| Error::Damaged { key: document.key.clone(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn document(value: impl Into<Bytes>) -> Document {
        Document { key: "thing/1".to_owned(), revision: 7, value: value.into() }
    }

    #[test]
    fn records_read_back_with_and_without_a_format() {
        let written = document(write(3, &vec![1, 2]).unwrap());
        assert_eq!(written.value, r#"{"format":3,"record":[1,2]}"#);
        assert_eq!(read::<Vec<u8>>(3, &written).unwrap(), [1, 2]);
        assert_eq!(read::<Vec<u8>>(4, &written).unwrap(), [1, 2]);
        assert_eq!(read::<Vec<u8>>(1, &document("[1,2]")).unwrap(), [1, 2]);
        assert_eq!(read::<u64>(1, &document("9")).unwrap(), 9);
    }

    #[test]
    fn later_formats_and_damage_are_told_apart() {
        let later = read::<Vec<u8>>(2, &document(r#"{"format":3,"record":{"unheard":"of"}}"#)).unwrap_err();
        assert_eq!(
            later.to_string(),
            "document \"thing/1\" is in format 3, but this release knows only up to 2; use the release that wrote it"
        );
        for damaged in ["", "{", "\"text\"", r#"{"format":1,"record":"text"}"#, r#"{"format":1}"#] {
            let error = read::<Vec<u8>>(2, &document(damaged)).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{damaged}");
        }
    }
}

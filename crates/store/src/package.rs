//! Code packages: zips that strangers send.

use std::io::{Read, Seek};
use std::path::Path;

/// What a sound package holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of all files, unpacked.
    pub unzipped_bytes: u64,
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a zip, or one that breaks off, is encrypted, or names a file twice or outside of its own directory.
    #[error("Could not unzip uploaded file. Please check your file, then try to upload again.")]
    Unreadable {
        /// What is wrong with it, for the log.
        reason: String,
    },
    /// Larger unpacked than may be.
    #[error("Unzipped size must be smaller than {limit} bytes")]
    TooLarge {
        /// What may be.
        limit: u64,
    },
    /// Nothing in it.
    #[error("Uploaded file must be a non-empty zip")]
    Empty,
    /// The target directory could not be written.
    #[error("could not unpack")]
    Io(#[source] std::io::Error),
}

/// Reads all of `zip` as [`unpack`] would, writing nothing.
pub fn check(zip: &[u8]) -> Result<Contents, Error> {
    let _ = zip;
    Err(Error::Unreadable { reason: String::new() })
}

/// Unpacks `zip` into `dir`, which must not exist; on any error it does not exist afterwards either.
pub fn unpack(zip: impl Read + Seek, dir: &Path) -> Result<Contents, Error> {
    let _ = (zip, dir);
    Err(Error::Unreadable { reason: String::new() })
}

//! What can go wrong behind a port.

use std::path::PathBuf;

/// Why a store operation did not happen. Where it is returned, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write expected another revision than the one in force; the caller reads again and decides anew.
    #[error("document {key:?} is at revision {actual:?}, not as expected")]
    Conflict {
        /// The document's key.
        key: String,
        /// The revision in force; none if the document does not exist.
        actual: Option<u64>,
    },
    /// The device has no room left.
    #[error("no space left for {what}")]
    Full {
        /// What was being written.
        what: &'static str,
    },
    /// The disk failed, and what is on it is not known; nothing is kept until all of the file could be written anew.
    #[error("the disk failed; nothing is kept until everything was written to it anew")]
    Doubtful,
    /// A queue has come to its bound; others may still have room in it.
    #[error("the event queue has no room for {lane}; events leave it as they are run")]
    QueueFull {
        /// The lane that wanted more.
        lane: String,
    },
    /// As many records are kept as may be, and none of them may go.
    #[error("no room for another execution record; records leave when they expire")]
    RecordsFull,
    /// Another process uses the directory.
    #[error("data directory {} is in use by another process; stop it, or choose another with --data-dir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A later release wrote the data.
    #[error("{} has schema version {found}, but this release knows only up to {known}; use the release that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// A later release wrote this document.
    #[error(
        "document {key:?} is in format {found}, but this release knows only up to {known}; use the release that wrote it"
    )]
    NewerRecord {
        /// The document's key.
        key: String,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// A document is not what was written.
    #[error("document {key:?} is damaged")]
    Damaged {
        /// The document's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The back end failed; a retry may or may not help.
    #[error("{operation} failed")]
    Backend {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn backend(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Backend { operation, source: source.into() }
    }

    /// An I/O error, told apart by whether the device is full.
    pub(crate) fn io(operation: &'static str, what: &'static str, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { what },
            _ => Self::backend(operation, source),
        }
    }
}

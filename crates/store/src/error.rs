//! What can go wrong behind a port.

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

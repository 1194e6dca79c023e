//! The promises.

use std::path::PathBuf;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::Digest;
use tokio::sync::mpsc;

use crate::Error;

/// A document and the revision it is at. Revisions grow with every commit, across all keys of a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Slash-separated path, e.g. `function/000000000000/thumb`.
    pub key: String,
    /// The commit that wrote it.
    pub revision: u64,
    /// The content, opaque to the store.
    pub value: Bytes,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// The document must not exist.
    Absent,
    /// The document must be at this revision.
    Revision(u64),
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The document's key.
    pub key: String,
    /// What must hold.
    pub expect: Expect,
    /// The new content, or none to delete.
    pub value: Option<Bytes>,
}

/// What a watch reports. After [`Change::Ready`] the watcher has seen all that existed when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A document was written (or existed when the watch began).
    Put(Document),
    /// A document was deleted by the commit of this revision.
    Deleted {
        /// Its key.
        key: String,
        /// The commit that deleted it.
        revision: u64,
    },
    /// Everything that existed when the watch began has been reported.
    Ready,
}

/// Versioned documents with compare-and-set. A commit that returned has reached the disk.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The document at `key`.
    async fn get(&self, key: &str) -> Result<Option<Document>, Error>;

    /// All documents whose key starts with `prefix`, ordered by key.
    async fn list(&self, prefix: &str) -> Result<Vec<Document>, Error>;

    /// All of `writes` or none; returns the revision they are all at.
    async fn commit(&self, writes: Vec<Write>) -> Result<u64, Error>;

    /// What there is under `prefix`, [`Change::Ready`], then every later change in commit order. A commit's changes are
    /// sent before the commit returns. The channel is bounded by nothing but the watcher's pace; a watcher must keep
    /// up.
    async fn watch(&self, prefix: &str) -> Result<mpsc::UnboundedReceiver<Change>, Error>;
}

/// Content under its SHA-256. A blob is there whole or not at all, also after a crash.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Keeps `content` and returns its name. Putting what is there already is cheap.
    async fn put(&self, content: Bytes) -> Result<Digest, Error>;

    /// The content, or none where it is not kept.
    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, Error>;

    /// A local file holding the content, for readers that seek; none where it is not kept.
    async fn path(&self, digest: Digest) -> Result<Option<PathBuf>, Error>;

    /// Forgets the content; forgetting what is not kept is no error.
    async fn delete(&self, digest: Digest) -> Result<(), Error>;

    /// Every digest kept.
    async fn list(&self) -> Result<Vec<Digest>, Error>;
}

/// One line (or multi-line record) of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// When it was written.
    pub at: Timestamp,
    /// When it was stored.
    pub ingested_at: Timestamp,
    /// Position among all events of the store; grows, never reused. Set by the store.
    pub id: u64,
    /// The text, to the byte as it was appended.
    pub message: String,
    /// The stream that holds it.
    pub stream: String,
}

/// A log group and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// Its name, e.g. `/aws/lambda/thumb`.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Days that events are kept; none: for ever.
    pub retention_days: Option<u32>,
    /// Bytes stored.
    pub stored_bytes: u64,
}

/// A log stream: what one container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// Its name, e.g. `2026/01/31/[$LATEST]0123…`.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Time of the first event.
    pub first_event_at: Option<Timestamp>,
    /// Time of the last event.
    pub last_event_at: Option<Timestamp>,
}

/// An event to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLogEvent {
    /// Group; made when it does not exist.
    pub group: Arc<str>,
    /// Stream; made when it does not exist.
    pub stream: Arc<str>,
    /// When it was written.
    pub at: Timestamp,
    /// The text.
    pub message: String,
}

/// Which events to read: those of one group, `from <= at < to`, oldest first (`(at, id)` order).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// The group.
    pub group: String,
    /// Only these streams; empty: all.
    pub streams: Vec<String>,
    /// Only streams whose name starts so.
    pub stream_prefix: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Continue behind this `(at, id)` (in front of it when `descending`).
    pub after: Option<(Timestamp, u64)>,
    /// Only events that were stored after the one of this id.
    pub newer_than: Option<u64>,
    /// Newest first instead.
    pub descending: bool,
    /// At most so many.
    pub limit: usize,
}

/// What functions and the platform wrote. Appending is fast and durable at the next batch, not at each line: losing the
/// last instant of logs in a power cut is accepted, losing order or whole lines otherwise is not.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Appends all of `events`, in order.
    async fn append(&self, events: Vec<NewLogEvent>) -> Result<(), Error>;

    /// Events as asked.
    async fn query(&self, query: LogQuery) -> Result<Vec<LogEvent>, Error>;

    /// Groups whose name starts with `prefix`, ordered by name.
    async fn groups(&self, prefix: &str) -> Result<Vec<LogGroup>, Error>;

    /// Streams of a group, ordered by name; none where the group does not exist.
    async fn streams(&self, group: &str) -> Result<Option<Vec<LogStream>>, Error>;

    /// Makes a group; false where it exists.
    async fn create_group(&self, group: &str, at: Timestamp) -> Result<bool, Error>;

    /// Makes an empty stream; false where it exists, none where its group does not.
    async fn create_stream(&self, group: &str, stream: &str, at: Timestamp) -> Result<Option<bool>, Error>;

    /// Deletes a stream with all its events; false where it does not exist, none where its group does not.
    async fn delete_stream(&self, group: &str, stream: &str) -> Result<Option<bool>, Error>;

    /// Deletes a group with all its streams; false where it does not exist.
    async fn delete_group(&self, group: &str) -> Result<bool, Error>;

    /// Sets retention; false where the group does not exist.
    async fn set_retention(&self, group: &str, days: Option<u32>) -> Result<bool, Error>;

    /// Deletes what retention no longer keeps; returns how many events.
    async fn expire(&self, now: Timestamp) -> Result<u64, Error>;
}

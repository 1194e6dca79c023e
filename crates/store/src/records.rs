//! [`Records`]: what executions returned, kept so that nothing runs twice.
//!
//! A record is named by a key, a digest of whatever makes two requests the same. There are two kinds:
//!
//! ```text
//! promised   begin ──> Started(turn 1) ──finish──> Finished          the same key does not run again until it expires
//!                        │        ▲ └──abandon──> (gone)
//!                        └take_over┘ (turn + 1; the earlier turn can no longer finish)
//! cached     put ─────────────────────────────────> Finished          losing it costs a run, nothing else
//! ```
//! A record expires; from then on it is as if it were not there, and [`Records::expire`] deletes it. The store is bounded: where it is
//! full, what has expired goes first, then the oldest cached records. A promised one is never given up before its time: [`Records::begin`]
//! is refused instead. What has begun may always finish, so the bound can be passed by the answers of what runs at this moment.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::Error;

/// Names a record. Grows, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One attempt at filling a record; later ones fence off earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The record.
    pub id: RecordId,
    /// Counts from 1.
    pub number: u32,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// What makes two requests the same.
    pub key: String,
    /// Whose it is.
    pub account: String,
    /// ARN of the function.
    pub function: String,
    /// Until when it counts.
    pub expires: Timestamp,
    /// What the caller wants to know of it, opaque to the store.
    pub meta: Bytes,
}

/// What came of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Replaces what was given at the start.
    pub meta: Bytes,
    /// What it returned.
    pub answer: Bytes,
    /// Until when it counts.
    pub expires: Timestamp,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: RecordId,
    /// How often its execution was begun.
    pub turn: u32,
    /// What makes two requests the same.
    pub key: String,
    /// Whose it is.
    pub account: String,
    /// ARN of the function.
    pub function: String,
    /// When its last turn began.
    pub started: Timestamp,
    /// When it got its answer; none: not yet, or whoever ran it died.
    pub finished: Option<Timestamp>,
    /// Until when it counts.
    pub expires: Timestamp,
    /// As given.
    pub meta: Bytes,
    /// Size of the answer.
    pub answer_bytes: u64,
}

/// What [`Records::begin`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the caller is the one to run it. This is on disk.
    Fresh(Turn),
    /// Somebody began it. Who knows that they are gone may take it over.
    Started(Record),
    /// It ran already.
    Finished(Record, Bytes),
}

/// Which records to list: in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Only this account's.
    pub account: Option<String>,
    /// Only those of the function with this ARN.
    pub function: Option<String>,
    /// Only those with a greater id.
    pub after: Option<RecordId>,
    /// At most so many.
    pub limit: usize,
}

/// The function that records belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Owner {
    /// Its account.
    pub account: String,
    /// Its ARN.
    pub function: String,
}

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Records.
    pub records: u64,
    /// Bytes of them, answers included.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { records: 1_000_000, bytes: 2 << 30 }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Records, expired ones that were not deleted yet included.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Records of executions. What returned has reached the disk.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Keeps that an execution begins, unless there is a record of this key that counts.
    async fn begin(&self, new: NewRecord, now: Timestamp) -> Result<Begun, Error>;

    /// Begins a started record again, for a holder that is gone; none where `turn` is not its latest, or it finished.
    async fn take_over(&self, turn: Turn, now: Timestamp) -> Result<Option<Turn>, Error>;

    /// Gives a record its answer; false, and nothing happens, where `turn` is not its latest, or it finished.
    async fn finish(&self, turn: Turn, outcome: Outcome, now: Timestamp) -> Result<bool, Error>;

    /// Forgets a started record: its key may run again. False as [`Records::finish`].
    async fn abandon(&self, turn: Turn) -> Result<bool, Error>;

    /// Keeps a finished record in place of any of its key; it may be given up for room.
    async fn put(&self, new: NewRecord, answer: Bytes, started: Timestamp, now: Timestamp) -> Result<RecordId, Error>;

    /// The finished record of a key, if it counts at `now`.
    async fn find(&self, key: &str, now: Timestamp) -> Result<Option<(Record, Bytes)>, Error>;

    /// One record and its answer, if it has one, expired or not.
    async fn get(&self, id: RecordId) -> Result<Option<(Record, Option<Bytes>)>, Error>;

    /// Records, without their answers.
    async fn list(&self, query: Query) -> Result<Vec<Record>, Error>;

    /// Whose records there are, each function once: in the order of `(account, function)`, those behind `after`, at most `limit`.
    async fn owners(&self, after: Option<Owner>, limit: usize) -> Result<Vec<Owner>, Error>;

    /// Forgets records, whatever their state; returns how many there were.
    async fn forget(&self, ids: Vec<RecordId>) -> Result<u64, Error>;

    /// Deletes what has expired, a bounded number; returns how many. 0: nothing is left to delete.
    async fn expire(&self, now: Timestamp) -> Result<u64, Error>;

    /// How much is kept.
    async fn usage(&self) -> Result<Usage, Error>;
}

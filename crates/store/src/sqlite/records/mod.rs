//! [`Records`](crate::Records) on SQLite: one row a record, one thread that writes.

mod read;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::writer::{Writer, stopped};
use super::{Durability, sql};
use crate::Error;
use crate::records::{self, Begun, Bounds, NewRecord, Outcome, Owner, Query, Record, RecordId, Turn, Usage};
use write::Keeper;

const SCHEMA: u32 = 1;
/// The answer stands last, so that what does not ask for it does not read it.
const TABLES: &str = "
    CREATE TABLE record (
        id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, account TEXT NOT NULL, function TEXT NOT NULL,
        cached INTEGER NOT NULL, turn INTEGER NOT NULL, started INTEGER NOT NULL, finished INTEGER, expires INTEGER NOT NULL,
        bytes INTEGER NOT NULL, meta BLOB NOT NULL, answer BLOB);
    CREATE INDEX record_expires ON record (expires);
    CREATE INDEX record_cached ON record (id) WHERE cached = 1;
    CREATE INDEX record_function ON record (account, function, id);
";

/// Records in one SQLite file.
pub struct Records {
    writer: Writer<Request>,
    reader: Arc<Mutex<Connection>>,
    /// Kept from others as long as this lives.
    lock: Option<Arc<crate::embedded::DirectoryLock>>,
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Begin { new: NewRecord, now: i64, reply: Reply<Begun> },
    TakeOver { turn: Turn, now: i64, reply: Reply<Option<Turn>> },
    Finish { turn: Turn, outcome: Outcome, now: i64, reply: Reply<bool> },
    Abandon { turn: Turn, reply: Reply<bool> },
    Put { new: NewRecord, answer: Bytes, started: i64, now: i64, reply: Reply<RecordId> },
    Forget { ids: Vec<RecordId>, reply: Reply<u64> },
    Expire { now: i64, reply: Reply<u64> },
    Usage { reply: Reply<Usage> },
}

impl Records {
    /// Opens or makes the file at `path`.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, Error> {
        let db = super::open(path, SCHEMA, TABLES, Durability::PowerCut)?;
        let reader = super::reader(path)?;
        let mut keeper = Keeper::load(&db, bounds).map_err(|e| sql("reading records", e))?;
        let writer = Writer::start("records", db, move |db, group| keeper.serve(db, group))?;
        Ok(Self { writer, reader: Arc::new(Mutex::new(reader)), lock: None })
    }

    /// Keeps `lock` until the file is closed.
    pub(crate) fn holding(self, lock: Arc<crate::embedded::DirectoryLock>) -> Self {
        Self { lock: Some(lock), ..self }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(request(reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|e| Error::backend("reading records", e))?
            .map_err(|e| sql("reading records", e))
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("lock", &self.lock).finish_non_exhaustive()
    }
}

#[async_trait]
impl records::Records for Records {
    async fn begin(&self, new: NewRecord, now: Timestamp) -> Result<Begun, Error> {
        self.ask(|reply| Request::Begin { new, now: now.as_microsecond(), reply }).await
    }

    async fn take_over(&self, turn: Turn, now: Timestamp) -> Result<Option<Turn>, Error> {
        self.ask(|reply| Request::TakeOver { turn, now: now.as_microsecond(), reply }).await
    }

    async fn finish(&self, turn: Turn, outcome: Outcome, now: Timestamp) -> Result<bool, Error> {
        self.ask(|reply| Request::Finish { turn, outcome, now: now.as_microsecond(), reply }).await
    }

    async fn abandon(&self, turn: Turn) -> Result<bool, Error> {
        self.ask(|reply| Request::Abandon { turn, reply }).await
    }

    async fn put(&self, new: NewRecord, answer: Bytes, started: Timestamp, now: Timestamp) -> Result<RecordId, Error> {
        let (started, now) = (started.as_microsecond(), now.as_microsecond());
        self.ask(|reply| Request::Put { new, answer, started, now, reply }).await
    }

    async fn find(&self, key: &str, now: Timestamp) -> Result<Option<(Record, Bytes)>, Error> {
        let (key, now) = (key.to_owned(), now.as_microsecond());
        self.read(move |db| read::find(db, &key, now)).await
    }

    async fn get(&self, id: RecordId) -> Result<Option<(Record, Option<Bytes>)>, Error> {
        self.read(move |db| read::get(db, id)).await
    }

    async fn list(&self, query: Query) -> Result<Vec<Record>, Error> {
        self.read(move |db| read::list(db, &query)).await
    }

    async fn owners(&self, after: Option<Owner>, limit: usize) -> Result<Vec<Owner>, Error> {
        self.read(move |db| read::owners(db, &after.unwrap_or_default(), limit)).await
    }

    async fn forget(&self, ids: Vec<RecordId>) -> Result<u64, Error> {
        self.ask(|reply| Request::Forget { ids, reply }).await
    }

    async fn expire(&self, now: Timestamp) -> Result<u64, Error> {
        self.ask(|reply| Request::Expire { now: now.as_microsecond(), reply }).await
    }

    async fn usage(&self) -> Result<Usage, Error> {
        self.ask(|reply| Request::Usage { reply }).await
    }
}

/// A time as it was written. What cannot be one is the earliest there is.
fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::MIN)
}

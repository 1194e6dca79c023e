//! [`EventQueue`](crate::EventQueue) on SQLite: rows on disk, their order in memory.
//!
//! One thread owns both. It takes what has queued up, writes it as one transaction, and changes the order when that has reached the
//! disk; so the order never knows of an event that a crash could take back. Leases are the exception: they are taken from the order
//! at once, so that no two of a group get the same event, and given back where the transaction fails.
//!
//! A lease is a row of its own beside the event, so that leasing does not rewrite a megabyte. It is written before the event is handed
//! out: after a crash the store knows which events may have run. One process at a time has the file open, so at opening no lease is
//! anybody's any more, and every event can be leased again at once.

mod read;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::writer::{Writer, stopped};
use super::{Durability, sql};
use crate::Error;
use crate::queue::{self, Batch, Bounds, Depth, EventId, Kept, Lease, NewEvent, Query, Settlement, Wish};
use write::Keeper;

const SCHEMA: u32 = 1;
/// The content stands last, so that what does not ask for it does not read it.
const TABLES: &str = "
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, lane TEXT NOT NULL, enqueued INTEGER NOT NULL,
        due INTEGER NOT NULL, latest INTEGER NOT NULL, queue TEXT, reason TEXT, meta BLOB NOT NULL, payload BLOB NOT NULL);
    CREATE INDEX event_buried ON event (queue, account, id) WHERE queue IS NOT NULL;
    CREATE TABLE lease (id INTEGER PRIMARY KEY, turns INTEGER NOT NULL, held INTEGER NOT NULL);
";

/// Events in one SQLite file.
pub struct Events {
    writer: Writer<Request>,
    reader: Arc<Mutex<Connection>>,
    changes: watch::Sender<u64>,
    /// Kept from others as long as this lives.
    lock: Option<Arc<crate::embedded::DirectoryLock>>,
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Enqueue { events: Vec<NewEvent>, now: i64, reply: Reply<Vec<EventId>> },
    Lease { wish: Wish, reply: Reply<Batch> },
    Renew { leases: Vec<Lease>, until: i64, reply: Reply<Vec<bool>> },
    Settle { lease: Lease, settlement: Settlement, now: i64, reply: Reply<bool> },
    Revise { id: u64, due: i64, latest: i64, meta: Bytes, reply: Reply<bool> },
    Forget { ids: Vec<EventId>, of: Of, reply: Reply<u64> },
    Depth { reply: Reply<Depth> },
}

/// Which events are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    /// Those that are buried, still.
    Buried,
}

impl Events {
    /// Opens or makes the file at `path`.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, Error> {
        let db = super::open(path, SCHEMA, TABLES, Durability::PowerCut)?;
        Self::over(db, path, bounds)
    }

    fn over(db: Connection, path: &Path, bounds: Bounds) -> Result<Self, Error> {
        let reader = super::reader(path)?;
        let changes = watch::Sender::new(0);
        let mut keeper = Keeper::load(&db, bounds, changes.clone()).map_err(|e| sql("reading events", e))?;
        let writer = Writer::start("events", db, move |db, group| keeper.serve(db, group))?;
        Ok(Self { writer, reader: Arc::new(Mutex::new(reader)), changes, lock: None })
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
            .map_err(|e| Error::backend("reading events", e))?
            .map_err(|e| sql("reading events", e))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("lock", &self.lock).finish_non_exhaustive()
    }
}

#[async_trait]
impl queue::EventQueue for Events {
    async fn enqueue(&self, events: Vec<NewEvent>, now: Timestamp) -> Result<Vec<EventId>, Error> {
        self.ask(|reply| Request::Enqueue { events, now: now.as_microsecond(), reply }).await
    }

    async fn lease(&self, wish: Wish) -> Result<Batch, Error> {
        self.ask(|reply| Request::Lease { wish, reply }).await
    }

    async fn renew(&self, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<bool>, Error> {
        self.ask(|reply| Request::Renew { leases, until: until.as_microsecond(), reply }).await
    }

    async fn settle(&self, lease: Lease, settlement: Settlement, now: Timestamp) -> Result<bool, Error> {
        self.ask(|reply| Request::Settle { lease, settlement, now: now.as_microsecond(), reply }).await
    }

    async fn list(&self, query: Query) -> Result<Vec<Kept>, Error> {
        self.read(move |db| read::list(db, &query)).await
    }

    async fn get(&self, id: EventId) -> Result<Option<(Kept, Bytes)>, Error> {
        self.read(move |db| read::get(db, id.0)).await
    }

    async fn revise(&self, id: EventId, due: Timestamp, latest_start: Timestamp, meta: Bytes) -> Result<bool, Error> {
        let (due, latest) = (due.as_microsecond(), latest_start.as_microsecond());
        self.ask(|reply| Request::Revise { id: id.0, due, latest, meta, reply }).await
    }

    async fn forget(&self, ids: Vec<EventId>) -> Result<u64, Error> {
        self.ask(|reply| Request::Forget { ids, of: Of::All, reply }).await
    }

    async fn expire(&self, before: Timestamp, most: u64, limit: usize) -> Result<u64, Error> {
        let ids = self.read(move |db| read::expired(db, before.as_microsecond(), most, limit)).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        self.ask(|reply| Request::Forget { ids, of: Of::Buried, reply }).await
    }

    async fn queues(&self, account: &str) -> Result<Vec<(String, u64)>, Error> {
        let account = account.to_owned();
        self.read(move |db| read::queues(db, &account)).await
    }

    async fn depth(&self) -> Result<Depth, Error> {
        self.ask(|reply| Request::Depth { reply }).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A time as it was written. What cannot be one is the earliest there is.
fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;

//! [`port::Logs`](crate::port::Logs) on SQLite: a file of its own, so that log traffic never delays the catalog.
//!
//! Times are nanoseconds since 1970. An event counts its text plus 26 bytes, as CloudWatch Logs counts.

mod query;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{Span, Timestamp};
use lambent_model::{Clock, SystemClock};
use rusqlite::{Connection, OptionalExtension as _, ToSql, Transaction, params, params_from_iter};
use tokio::sync::oneshot;

use super::writer::{Writer, stopped};
use super::{Durability, sql};
use crate::Error;
use crate::port::{self, LogEvent, LogGroup, LogQuery, LogStream, NewLogEvent};

const SCHEMA: u32 = 1;
const TABLES: &str = "
    CREATE TABLE log_group (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,
        retention_days INTEGER, bytes INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY, log_group INTEGER NOT NULL REFERENCES log_group, name TEXT NOT NULL,
        created INTEGER NOT NULL, first INTEGER, last INTEGER, UNIQUE (log_group, name));
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, log_group INTEGER NOT NULL, stream INTEGER NOT NULL REFERENCES stream,
        at INTEGER NOT NULL, ingested INTEGER NOT NULL, message TEXT NOT NULL);
    CREATE INDEX event_by_group ON event (log_group, at, id);
    CREATE INDEX event_by_stream ON event (stream, at, id);
";
/// What each event costs besides its text.
const OVERHEAD: usize = 26;
/// Events that one transaction of an expiry deletes, so that appends get their turn in between.
const EXPIRE_AT_ONCE: usize = 5_000;
/// Events that one statement inserts: a third cheaper each than one by one.
const INSERT_AT_ONCE: usize = 32;

/// Log groups, streams and events in one SQLite file.
pub struct Logs {
    writer: Writer<Request>,
    reader: Arc<Mutex<Connection>>,
    clock: Arc<dyn Clock>,
    /// Kept from others as long as this lives.
    lock: Option<Arc<crate::embedded::DirectoryLock>>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("lock", &self.lock).finish_non_exhaustive()
    }
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Append { events: Vec<NewLogEvent>, ingested: i64, reply: Reply<()> },
    CreateGroup { group: String, at: i64, reply: Reply<bool> },
    DeleteGroup { group: String, reply: Reply<bool> },
    CreateStream { group: String, stream: String, at: i64, reply: Reply<Option<bool>> },
    DeleteStream { group: String, stream: String, reply: Reply<Option<bool>> },
    Retain { group: String, days: Option<u32>, reply: Reply<bool> },
    Expire { group: i64, before: i64, reply: Reply<usize> },
}

impl Logs {
    /// Opens or makes the file at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Arc::new(SystemClock))
    }

    /// As [`Logs::open`], with a clock that says when events are stored.
    pub fn open_with(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let db = super::open(path, SCHEMA, TABLES, Durability::Crash)?;
        // Every event's stream is looked up, or made, when the event is written; to look once more costs a tenth.
        db.pragma_update(None, "foreign_keys", false).map_err(|e| sql("opening a database", e))?;
        let reader = super::reader(path)?;
        Ok(Self { writer: Writer::start("logs", db, serve)?, reader: Arc::new(Mutex::new(reader)), clock, lock: None })
    }

    /// Keeps `lock` until the file is closed.
    pub(crate) fn holding(self, lock: Arc<crate::embedded::DirectoryLock>) -> Self {
        Self { lock: Some(lock), ..self }
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|e| Error::backend("reading logs", e))?
            .map_err(|e| sql("reading logs", e))
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(request(reply)).await?;
        answer.await.map_err(|_| stopped())?
    }
}

#[async_trait]
impl port::Logs for Logs {
    async fn append(&self, events: Vec<NewLogEvent>) -> Result<(), Error> {
        let ingested = nanos(self.clock.now());
        self.ask(|reply| Request::Append { events, ingested, reply }).await
    }

    async fn query(&self, query: LogQuery) -> Result<Vec<LogEvent>, Error> {
        self.read(move |db| query::events(db, &query)).await
    }

    async fn groups(&self, prefix: &str) -> Result<Vec<LogGroup>, Error> {
        let prefix = prefix.to_owned();
        self.read(move |db| query::groups(db, &prefix)).await
    }

    async fn streams(&self, group: &str) -> Result<Option<Vec<LogStream>>, Error> {
        let group = group.to_owned();
        self.read(move |db| query::streams(db, &group)).await
    }

    async fn create_group(&self, group: &str, at: Timestamp) -> Result<bool, Error> {
        let (group, at) = (group.to_owned(), nanos(at));
        self.ask(|reply| Request::CreateGroup { group, at, reply }).await
    }

    async fn delete_group(&self, group: &str) -> Result<bool, Error> {
        let group = group.to_owned();
        self.ask(|reply| Request::DeleteGroup { group, reply }).await
    }

    async fn create_stream(&self, group: &str, stream: &str, at: Timestamp) -> Result<Option<bool>, Error> {
        let (group, stream, at) = (group.to_owned(), stream.to_owned(), nanos(at));
        self.ask(|reply| Request::CreateStream { group, stream, at, reply }).await
    }

    async fn delete_stream(&self, group: &str, stream: &str) -> Result<Option<bool>, Error> {
        let (group, stream) = (group.to_owned(), stream.to_owned());
        self.ask(|reply| Request::DeleteStream { group, stream, reply }).await
    }

    async fn set_retention(&self, group: &str, days: Option<u32>) -> Result<bool, Error> {
        let group = group.to_owned();
        self.ask(|reply| Request::Retain { group, days, reply }).await
    }

    async fn expire(&self, now: Timestamp) -> Result<u64, Error> {
        let mut expired = 0;
        for (group, days) in self.read(query::retentions).await? {
            let Ok(before) = now.checked_sub(Span::new().hours(24 * i64::from(days))) else { continue };
            let before = nanos(before);
            loop {
                let deleted = self.ask(|reply| Request::Expire { group, before, reply }).await?;
                expired += deleted as u64;
                if deleted < EXPIRE_AT_ONCE {
                    break;
                }
            }
        }
        Ok(expired)
    }
}

fn nanos(at: Timestamp) -> i64 {
    at.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default()
}

/// Appends that follow each other share a transaction.
fn serve(db: &mut Connection, group: Vec<Request>) {
    let mut appends = Vec::new();
    for request in group {
        if let Request::Append { events, ingested, reply } = request {
            appends.push((events, ingested, reply));
            continue;
        }
        append_all(db, std::mem::take(&mut appends));
        match request {
            Request::Append { .. } => {}
            Request::CreateGroup { group, at, reply } => {
                answer(reply, db, "making a log group", |db| make_group(db, &group, at));
            }
            Request::DeleteGroup { group, reply } => {
                answer(reply, db, "deleting a log group", |db| delete_group(db, &group));
            }
            Request::CreateStream { group, stream, at, reply } => {
                answer(reply, db, "making a log stream", |db| make_stream(db, &group, &stream, at));
            }
            Request::DeleteStream { group, stream, reply } => {
                answer(reply, db, "deleting a log stream", |db| delete_stream(db, &group, &stream));
            }
            Request::Retain { group, days, reply } => answer(reply, db, "setting a retention", |db| {
                let set = "UPDATE log_group SET retention_days = ?2 WHERE name = ?1";
                Ok(db.execute(set, params![group, days])? > 0)
            }),
            Request::Expire { group, before, reply } => {
                answer(reply, db, "expiring log events", |db| expire(db, group, before));
            }
        }
    }
    append_all(db, appends);
}

fn answer<T>(
    reply: Reply<T>,
    db: &mut Connection,
    operation: &'static str,
    run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) {
    let _ = reply.send(transact(db, run).map_err(|e| sql(operation, e)));
}

fn transact<T>(db: &mut Connection, run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let value = run(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

fn append_all(db: &mut Connection, appends: Vec<(Vec<NewLogEvent>, i64, Reply<()>)>) {
    let outcome = transact(db, |db| appends.iter().try_for_each(|(events, ingested, _)| append(db, events, *ingested)));
    match outcome {
        Ok(()) => appends.into_iter().for_each(|(_, _, reply)| drop(reply.send(Ok(())))),
        // One that is too large for the device must not take the others with it: each by itself.
        Err(_) if appends.len() > 1 => appends.into_iter().for_each(|one| append_all(db, vec![one])),
        Err(error) => {
            if let Some((_, _, reply)) = appends.into_iter().next() {
                let _ = reply.send(Err(sql("appending log events", error)));
            }
        }
    }
}

fn append(db: &Connection, events: &[NewLogEvent], ingested: i64) -> rusqlite::Result<()> {
    let mut streams: Vec<Appended> = Vec::new();
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    // Lines that follow each other are of one stream, as a rule.
    let mut last: Option<(&NewLogEvent, usize)> = None;
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let at = nanos(event.at);
        let same = last.filter(|(other, _)| other.stream == event.stream && other.group == event.group);
        let index = match same {
            Some((_, index)) => index,
            None => match known.entry((&*event.group, &*event.stream)) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(none) => {
                    make_group(db, &event.group, at)?;
                    let (group, stream) = stream_of(db, &event.group, &event.stream, at)?;
                    streams.push(Appended { group, stream, first: at, last: at, bytes: 0 });
                    *none.insert(streams.len() - 1)
                }
            },
        };
        last = Some((event, index));
        let Some(to) = streams.get_mut(index) else { continue };
        rows.push(EventRow { group: to.group, stream: to.stream, at, message: &event.message });
        to.first = to.first.min(at);
        to.last = to.last.max(at);
        to.bytes += event.message.len() + OVERHEAD;
    }
    insert(db, &rows, ingested)?;
    let mut extend = db.prepare_cached(
        "UPDATE stream SET first = min(coalesce(first, ?2), ?2), last = max(coalesce(last, ?3), ?3) WHERE id = ?1",
    )?;
    let mut count = db.prepare_cached("UPDATE log_group SET bytes = bytes + ?2 WHERE id = ?1")?;
    for Appended { group, stream, first, last, bytes } in streams {
        extend.execute([stream, first, last])?;
        count.execute(params![group, bytes])?;
    }
    Ok(())
}

struct EventRow<'a> {
    group: i64,
    stream: i64,
    at: i64,
    message: &'a str,
}

fn insert(db: &Connection, rows: &[EventRow<'_>], ingested: i64) -> rusqlite::Result<()> {
    let many = rows.chunks_exact(INSERT_AT_ONCE);
    let single = many.remainder().chunks_exact(1);
    for (count, chunks) in [(INSERT_AT_ONCE, many), (1, single)] {
        let places = vec!["(?, ?, ?, ?, ?)"; count].join(", ");
        let text = format!("INSERT INTO event (log_group, stream, at, ingested, message) VALUES {places}");
        let mut insert = db.prepare_cached(&text)?;
        for chunk in chunks {
            let values = chunk.iter().flat_map(|row| {
                let values: [&dyn ToSql; 5] = [&row.group, &row.stream, &row.at, &ingested, &row.message];
                values
            });
            insert.execute(params_from_iter(values))?;
        }
    }
    Ok(())
}

/// What a batch adds to one stream, so that stream and group are written once a batch and not once a line.
struct Appended {
    group: i64,
    stream: i64,
    first: i64,
    last: i64,
    bytes: usize,
}

fn make_group(db: &Connection, group: &str, at: i64) -> rusqlite::Result<bool> {
    let made = db
        .prepare_cached("INSERT INTO log_group (name, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![group, at])?;
    Ok(made > 0)
}

fn stream_of(db: &Connection, group: &str, stream: &str, at: i64) -> rusqlite::Result<(i64, i64)> {
    let group: i64 =
        db.prepare_cached("SELECT id FROM log_group WHERE name = ?1")?.query_row([group], |row| row.get(0))?;
    db.prepare_cached("INSERT INTO stream (log_group, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![group, stream, at])?;
    let stream: i64 = db
        .prepare_cached("SELECT id FROM stream WHERE log_group = ?1 AND name = ?2")?
        .query_row(params![group, stream], |row| row.get(0))?;
    Ok((group, stream))
}

fn group_id(db: &Connection, group: &str) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM log_group WHERE name = ?1")?.query_row([group], |row| row.get(0)).optional()
}

fn make_stream(db: &Connection, group: &str, stream: &str, at: i64) -> rusqlite::Result<Option<bool>> {
    let Some(group) = group_id(db, group)? else { return Ok(None) };
    let made = db
        .prepare_cached("INSERT INTO stream (log_group, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![group, stream, at])?;
    Ok(Some(made > 0))
}

fn delete_stream(db: &Connection, group: &str, stream: &str) -> rusqlite::Result<Option<bool>> {
    let Some(group) = group_id(db, group)? else { return Ok(None) };
    let id = "SELECT id FROM stream WHERE log_group = ?1 AND name = ?2";
    let id: Option<i64> = db.query_row(id, params![group, stream], |row| row.get(0)).optional()?;
    let Some(id) = id else { return Ok(Some(false)) };
    let bytes: i64 = db.query_row(
        &format!("SELECT coalesce(sum(length(CAST(message AS BLOB)) + {OVERHEAD}), 0) FROM event WHERE stream = ?1"),
        [id],
        |row| row.get(0),
    )?;
    db.execute("DELETE FROM event WHERE stream = ?1", [id])?;
    db.execute("DELETE FROM stream WHERE id = ?1", [id])?;
    db.execute("UPDATE log_group SET bytes = bytes - ?2 WHERE id = ?1", [group, bytes])?;
    Ok(Some(true))
}

fn delete_group(db: &Connection, group: &str) -> rusqlite::Result<bool> {
    let Some(id) = group_id(db, group)? else { return Ok(false) };
    db.execute("DELETE FROM event WHERE log_group = ?1", [id])?;
    db.execute("DELETE FROM stream WHERE log_group = ?1", [id])?;
    db.execute("DELETE FROM log_group WHERE id = ?1", [id])?;
    Ok(true)
}

/// Deletes some events older than `before`; with the last of them go the streams that they leave empty.
fn expire(db: &Connection, group: i64, before: i64) -> rusqlite::Result<usize> {
    let old = "FROM event WHERE id IN (SELECT id FROM event WHERE log_group = ?1 AND at < ?2 ORDER BY at, id LIMIT ?3)";
    let bytes: i64 = db.query_row(
        &format!("SELECT coalesce(sum(length(CAST(message AS BLOB)) + {OVERHEAD}), 0) {old}"),
        params![group, before, EXPIRE_AT_ONCE],
        |row| row.get(0),
    )?;
    let deleted = db.execute(&format!("DELETE {old}"), params![group, before, EXPIRE_AT_ONCE])?;
    db.execute("UPDATE log_group SET bytes = bytes - ?2 WHERE id = ?1", [group, bytes])?;
    if deleted < EXPIRE_AT_ONCE {
        db.execute("DELETE FROM stream WHERE log_group = ?1 AND last < ?2", [group, before])?;
        let first = "UPDATE stream SET first = ?2 WHERE log_group = ?1 AND first < ?2";
        db.execute(first, [group, before])?;
    }
    Ok(deleted)
}

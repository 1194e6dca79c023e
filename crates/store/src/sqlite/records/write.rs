//! The thread that changes records: a group of requests is one transaction.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::super::sql;
use super::{Reply, Request, read};
use crate::Error;
use crate::records::{Begun, Bounds, NewRecord, Outcome, RecordId, Turn, Usage};

/// What a row costs beside its contents.
const ROW_BYTES: u64 = 128;
/// Most rows that one request deletes because they have expired.
const EXPIRED_AT_ONCE: i64 = 1000;

/// An answer that waits for the commit.
enum Answer {
    Begun(Result<Begun, Error>),
    Turn(Option<Turn>),
    Flag(bool),
    Id(RecordId),
    Count(u64),
    Usage(Usage),
}

/// What is kept, and how much may be.
pub(super) struct Keeper {
    bounds: Bounds,
    usage: Usage,
}

impl Keeper {
    pub(super) fn load(db: &Connection, bounds: Bounds) -> rusqlite::Result<Self> {
        let usage = db.query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM record", [], |row| {
            Ok(Usage { records: row.get(0)?, bytes: row.get(1)? })
        })?;
        Ok(Self { bounds, usage })
    }

    /// Answers a group of requests, which share one transaction; where that fails, each has its own.
    pub(super) fn serve(&mut self, db: &mut Connection, group: Vec<Request>) {
        match self.transact(db, &group) {
            Ok(answers) => group.into_iter().zip(answers).for_each(|(request, answer)| reply(request, Ok(answer))),
            Err(error) => match <[Request; 1]>::try_from(group) {
                Ok([request]) => reply(request, Err(error)),
                Err(group) => group.into_iter().for_each(|request| self.serve(db, vec![request])),
            },
        }
    }

    fn transact(&mut self, db: &mut Connection, group: &[Request]) -> Result<Vec<Answer>, Error> {
        let failed = |e| sql("writing records", e);
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut books = Books { db: &transaction, bounds: self.bounds, usage: self.usage };
        let answers: rusqlite::Result<Vec<Answer>> = group.iter().map(|request| books.act(request)).collect();
        let (answers, usage) = (answers.map_err(failed)?, books.usage);
        transaction.commit().map_err(failed)?;
        self.usage = usage;
        Ok(answers)
    }
}

fn reply(request: Request, answer: Result<Answer, Error>) {
    fn send<T>(to: Reply<T>, answer: Result<T, Error>) {
        // Whoever asked may have gone.
        let _ = to.send(answer);
    }
    match (request, answer) {
        (Request::Begin { reply, .. }, Ok(Answer::Begun(begun))) => send(reply, begun),
        (Request::TakeOver { reply, .. }, Ok(Answer::Turn(turn))) => send(reply, Ok(turn)),
        (Request::Finish { reply, .. } | Request::Abandon { reply, .. }, Ok(Answer::Flag(flag))) => {
            send(reply, Ok(flag));
        }
        (Request::Put { reply, .. }, Ok(Answer::Id(id))) => send(reply, Ok(id)),
        (Request::Forget { reply, .. } | Request::Expire { reply, .. }, Ok(Answer::Count(count))) => {
            send(reply, Ok(count));
        }
        (Request::Usage { reply }, Ok(Answer::Usage(usage))) => send(reply, Ok(usage)),
        (Request::Begin { reply, .. }, Err(error)) => send(reply, Err(error)),
        (Request::TakeOver { reply, .. }, Err(error)) => send(reply, Err(error)),
        (Request::Finish { reply, .. } | Request::Abandon { reply, .. }, Err(error)) => send(reply, Err(error)),
        (Request::Put { reply, .. }, Err(error)) => send(reply, Err(error)),
        (Request::Forget { reply, .. } | Request::Expire { reply, .. }, Err(error)) => send(reply, Err(error)),
        (Request::Usage { reply }, Err(error)) => send(reply, Err(error)),
        // `act` answers each request with its own kind; dropping the reply tells the caller that the writer failed.
        (_, Ok(_)) => tracing::error!("a record request got another's answer"),
    }
}

/// A transaction, and what is kept as of it.
struct Books<'a> {
    db: &'a Transaction<'a>,
    bounds: Bounds,
    usage: Usage,
}

fn size(new: &NewRecord, answer: usize) -> u64 {
    ROW_BYTES + (new.key.len() + new.account.len() + new.function.len() + new.meta.len() + answer) as u64
}

impl Books<'_> {
    fn act(&mut self, request: &Request) -> rusqlite::Result<Answer> {
        Ok(match request {
            Request::Begin { new, now, .. } => Answer::Begun(self.begin(new, *now)?),
            Request::TakeOver { turn, now, .. } => Answer::Turn(self.take_over(*turn, *now)?),
            Request::Finish { turn, outcome, now, .. } => Answer::Flag(self.finish(*turn, outcome, *now)?),
            Request::Abandon { turn, .. } => Answer::Flag(self.abandon(*turn)?),
            Request::Put { new, answer, started, now, .. } => Answer::Id(self.put(new, answer, *started, *now)?),
            Request::Forget { ids, .. } => {
                let mut count = 0;
                for id in ids {
                    count += self.delete("id = ?1", id.0.cast_signed())?;
                }
                Answer::Count(count)
            }
            Request::Expire { now, .. } => Answer::Count(self.expire(*now)?),
            Request::Usage { .. } => Answer::Usage(self.usage),
        })
    }

    fn begin(&mut self, new: &NewRecord, now: i64) -> rusqlite::Result<Result<Begun, Error>> {
        if let Some((record, answer)) = read::of_key(self.db, &new.key, now)? {
            return Ok(Ok(match answer {
                Some(answer) => Begun::Finished(record, answer),
                None => Begun::Started(record),
            }));
        }
        self.delete_key(&new.key)?;
        let bytes = size(new, 0);
        if !self.make_room(bytes, now)? {
            return Ok(Err(Error::RecordsFull));
        }
        let id = self.insert(new, Insert { cached: false, started: now, finished: None, bytes, answer: None })?;
        Ok(Ok(Begun::Fresh(Turn { id, number: 1 })))
    }

    fn take_over(&mut self, turn: Turn, now: i64) -> rusqlite::Result<Option<Turn>> {
        let changed = self
            .db
            .prepare_cached(
                "UPDATE record SET turn = turn + 1, started = ?3 WHERE id = ?1 AND turn = ?2 AND finished IS NULL",
            )?
            .execute(params![turn.id.0, turn.number, now])?;
        Ok((changed == 1).then(|| Turn { id: turn.id, number: turn.number.saturating_add(1) }))
    }

    fn finish(&mut self, turn: Turn, outcome: &Outcome, now: i64) -> rusqlite::Result<bool> {
        let started = "SELECT bytes, length(meta) FROM record WHERE id = ?1 AND turn = ?2 AND finished IS NULL";
        let found: Option<(u64, u64)> = (self.db.prepare_cached(started)?)
            .query_row(params![turn.id.0, turn.number], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((before, meta)) = found else { return Ok(false) };
        let bytes = before.saturating_sub(meta) + (outcome.meta.len() + outcome.answer.len()) as u64;
        // What has run is kept, whether or not others can go for it.
        self.make_room(bytes.saturating_sub(before), now)?;
        let changed = self
            .db
            .prepare_cached(
                "UPDATE record SET finished = ?2, expires = ?3, bytes = ?4, meta = ?5, answer = ?6 WHERE id = ?1",
            )?
            .execute(params![
                turn.id.0,
                now,
                outcome.expires.as_microsecond(),
                bytes,
                &outcome.meta[..],
                &outcome.answer[..]
            ])?;
        if changed == 0 {
            // It had expired itself.
            return Ok(false);
        }
        self.usage.bytes = self.usage.bytes.saturating_sub(before) + bytes;
        Ok(true)
    }

    fn abandon(&mut self, turn: Turn) -> rusqlite::Result<bool> {
        let bytes: Option<u64> = self
            .db
            .prepare_cached("DELETE FROM record WHERE id = ?1 AND turn = ?2 AND finished IS NULL RETURNING bytes")?
            .query_row(params![turn.id.0, turn.number], |row| row.get(0))
            .optional()?;
        self.gone(1, bytes.unwrap_or_default(), bytes.is_some());
        Ok(bytes.is_some())
    }

    fn put(&mut self, new: &NewRecord, answer: &[u8], started: i64, now: i64) -> rusqlite::Result<RecordId> {
        self.delete_key(&new.key)?;
        let bytes = size(new, answer.len());
        self.make_room(bytes, now)?;
        self.insert(new, Insert { cached: true, started, finished: Some(now), bytes, answer: Some(answer) })
    }

    fn insert(&mut self, new: &NewRecord, row: Insert<'_>) -> rusqlite::Result<RecordId> {
        self.db
            .prepare_cached(
                "INSERT INTO record (key, account, function, cached, turn, started, finished, expires, bytes, meta, answer) \
                 VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                new.key,
                new.account,
                new.function,
                row.cached,
                row.started,
                row.finished,
                new.expires.as_microsecond(),
                row.bytes,
                &new.meta[..],
                row.answer
            ])?;
        self.usage.records += 1;
        self.usage.bytes += row.bytes;
        Ok(RecordId(self.db.last_insert_rowid().cast_unsigned()))
    }

    /// Whether one more record of `bytes` fits, once all that may go for it is gone.
    fn make_room(&mut self, bytes: u64, now: i64) -> rusqlite::Result<bool> {
        while !self.fits(bytes) {
            let may_go = self.expire(now)? > 0 || self.delete_oldest_cached()?;
            if !may_go {
                return Ok(self.fits(bytes));
            }
        }
        Ok(true)
    }

    fn fits(&self, bytes: u64) -> bool {
        self.usage.records < self.bounds.records && self.usage.bytes.saturating_add(bytes) <= self.bounds.bytes
    }

    fn expire(&mut self, now: i64) -> rusqlite::Result<u64> {
        let which = format!("id IN (SELECT id FROM record WHERE expires <= ?1 LIMIT {EXPIRED_AT_ONCE})");
        self.delete(&which, now)
    }

    fn delete_oldest_cached(&mut self) -> rusqlite::Result<bool> {
        self.delete("id = (SELECT min(id) FROM record WHERE cached = ?1)", 1).map(|count| count > 0)
    }

    fn delete_key(&mut self, key: &str) -> rusqlite::Result<()> {
        let bytes: Option<u64> = self
            .db
            .prepare_cached("DELETE FROM record WHERE key = ?1 RETURNING bytes")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        self.gone(1, bytes.unwrap_or_default(), bytes.is_some());
        Ok(())
    }

    fn delete(&mut self, which: &str, value: i64) -> rusqlite::Result<u64> {
        let mut statement = self.db.prepare_cached(&format!("DELETE FROM record WHERE {which} RETURNING bytes"))?;
        let sizes: Vec<u64> = statement.query_map([value], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let count = sizes.len() as u64;
        self.gone(count, sizes.iter().sum(), count > 0);
        Ok(count)
    }

    fn gone(&mut self, records: u64, bytes: u64, is_gone: bool) {
        if is_gone {
            self.usage.records = self.usage.records.saturating_sub(records);
            self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
        }
    }
}

/// The part of a row that is not the caller's.
struct Insert<'a> {
    cached: bool,
    started: i64,
    finished: Option<i64>,
    bytes: u64,
    answer: Option<&'a [u8]>,
}

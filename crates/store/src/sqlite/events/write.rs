//! The thread that changes the queue: transactions, and the order they leave.

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::watch;

use super::super::doubt::Doubt;
use super::super::sql;
use super::{Of, Reply, Request, time};
use crate::Error;
use crate::queue::{
    Batch, Bounds, Depth, EventId, Lease, Leased, NewEvent, Order, Place, Room, Settlement, Shares, Take, Wish,
};

/// A change of the order that a commit brings.
enum Change {
    Insert {
        id: u64,
        account: String,
        lane: String,
        now: i64,
        due: i64,
        latest: i64,
        bytes: u64,
        turns: u32,
    },
    PutOff {
        id: u64,
        due: i64,
        latest: i64,
        bytes: u64,
    },
    Remove {
        id: u64,
    },
    Bury {
        bytes: u64,
    },
    Unbury {
        bytes: u64,
    },
    /// Leases that were taken already; a failed commit gives them back.
    Taken {
        ids: Vec<u64>,
    },
}

/// An answer that waits for the commit.
enum Answer {
    Ids(Vec<EventId>),
    Batch(Batch),
    Flag(bool),
    Count(u64),
    Refused(Error),
}

/// The order of the queue, kept in step with the file.
pub(super) struct Keeper {
    order: Order,
    interrupted: u64,
    changes: watch::Sender<u64>,
    doubt: Doubt,
}

impl Keeper {
    /// Reads what is kept. Nobody holds a lease any more.
    pub(super) fn load(db: &Connection, bounds: Bounds, changes: watch::Sender<u64>) -> rusqlite::Result<Self> {
        let interrupted = db.query_row("SELECT count(*) FROM lease WHERE held = 1", [], |row| row.get(0))?;
        // On a disk that is full they look held until they are leased again; no more than that.
        if let Err(error) = db.execute("UPDATE lease SET held = 0 WHERE held = 1", []) {
            tracing::warn!(%error, "leases of the process before cannot be taken back on disk");
        }
        let mut order = Order::new(bounds);
        let mut rows = db.prepare(
            "SELECT event.id, account, lane, due, latest, queue IS NOT NULL, length(meta) + length(payload), \
             coalesce(turns, 0), enqueued FROM event LEFT JOIN lease USING (id)",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = row.get(6)?;
            if row.get(5)? {
                order.bury(bytes);
            } else {
                let (account, lane): (String, String) = (row.get(1)?, row.get(2)?);
                // What was due when it came is so now; the rest is looked at when somebody says what time it is.
                let times = (row.get(8)?, row.get(3)?, row.get(4)?);
                order.insert(row.get(0)?, (&account, &lane), times, bytes, row.get(7)?);
            }
        }
        Ok(Self { order, interrupted, changes, doubt: Doubt::Some })
    }

    /// Answers a group of requests. Those that write share one transaction.
    pub(super) fn serve(&mut self, db: &mut Connection, group: Vec<Request>) {
        let mut writes = Vec::with_capacity(group.len());
        for request in group {
            match request {
                Request::Renew { leases, until, reply } => {
                    let renew = |lease: &Lease| self.order.renew(lease.id.0, lease.turn, until);
                    let _ = reply.send(Ok(leases.iter().map(renew).collect()));
                }
                Request::Depth { reply } => drop(reply.send(Ok(self.depth()))),
                write => writes.push(write),
            }
        }
        self.commit(db, writes);
    }

    fn depth(&self) -> Depth {
        let (pending, leased, buried, bytes) = self.order.counts();
        Depth { pending, leased, buried, bytes, interrupted: self.interrupted }
    }

    fn commit(&mut self, db: &mut Connection, writes: Vec<Request>) {
        if writes.is_empty() {
            return;
        }
        if let Err(error) = self.doubt.settle(db) {
            refuse(writes, error);
            return;
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        match self.transact(db, &writes, &mut outcomes) {
            Ok(()) => {
                let (changes, answers): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
                let mut is_changed = false;
                for change in changes.into_iter().flatten() {
                    is_changed |= matches!(change, Change::Insert { .. } | Change::PutOff { .. });
                    self.apply(change);
                }
                if is_changed {
                    self.changes.send_modify(|version| *version += 1);
                }
                writes.into_iter().zip(answers).for_each(|(request, answer)| reply(request, Ok(answer)));
            }
            Err(error) => {
                outcomes.into_iter().for_each(|(changes, _)| self.give_back(&changes));
                self.doubt.note(&error);
                if self.doubt == Doubt::Some { refuse(writes, error) } else { self.retry(db, writes, error) }
            }
        }
    }

    /// One that is too large for the device must not take the others with it: each by itself.
    fn retry(&mut self, db: &mut Connection, writes: Vec<Request>, error: Error) {
        match <[Request; 1]>::try_from(writes) {
            Ok([request]) => reply(request, Err(error)),
            Err(writes) => writes.into_iter().for_each(|request| self.commit(db, vec![request])),
        }
    }

    fn give_back(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Taken { ids } = change {
                ids.iter().for_each(|id| self.order.untake(*id));
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Insert { id, account, lane, now, due, latest, bytes, turns } => {
                self.order.insert(id, (&account, &lane), (now, due, latest), bytes, turns);
            }
            Change::PutOff { id, due, latest, bytes } => self.order.put_off(id, due, latest, bytes),
            Change::Remove { id } => drop(self.order.remove(id)),
            Change::Bury { bytes } => self.order.bury(bytes),
            Change::Unbury { bytes } => self.order.unbury(bytes),
            Change::Taken { .. } => {}
        }
    }

    fn transact(
        &mut self,
        db: &mut Connection,
        writes: &[Request],
        outcomes: &mut Vec<(Vec<Change>, Answer)>,
    ) -> Result<(), Error> {
        let transaction =
            db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| sql("writing events", e))?;
        for request in writes {
            let mut changes = Vec::new();
            let answer = self.write(&transaction, request, &mut changes);
            // Also what was taken before it failed has to be given back.
            outcomes.push((changes, Answer::Flag(false)));
            let answer = answer.map_err(|e| sql("writing events", e))?;
            if let Some(outcome) = outcomes.last_mut() {
                outcome.1 = answer;
            }
        }
        transaction.commit().map_err(|e| sql("writing events", e))
    }

    fn write(
        &mut self,
        db: &Transaction<'_>,
        request: &Request,
        changes: &mut Vec<Change>,
    ) -> rusqlite::Result<Answer> {
        match request {
            Request::Enqueue { events, now, .. } => self.enqueue(db, events, *now, changes),
            Request::Lease { wish, .. } => self.lease(db, wish, changes),
            Request::Settle { lease, settlement, now, .. } => {
                let is_right = self.order.is_right(lease.id.0, lease.turn);
                Ok(Answer::Flag(is_right && settle(db, lease.id.0, settlement, *now, changes)?))
            }
            Request::Revise { id, due, latest, meta, .. } => {
                let is_free = !self.order.is_leased(*id);
                Ok(Answer::Flag(is_free && revise(db, *id, (*due, *latest), meta, changes)?))
            }
            Request::Forget { ids, of, .. } => {
                let mut count = 0;
                for id in ids {
                    if *of == Of::Buried && !is_buried(db, id.0)? {
                        continue;
                    }
                    count += u64::from(delete(db, id.0, changes)?.is_some());
                }
                Ok(Answer::Count(count))
            }
            Request::Renew { .. } | Request::Depth { .. } => Ok(Answer::Count(0)),
        }
    }

    fn enqueue(
        &self,
        db: &Transaction<'_>,
        events: &[NewEvent],
        now: i64,
        changes: &mut Vec<Change>,
    ) -> rusqlite::Result<Answer> {
        let total: u64 = events.iter().map(bytes).sum();
        let refused = events.iter().find(|event| {
            let same = events.iter().filter(|other| other.lane == event.lane).count() as u64;
            !self.order.admits(&event.account, &event.lane, same, total)
        });
        if let Some(event) = refused {
            return Ok(Answer::Refused(Error::QueueFull { lane: event.lane.clone() }));
        }
        let ids = events.iter().map(|event| insert(db, event, now, changes)).collect::<Result<_, _>>()?;
        Ok(Answer::Ids(ids))
    }

    fn lease(&mut self, db: &Transaction<'_>, wish: &Wish, changes: &mut Vec<Change>) -> rusqlite::Result<Answer> {
        let (now, until) = (wish.now.as_microsecond(), wish.until.as_microsecond());
        let latest_by = wish.latest_by.map(Timestamp::as_microsecond);
        let (places, most, shares) = (wish.places, wish.most, Shares::Bound);
        let take = Take { now, until, places, most, latest_by, own_places: false, shares };
        let room = |lane: &str| if wish.without.iter().any(|held| held == lane) { Room::None } else { Room::Shared };
        let taken = self.order.take(take, room);
        changes.push(Change::Taken { ids: taken.iter().map(|(id, _)| *id).collect() });
        let mut hold = db.prepare_cached(
            "INSERT INTO lease (id, turns, held) VALUES (?1, ?2, 1) ON CONFLICT (id) DO UPDATE SET turns = ?2, held = 1",
        )?;
        let mut read = db.prepare_cached(
            "SELECT account, lane, enqueued, latest, meta, payload FROM event WHERE id = ?1 AND queue IS NULL",
        )?;
        let mut events = Vec::with_capacity(taken.len());
        for (id, turn) in taken {
            let event = read.query_row([id], |row| {
                Ok(Leased {
                    lease: Lease { id: EventId(id), turn },
                    account: row.get(0)?,
                    lane: row.get(1)?,
                    enqueued: time(row.get(2)?),
                    latest_start: time(row.get(3)?),
                    meta: Bytes::from(row.get::<_, Vec<u8>>(4)?),
                    payload: Bytes::from(row.get::<_, Vec<u8>>(5)?),
                })
            });
            // Settled or forgotten by a request of the same group, which the order does not know yet.
            if let Some(event) = event.optional()? {
                hold.execute(params![id, turn])?;
                events.push(event);
            }
        }
        let held_until = latest_by.and_then(|by| self.order.next_latest(by)).map(time);
        Ok(Answer::Batch(Batch { events, next: self.order.next().map(time), held_until }))
    }
}

fn bytes(event: &NewEvent) -> u64 {
    (event.meta.len() + event.payload.len()) as u64
}

fn insert(db: &Transaction<'_>, event: &NewEvent, now: i64, changes: &mut Vec<Change>) -> rusqlite::Result<EventId> {
    let (queue, reason) = match &event.place {
        Place::Pending => (None, None),
        Place::Buried { queue, reason } => (Some(queue), Some(reason)),
    };
    let (due, latest) = (event.due.as_microsecond(), event.latest_start.as_microsecond());
    db.prepare_cached(
        "INSERT INTO event (account, lane, enqueued, due, latest, queue, reason, meta, payload) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        event.account,
        event.lane,
        now,
        due,
        latest,
        queue,
        reason,
        event.meta.as_ref(),
        event.payload.as_ref()
    ])?;
    let (id, bytes) = (db.last_insert_rowid().cast_unsigned(), bytes(event));
    changes.push(match event.place {
        Place::Buried { .. } => Change::Bury { bytes },
        Place::Pending => {
            let (account, lane) = (event.account.clone(), event.lane.clone());
            Change::Insert { id, account, lane, now, due, latest, bytes, turns: 0 }
        }
    });
    Ok(EventId(id))
}

/// False where the event is gone.
fn settle(
    db: &Transaction<'_>,
    id: u64,
    settlement: &Settlement,
    now: i64,
    changes: &mut Vec<Change>,
) -> rusqlite::Result<bool> {
    match settlement {
        Settlement::Done { then } => {
            if delete(db, id, changes)?.is_none() {
                return Ok(false);
            }
            for event in then {
                insert(db, event, now, changes)?;
            }
            Ok(true)
        }
        Settlement::Retry { due, meta } => {
            let text = "UPDATE event SET due = ?2, meta = ?3 WHERE id = ?1 RETURNING latest, length(payload)";
            let due = due.as_microsecond();
            let left = db.prepare_cached(text)?.query_row(params![id, due, meta.as_ref()], two).optional()?;
            let Some((latest, payload)) = left else { return Ok(false) };
            db.prepare_cached("UPDATE lease SET held = 0 WHERE id = ?1")?.execute([id])?;
            changes.push(Change::PutOff { id, due, latest, bytes: payload.cast_unsigned() + meta.len() as u64 });
            Ok(true)
        }
        Settlement::Bury { queue, reason, meta } => {
            let text = "UPDATE event SET queue = ?2, reason = ?3, meta = ?4, due = ?5 WHERE id = ?1 \
                 RETURNING latest, length(payload)";
            let mut bury = db.prepare_cached(text)?;
            let left = bury.query_row(params![id, queue, reason, meta.as_ref(), now], two).optional()?;
            let Some((_, payload)) = left else { return Ok(false) };
            db.prepare_cached("UPDATE lease SET held = 0 WHERE id = ?1")?.execute([id])?;
            changes.push(Change::Remove { id });
            changes.push(Change::Bury { bytes: payload.cast_unsigned() + meta.len() as u64 });
            Ok(true)
        }
    }
}

fn two(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Makes an event pending, wherever it is; false where it is gone.
fn revise(
    db: &Transaction<'_>,
    id: u64,
    (due, latest): (i64, i64),
    meta: &Bytes,
    changes: &mut Vec<Change>,
) -> rusqlite::Result<bool> {
    let before = db
        .prepare_cached(
            "SELECT queue IS NOT NULL, account, lane, length(meta), length(payload), coalesce(turns, 0) \
             FROM event LEFT JOIN lease USING (id) WHERE event.id = ?1",
        )?
        .query_row([id], |row| {
            let sizes: (u64, u64) = (row.get(3)?, row.get(4)?);
            Ok((
                row.get::<_, bool>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                sizes,
                row.get::<_, u32>(5)?,
            ))
        })
        .optional()?;
    let Some((is_buried, account, lane, (meta_before, payload), turns)) = before else { return Ok(false) };
    db.prepare_cached("UPDATE event SET queue = NULL, reason = NULL, due = ?2, latest = ?3, meta = ?4 WHERE id = ?1")?
        .execute(params![id, due, latest, meta.as_ref()])?;
    let bytes = payload + meta.len() as u64;
    if is_buried {
        changes.push(Change::Unbury { bytes: meta_before + payload });
        // Nobody says what time it is: it is looked at when the next is taken.
        changes.push(Change::Insert { id, account, lane, now: i64::MIN, due, latest, bytes, turns });
    } else {
        changes.push(Change::PutOff { id, due, latest, bytes });
    }
    Ok(true)
}

fn is_buried(db: &Transaction<'_>, id: u64) -> rusqlite::Result<bool> {
    let text = "SELECT queue IS NOT NULL FROM event WHERE id = ?1";
    Ok(db.prepare_cached(text)?.query_row([id], |row| row.get(0)).optional()?.unwrap_or(false))
}

/// Deletes an event; none where there is none.
fn delete(db: &Transaction<'_>, id: u64, changes: &mut Vec<Change>) -> rusqlite::Result<Option<()>> {
    let text = "DELETE FROM event WHERE id = ?1 RETURNING queue IS NOT NULL, length(meta) + length(payload)";
    let gone = db.prepare_cached(text)?.query_row([id], two).optional()?;
    let Some((is_buried, bytes)) = gone else { return Ok(None) };
    db.prepare_cached("DELETE FROM lease WHERE id = ?1")?.execute([id])?;
    changes.push(if is_buried != 0 { Change::Unbury { bytes: bytes.cast_unsigned() } } else { Change::Remove { id } });
    Ok(Some(()))
}

/// Answers every request with an error: the first with this one, the others with what it means for them.
fn refuse(writes: Vec<Request>, error: Error) {
    let is_full = matches!(error, Error::Full { .. });
    let mut first = Some(error);
    for request in writes {
        let others = || if is_full { Error::Full { what: "events" } } else { Error::Doubtful };
        reply(request, Err(first.take().unwrap_or_else(others)));
    }
}

/// Sends what a request is waiting for. An answer of another kind cannot be; the requester would see that the writer has stopped.
fn reply(request: Request, outcome: Result<Answer, Error>) {
    fn send<T>(reply: Reply<T>, outcome: Result<Answer, Error>, take: impl FnOnce(Answer) -> Option<T>) {
        match outcome {
            Ok(Answer::Refused(error)) | Err(error) => drop(reply.send(Err(error))),
            Ok(answer) => {
                if let Some(answer) = take(answer) {
                    let _ = reply.send(Ok(answer));
                }
            }
        }
    }
    let flag = |answer| if let Answer::Flag(flag) = answer { Some(flag) } else { None };
    match request {
        Request::Enqueue { reply, .. } => {
            send(reply, outcome, |answer| if let Answer::Ids(ids) = answer { Some(ids) } else { None });
        }
        Request::Lease { reply, .. } => {
            send(reply, outcome, |answer| if let Answer::Batch(batch) = answer { Some(batch) } else { None });
        }
        Request::Settle { reply, .. } | Request::Revise { reply, .. } => send(reply, outcome, flag),
        Request::Forget { reply, .. } => {
            send(reply, outcome, |answer| if let Answer::Count(count) = answer { Some(count) } else { None });
        }
        Request::Renew { .. } | Request::Depth { .. } => {}
    }
}

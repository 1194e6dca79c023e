//! What people ask of the queue. Readers see what was committed last and never wait for the writer.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::time;
use crate::queue::{EventId, Kept, Query, Status};

const COLUMNS: &str = "event.id, account, lane, enqueued, due, latest, queue, reason, coalesce(turns, 0), \
     coalesce(held, 0), meta, length(payload)";

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let queue: Option<String> = row.get(6)?;
    let is_held: bool = row.get(9)?;
    Ok(Kept {
        id: EventId(row.get(0)?),
        account: row.get(1)?,
        lane: row.get(2)?,
        enqueued: time(row.get(3)?),
        due: time(row.get(4)?),
        latest_start: time(row.get(5)?),
        status: match queue {
            Some(queue) => Status::Buried { queue, reason: row.get::<_, Option<String>>(7)?.unwrap_or_default() },
            None if is_held => Status::Leased,
            None => Status::Pending,
        },
        leases: row.get(8)?,
        meta: Bytes::from(row.get::<_, Vec<u8>>(10)?),
        payload_bytes: row.get(11)?,
    })
}

pub(super) fn list(db: &Connection, query: &Query) -> rusqlite::Result<Vec<Kept>> {
    let mut conditions = String::new();
    let mut values: Vec<Value> = Vec::new();
    let mut require = |condition: &str, value: Value| {
        values.push(value);
        conditions.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    match &query.queue {
        Some(queue) => require("queue =", Value::Text(queue.clone())),
        None => require("queue IS NULL AND event.id >", Value::Integer(0)),
    }
    if let Some(account) = &query.account {
        require("account =", Value::Text(account.clone()));
    }
    if let Some(lane) = &query.lane {
        require("lane =", Value::Text(lane.clone()));
    }
    if let Some(after) = query.after {
        require("event.id >", Value::Integer(after.0.cast_signed()));
    }
    require("event.id > 0 ORDER BY event.id LIMIT", Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let text = format!("SELECT {COLUMNS} FROM event LEFT JOIN lease USING (id) WHERE TRUE{conditions}");
    db.prepare_cached(&text)?.query_map(params_from_iter(values), kept)?.collect()
}

pub(super) fn get(db: &Connection, id: u64) -> rusqlite::Result<Option<(Kept, Bytes)>> {
    let text = format!("SELECT {COLUMNS}, payload FROM event LEFT JOIN lease USING (id) WHERE event.id = ?1");
    let read = |row: &Row<'_>| Ok((kept(row)?, Bytes::from(row.get::<_, Vec<u8>>(12)?)));
    db.prepare_cached(&text)?.query_row([id], read).optional()
}

pub(super) fn expired(db: &Connection, before: i64, most: u64, limit: usize) -> rusqlite::Result<Vec<EventId>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut ids: Vec<EventId> = db
        .prepare_cached("SELECT id FROM event WHERE queue IS NOT NULL AND due < ?1 LIMIT ?2")?
        .query_map([before, limit], |row| row.get(0).map(EventId))?
        .collect::<rusqlite::Result<_>>()?;
    let full: Vec<(String, String, u64)> = db
        .prepare_cached(
            "SELECT queue, account, count(*) FROM event WHERE queue IS NOT NULL GROUP BY queue, account HAVING count(*) > ?1",
        )?
        .query_map([most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (queue, account, count) in full {
        let beyond = i64::try_from(count - most).unwrap_or(i64::MAX).min(limit);
        let mut oldest =
            db.prepare_cached("SELECT id FROM event WHERE queue = ?1 AND account = ?2 ORDER BY id LIMIT ?3")?;
        let found = oldest.query_map((queue, account, beyond), |row| row.get(0).map(EventId))?;
        ids.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(ids)
}

pub(super) fn queues(db: &Connection, account: &str) -> rusqlite::Result<Vec<(String, u64)>> {
    db.prepare_cached(
        "SELECT queue, count(*) FROM event WHERE queue IS NOT NULL AND account = ?1 GROUP BY queue ORDER BY queue",
    )?
    .query_map([account], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

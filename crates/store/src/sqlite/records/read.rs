//! What is read of records. Readers see what was committed last and never wait for the writer.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::time;
use crate::records::{Owner, Query, Record, RecordId};

const COLUMNS: &str = "id, turn, key, account, function, started, finished, expires, meta, coalesce(length(answer), 0)";

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: RecordId(row.get(0)?),
        turn: row.get(1)?,
        key: row.get(2)?,
        account: row.get(3)?,
        function: row.get(4)?,
        started: time(row.get(5)?),
        finished: row.get::<_, Option<i64>>(6)?.map(time),
        expires: time(row.get(7)?),
        meta: Bytes::from(row.get::<_, Vec<u8>>(8)?),
        answer_bytes: row.get(9)?,
    })
}

fn whole(row: &Row<'_>) -> rusqlite::Result<(Record, Option<Bytes>)> {
    Ok((record(row)?, row.get::<_, Option<Vec<u8>>>(10)?.map(Bytes::from)))
}

/// The record of a key, if it counts at `now`.
pub(super) fn of_key(db: &Connection, key: &str, now: i64) -> rusqlite::Result<Option<(Record, Option<Bytes>)>> {
    db.prepare_cached(&format!("SELECT {COLUMNS}, answer FROM record WHERE key = ?1 AND expires > ?2"))?
        .query_row((key, now), whole)
        .optional()
}

pub(super) fn find(db: &Connection, key: &str, now: i64) -> rusqlite::Result<Option<(Record, Bytes)>> {
    Ok(of_key(db, key, now)?.and_then(|(record, answer)| Some((record, answer?))))
}

pub(super) fn get(db: &Connection, id: RecordId) -> rusqlite::Result<Option<(Record, Option<Bytes>)>> {
    db.prepare_cached(&format!("SELECT {COLUMNS}, answer FROM record WHERE id = ?1"))?
        .query_row([id.0], whole)
        .optional()
}

pub(super) fn list(db: &Connection, query: &Query) -> rusqlite::Result<Vec<Record>> {
    let mut conditions = String::new();
    let mut values: Vec<Value> = Vec::new();
    let mut require = |condition: &str, value: Value| {
        values.push(value);
        conditions.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if let Some(account) = &query.account {
        require("account =", Value::Text(account.clone()));
    }
    if let Some(function) = &query.function {
        require("function =", Value::Text(function.clone()));
    }
    let after = query.after.map_or(0, |after| after.0.cast_signed());
    require("id >", Value::Integer(after));
    values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let text = format!("SELECT {COLUMNS} FROM record WHERE TRUE{conditions} ORDER BY id LIMIT ?{}", values.len());
    db.prepare_cached(&text)?.query_map(params_from_iter(values), record)?.collect()
}

/// From the index alone, one step for each function however many records it has.
pub(super) fn owners(db: &Connection, after: &Owner, limit: usize) -> rusqlite::Result<Vec<Owner>> {
    let mut next = db.prepare_cached(
        "SELECT account, function FROM record WHERE (account, function) > (?1, ?2) ORDER BY account, function LIMIT 1",
    )?;
    let mut owners: Vec<Owner> = Vec::new();
    while owners.len() < limit {
        let Owner { account, function } = owners.last().unwrap_or(after);
        let found =
            next.query_row((account, function), |row| Ok(Owner { account: row.get(0)?, function: row.get(1)? }));
        let Some(owner) = found.optional()? else { break };
        owners.push(owner);
    }
    Ok(owners)
}

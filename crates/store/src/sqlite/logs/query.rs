//! The reading side.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::behind;
use super::{group_id, nanos, time};
use crate::port::{LogEvent, LogGroup, LogQuery, LogStream};

/// Most events of one answer, whatever was asked.
const MOST: usize = 100_000;

pub(super) fn events(db: &Connection, query: &LogQuery) -> rusqlite::Result<Vec<LogEvent>> {
    let Some(group) = group_id(db, &query.group)? else { return Ok(Vec::new()) };
    let mut sql = String::from(
        "SELECT event.at, event.ingested, event.id, event.message, stream.name
         FROM event JOIN stream ON stream.id = event.stream WHERE event.log_group = ?",
    );
    let mut values = vec![Value::Integer(group)];
    let mut and = |text: &str, more: &[Value]| {
        sql.push_str(" AND ");
        sql.push_str(text);
        values.extend_from_slice(more);
    };
    if !query.streams.is_empty() {
        let names: Vec<Value> = query.streams.iter().map(|name| Value::Text(name.clone())).collect();
        let marks = vec!["?"; names.len()].join(", ");
        let all = [vec![Value::Integer(group)], names].concat();
        and(&format!("event.stream IN (SELECT id FROM stream WHERE log_group = ? AND name IN ({marks}))"), &all);
    }
    if let Some(prefix) = &query.stream_prefix {
        and(
            "event.stream IN (SELECT id FROM stream WHERE log_group = ? AND name >= ? AND name < ?)",
            &[Value::Integer(group), Value::Text(prefix.clone()), Value::Text(behind(prefix))],
        );
    }
    if let Some(from) = query.from {
        and("event.at >= ?", &[Value::Integer(nanos(from))]);
    }
    if let Some(to) = query.to {
        and("event.at < ?", &[Value::Integer(nanos(to))]);
    }
    if let Some(id) = query.newer_than {
        and("event.id > ?", &[Value::Integer(i64::try_from(id).unwrap_or(i64::MAX))]);
    }
    let (order, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    if let Some((at, id)) = query.after {
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        and(&format!("(event.at, event.id) {beyond} (?, ?)"), &[Value::Integer(nanos(at)), Value::Integer(id)]);
    }
    sql.push_str(&format!(" ORDER BY event.at {order}, event.id {order} LIMIT {}", query.limit.min(MOST)));
    db.prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| {
            Ok(LogEvent {
                at: time(row.get(0)?),
                ingested_at: time(row.get(1)?),
                id: row.get(2)?,
                message: row.get(3)?,
                stream: row.get(4)?,
            })
        })?
        .collect()
}

pub(super) fn groups(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<LogGroup>> {
    db.prepare_cached(
        "SELECT name, created, retention_days, bytes FROM log_group WHERE name >= ?1 AND name < ?2 ORDER BY name",
    )?
    .query_map([prefix, &behind(prefix)], |row| {
        Ok(LogGroup {
            name: row.get(0)?,
            created_at: time(row.get(1)?),
            retention_days: row.get(2)?,
            stored_bytes: row.get::<_, i64>(3)?.max(0).unsigned_abs(),
        })
    })?
    .collect()
}

pub(super) fn streams(db: &Connection, group: &str) -> rusqlite::Result<Option<Vec<LogStream>>> {
    let Some(group) = group_id(db, group)? else { return Ok(None) };
    db.prepare_cached("SELECT name, created, first, last FROM stream WHERE log_group = ?1 ORDER BY name")?
        .query_map([group], |row| {
            Ok(LogStream {
                name: row.get(0)?,
                created_at: time(row.get(1)?),
                first_event_at: row.get::<_, Option<i64>>(2)?.map(time),
                last_event_at: row.get::<_, Option<i64>>(3)?.map(time),
            })
        })?
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// Groups that do not keep their events for ever, and for how many days they do.
pub(super) fn retentions(db: &Connection) -> rusqlite::Result<Vec<(i64, u32)>> {
    db.prepare_cached("SELECT id, retention_days FROM log_group WHERE retention_days IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

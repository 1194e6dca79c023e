//! Log groups, streams and events.

use jiff::{Span, Timestamp};
use lambent_store::Logs;
use lambent_store::port::{LogQuery, NewLogEvent};

use crate::Backend;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

pub fn event(group: &str, stream: &str, milliseconds: i64, message: &str) -> NewLogEvent {
    NewLogEvent { group: group.into(), stream: stream.into(), at: at(milliseconds), message: message.to_owned() }
}

fn query(group: &str) -> LogQuery {
    LogQuery { group: group.into(), limit: 1_000, ..LogQuery::default() }
}

async fn messages(logs: &dyn Logs, query: LogQuery) -> Vec<String> {
    logs.query(query).await.unwrap().into_iter().map(|event| event.message).collect()
}

async fn events_come_in_order_of_time_then_arrival<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let logs = &*ports.logs;
    logs.append(vec![event("g", "s1", 5, "c"), event("g", "s2", 5, "d"), event("h", "s1", 1, "x")]).await.unwrap();
    logs.append(vec![event("g", "s1", 1, "a"), event("g", "t", 3, "b")]).await.unwrap();
    assert_eq!(messages(logs, query("g")).await, ["a", "b", "c", "d"]);
    assert_eq!(messages(logs, LogQuery { descending: true, ..query("g") }).await, ["d", "c", "b", "a"]);
    assert_eq!(messages(logs, LogQuery { streams: vec!["s1".to_owned()], ..query("g") }).await, ["a", "c"]);
    assert_eq!(messages(logs, LogQuery { stream_prefix: Some("s".to_owned()), ..query("g") }).await, ["a", "c", "d"]);
    assert_eq!(messages(logs, LogQuery { from: Some(at(3)), to: Some(at(5)), ..query("g") }).await, ["b"]);
    assert_eq!(messages(logs, query("none")).await, [""; 0]);
    let event = logs.query(query("h")).await.unwrap().remove(0);
    assert_eq!((event.stream.as_str(), event.at), ("s1", at(1)));
}

async fn pages_meet_every_event_once<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let all: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let events = (0..50).map(|n| event("g", "s", n / 7, &n.to_string())).collect();
    ports.logs.append(events).await.unwrap();
    for descending in [false, true] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = LogQuery { limit: 8, after, descending, ..query("g") };
            let page = ports.logs.query(page).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.at, last.id));
            seen.extend(page.into_iter().map(|event| event.message));
        }
        if descending {
            seen.reverse();
        }
        assert_eq!(seen, all);
    }
}

async fn groups_and_streams_tell_what_they_hold<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let logs = &*ports.logs;
    assert!(logs.create_group("/aws/lambda/b", at(0)).await.unwrap());
    assert!(!logs.create_group("/aws/lambda/b", at(0)).await.unwrap());
    logs.append(vec![event("/aws/lambda/a", "t", 2, "12"), event("/aws/lambda/a", "s", 1, "é")]).await.unwrap();
    logs.append(vec![event("/aws/lambda/a", "t", 9, "")]).await.unwrap();
    let groups = logs.groups("/aws/lambda/").await.unwrap();
    let names: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.stored_bytes)).collect();
    assert_eq!(names, [("/aws/lambda/a", 82), ("/aws/lambda/b", 0)]);
    let streams = logs.streams("/aws/lambda/a").await.unwrap().unwrap();
    assert_eq!(streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["s", "t"]);
    assert_eq!((streams[1].first_event_at, streams[1].last_event_at), (Some(at(2)), Some(at(9))));
    assert_eq!(logs.streams("none").await.unwrap(), None);
    assert!(logs.delete_group("/aws/lambda/a").await.unwrap());
    assert!(!logs.delete_group("/aws/lambda/a").await.unwrap());
    assert_eq!(messages(logs, query("/aws/lambda/a")).await, [""; 0]);
}

async fn streams_are_made_and_deleted<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let logs = &*ports.logs;
    assert_eq!(logs.create_stream("g", "s", at(0)).await.unwrap(), None);
    assert_eq!(logs.delete_stream("g", "s").await.unwrap(), None);
    assert!(logs.create_group("g", at(0)).await.unwrap());
    assert_eq!(logs.delete_stream("g", "s").await.unwrap(), Some(false));
    assert_eq!(logs.create_stream("g", "s", at(0)).await.unwrap(), Some(true));
    assert_eq!(logs.create_stream("g", "s", at(1)).await.unwrap(), Some(false));
    let streams = logs.streams("g").await.unwrap().unwrap();
    assert_eq!((streams.len(), streams[0].created_at, streams[0].last_event_at), (1, at(0), None));
    logs.append(vec![event("g", "s", 1, "gone"), event("g", "t", 1, "kept\n")]).await.unwrap();
    assert_eq!(logs.delete_stream("g", "s").await.unwrap(), Some(true));
    assert_eq!(messages(logs, query("g")).await, ["kept\n"]);
    assert_eq!(logs.groups("g").await.unwrap()[0].stored_bytes, 31);
}

async fn what_came_since_is_asked_for_by_its_id<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    ports.logs.append(vec![event("g", "s", 5, "a"), event("g", "s", 6, "b")]).await.unwrap();
    let last = ports.logs.query(query("g")).await.unwrap()[1].id;
    ports.logs.append(vec![event("g", "s", 1, "late"), event("g", "s", 9, "c")]).await.unwrap();
    let newer = LogQuery { newer_than: Some(last), ..query("g") };
    assert_eq!(messages(&*ports.logs, newer).await, ["late", "c"]);
}

async fn old_events_expire_where_retention_says_so<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let logs = &*ports.logs;
    let day = 24 * 3_600_000;
    for group in ["kept", "short"] {
        let events =
            vec![event(group, "old", 0, "old"), event(group, "new", 0, "old"), event(group, "new", 2 * day, "new")];
        logs.append(events).await.unwrap();
    }
    assert!(logs.set_retention("short", Some(1)).await.unwrap());
    assert!(!logs.set_retention("none", Some(1)).await.unwrap());
    let now = at(2 * day).checked_add(Span::new().hours(1)).unwrap();
    assert_eq!(logs.expire(now).await.unwrap(), 2);
    assert_eq!(logs.expire(now).await.unwrap(), 0);
    assert_eq!(messages(logs, query("short")).await, ["new"]);
    assert_eq!(messages(logs, query("kept")).await.len(), 3);
    let streams = logs.streams("short").await.unwrap().unwrap();
    assert_eq!(streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["new"]);
    assert_eq!(logs.groups("short").await.unwrap()[0].stored_bytes, 29);
}

async fn ids_grow_over_restarts_and_deletions<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let ports = B::open(dir.path());
        ports.logs.append(vec![event("g", "s", 0, "")]).await.unwrap();
        let id = ports.logs.query(query("g")).await.unwrap()[0].id;
        assert!(id > last);
        last = id;
        ports.logs.delete_group("g").await.unwrap();
    }
}

crate::each_backend!(
    events_come_in_order_of_time_then_arrival,
    pages_meet_every_event_once,
    groups_and_streams_tell_what_they_hold,
    streams_are_made_and_deleted,
    what_came_since_is_asked_for_by_its_id,
    old_events_expire_where_retention_says_so,
    ids_grow_over_restarts_and_deletions,
);

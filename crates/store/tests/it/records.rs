//! What [`Records`](lambent_store::Records) promises.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_store::Error;
use lambent_store::records::{Begun, Bounds, NewRecord, Outcome, Owner, Query, RecordId, Turn};

use crate::{Backend, each_backend};

each_backend!(
    a_key_begins_once,
    a_finished_record_is_found_until_it_expires,
    a_later_turn_fences_off_an_earlier_one,
    an_abandoned_record_begins_anew,
    a_crash_between_start_and_finish_leaves_the_start,
    a_cached_record_takes_the_place_of_its_key,
    cached_records_go_for_room_and_promised_ones_do_not,
    bytes_are_bounded_as_well,
    expired_records_are_deleted_and_their_room_is_free,
    records_are_listed_by_owner_in_pages,
    owners_are_listed_once_each_in_pages,
    usage_is_what_is_kept_also_after_reopening,
);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn new(key: &str) -> NewRecord {
    NewRecord {
        key: key.to_owned(),
        account: "000000000000".to_owned(),
        function: "f".to_owned(),
        expires: at(100),
        meta: Bytes::from_static(b"{}"),
    }
}

fn outcome(answer: &str) -> Outcome {
    Outcome { meta: Bytes::from_static(b"[1]"), answer: Bytes::copy_from_slice(answer.as_bytes()), expires: at(100) }
}

fn fresh(begun: Begun) -> Turn {
    match begun {
        Begun::Fresh(turn) => turn,
        other => panic!("not fresh: {other:?}"),
    }
}

async fn a_key_begins_once<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let turn = fresh(records.begin(new("k"), at(0)).await.unwrap());
    assert_eq!(turn.number, 1);
    let Begun::Started(found) = records.begin(new("k"), at(1)).await.unwrap() else { panic!() };
    assert_eq!((found.id, found.turn, found.finished), (turn.id, 1, None));
    assert_eq!(records.find("k", at(1)).await.unwrap(), None);
    assert_ne!(fresh(records.begin(new("other"), at(1)).await.unwrap()).id, turn.id);
    let ((a, b), c) = tokio::join!(
        async { tokio::join!(records.begin(new("same"), at(1)), records.begin(new("same"), at(1))) },
        records.begin(new("same"), at(1))
    );
    let fresh = [a, b, c].into_iter().filter(|begun| matches!(begun.as_ref().unwrap(), Begun::Fresh(_))).count();
    assert_eq!(fresh, 1);
}

async fn a_finished_record_is_found_until_it_expires<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let turn = fresh(records.begin(new("k"), at(0)).await.unwrap());
    assert!(records.finish(turn, outcome("answer"), at(2)).await.unwrap());
    let Begun::Finished(record, answer) = records.begin(new("k"), at(3)).await.unwrap() else { panic!() };
    assert_eq!((record.id, &answer[..], &record.meta[..]), (turn.id, &b"answer"[..], &b"[1]"[..]));
    assert_eq!((record.started, record.finished, record.answer_bytes), (at(0), Some(at(2)), 6));
    assert_eq!(records.find("k", at(99)).await.unwrap().unwrap().0, record);
    assert_eq!(records.find("k", at(100)).await.unwrap(), None);
    assert_eq!(records.get(turn.id).await.unwrap().unwrap().1.unwrap(), "answer");
    assert_ne!(fresh(records.begin(new("k"), at(100)).await.unwrap()).id, turn.id);
}

async fn a_later_turn_fences_off_an_earlier_one<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let first = fresh(records.begin(new("k"), at(0)).await.unwrap());
    let second = records.take_over(first, at(5)).await.unwrap().unwrap();
    assert_eq!((second.id, second.number), (first.id, 2));
    assert_eq!(records.take_over(first, at(5)).await.unwrap(), None);
    assert!(!records.finish(first, outcome("late"), at(6)).await.unwrap());
    assert!(!records.abandon(first).await.unwrap());
    assert!(records.finish(second, outcome("right"), at(7)).await.unwrap());
    assert!(!records.finish(second, outcome("twice"), at(8)).await.unwrap());
    assert_eq!(records.take_over(second, at(8)).await.unwrap(), None);
    assert_eq!(records.find("k", at(8)).await.unwrap().unwrap().1, "right");
}

async fn an_abandoned_record_begins_anew<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let turn = fresh(records.begin(new("k"), at(0)).await.unwrap());
    assert!(records.abandon(turn).await.unwrap());
    assert!(!records.finish(turn, outcome("late"), at(1)).await.unwrap());
    let again = fresh(records.begin(new("k"), at(1)).await.unwrap());
    assert!(again.id > turn.id);
}

async fn a_crash_between_start_and_finish_leaves_the_start<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let turn = fresh(ports.records.begin(new("k"), at(0)).await.unwrap());
    let before = B::crash(dir.path());
    assert!(ports.records.finish(turn, outcome("answer"), at(1)).await.unwrap());
    let behind = B::crash(dir.path());
    drop(ports);

    let records = B::open(before.path()).records;
    let Begun::Started(found) = records.begin(new("k"), at(2)).await.unwrap() else { panic!() };
    let again = records.take_over(Turn { id: found.id, number: found.turn }, at(2)).await.unwrap().unwrap();
    assert_eq!(again.number, 2);
    let records = B::open(behind.path()).records;
    assert!(matches!(records.begin(new("k"), at(2)).await.unwrap(), Begun::Finished(_, answer) if answer == "answer"));
}

async fn a_cached_record_takes_the_place_of_its_key<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let first = records.put(new("k"), "one".into(), at(0), at(1)).await.unwrap();
    let second = records.put(new("k"), "two".into(), at(2), at(3)).await.unwrap();
    let (record, answer) = records.find("k", at(4)).await.unwrap().unwrap();
    assert_eq!((record.id, record.started, &answer[..]), (second, at(2), &b"two"[..]));
    assert_eq!(records.get(first).await.unwrap(), None);
    assert_eq!(records.usage().await.unwrap().records, 1);
}

async fn cached_records_go_for_room_and_promised_ones_do_not<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open_bounded(dir.path(), Default::default(), Bounds { records: 3, bytes: u64::MAX }).records;
    for key in ["c1", "c2", "c3", "c4"] {
        records.put(new(key), "x".into(), at(0), at(0)).await.unwrap();
    }
    assert_eq!(records.find("c1", at(1)).await.unwrap(), None, "the oldest went");
    for key in ["p1", "p2", "p3"] {
        fresh(records.begin(new(key), at(1)).await.unwrap());
    }
    assert_eq!(records.find("c4", at(1)).await.unwrap(), None);
    assert!(matches!(records.begin(new("p4"), at(1)).await, Err(Error::RecordsFull)));
    assert!(matches!(records.begin(new("p1"), at(1)).await.unwrap(), Begun::Started(_)), "what is there is found");
    let mut late = new("p5");
    late.expires = at(300);
    fresh(records.begin(late, at(200)).await.unwrap());
    assert_eq!(records.usage().await.unwrap().records, 1, "the others had expired");
}

async fn bytes_are_bounded_as_well<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open_bounded(dir.path(), Default::default(), Bounds { records: 100, bytes: 10_000 }).records;
    for key in 0..20 {
        records.put(new(&key.to_string()), vec![0; 2_000].into(), at(0), at(0)).await.unwrap();
        assert!(records.usage().await.unwrap().bytes <= 10_000);
    }
    let turn = fresh(records.begin(new("p"), at(1)).await.unwrap());
    let large = Outcome { answer: vec![0; 20_000].into(), ..outcome("") };
    assert!(records.finish(turn, large, at(1)).await.unwrap(), "what ran is kept");
    assert!(matches!(records.begin(new("q"), at(1)).await, Err(Error::RecordsFull)));
    assert_eq!(records.usage().await.unwrap().records, 1);
}

async fn expired_records_are_deleted_and_their_room_is_free<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    let turn = fresh(records.begin(new("p"), at(0)).await.unwrap());
    assert!(records.finish(turn, outcome("x"), at(0)).await.unwrap());
    records.put(NewRecord { expires: at(50), ..new("c") }, "x".into(), at(0), at(0)).await.unwrap();
    assert_eq!(records.expire(at(49)).await.unwrap(), 0);
    assert_eq!(records.expire(at(50)).await.unwrap(), 1);
    assert_eq!(records.expire(at(100) + SignedDuration::from_secs(1)).await.unwrap(), 1);
    assert_eq!(records.usage().await.unwrap(), Default::default());
}

async fn records_are_listed_by_owner_in_pages<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    for (key, account, function) in [("a", "1", "f"), ("b", "1", "g"), ("c", "2", "f"), ("d", "1", "f")] {
        let new = NewRecord { account: account.to_owned(), function: function.to_owned(), ..new(key) };
        fresh(records.begin(new, at(0)).await.unwrap());
    }
    let list = |account: Option<&str>, function: Option<&str>, after: Option<RecordId>, limit| {
        let query = Query { account: account.map(Into::into), function: function.map(Into::into), after, limit };
        let records = records.clone();
        async move {
            let found = records.list(query).await.unwrap();
            (found.iter().map(|record| record.key.clone()).collect::<String>(), found.last().map(|last| last.id))
        }
    };
    assert_eq!(list(None, None, None, 10).await.0, "abcd");
    assert_eq!(list(Some("1"), None, None, 10).await.0, "abd");
    let (first, last) = list(Some("1"), Some("f"), None, 1).await;
    assert_eq!(first, "a");
    assert_eq!(list(Some("1"), Some("f"), last, 10).await.0, "d");
    let ids: Vec<RecordId> =
        records.list(Query { limit: 2, ..Query::default() }).await.unwrap().iter().map(|r| r.id).collect();
    assert_eq!(records.forget(ids.clone()).await.unwrap(), 2);
    assert_eq!(records.forget(ids).await.unwrap(), 0);
    assert_eq!(list(None, None, None, 10).await.0, "cd");
}

async fn owners_are_listed_once_each_in_pages<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let records = B::open(dir.path()).records;
    assert_eq!(records.owners(None, 9).await.unwrap(), []);
    let owner = |account: &str, function: &str| Owner { account: account.to_owned(), function: function.to_owned() };
    let all = [owner("1", "b"), owner("1", "c"), owner("2", "a")];
    for (number, Owner { account, function }) in all.iter().rev().chain(&all).cloned().enumerate() {
        let record = NewRecord { account, function, ..new(&number.to_string()) };
        records.put(record, Bytes::new(), at(0), at(0)).await.unwrap();
    }
    assert_eq!(records.owners(None, 9).await.unwrap(), all);
    assert_eq!(records.owners(None, 2).await.unwrap(), all[..2]);
    assert_eq!(records.owners(Some(all[1].clone()), 2).await.unwrap(), all[2..]);
    assert_eq!(records.owners(Some(all[2].clone()), 2).await.unwrap(), []);
}

async fn usage_is_what_is_kept_also_after_reopening<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let records = &ports.records;
    let turn = fresh(records.begin(new("p"), at(0)).await.unwrap());
    records.put(new("c"), "long enough".into(), at(0), at(0)).await.unwrap();
    records.put(new("c"), "short".into(), at(0), at(0)).await.unwrap();
    assert!(records.finish(turn, outcome("answer"), at(0)).await.unwrap());
    fresh(records.begin(new("gone"), at(0)).await.unwrap());
    let ids = records.list(Query { limit: 9, ..Query::default() }).await.unwrap();
    assert_eq!(records.forget(vec![ids.last().unwrap().id]).await.unwrap(), 1);
    let before = records.usage().await.unwrap();
    assert_eq!(before.records, 2);
    drop(ports);
    assert_eq!(B::open(dir.path()).records.usage().await.unwrap(), before);
}

//! What only this back end can show: a device that fills up, commits that fail half-way.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use super::*;
use crate::queue::{EventQueue as _, Place};

fn event(size: usize) -> NewEvent {
    NewEvent {
        account: "a".to_owned(),
        lane: "lane".to_owned(),
        place: Place::Pending,
        due: Timestamp::UNIX_EPOCH,
        latest_start: Timestamp::UNIX_EPOCH,
        meta: Bytes::new(),
        payload: vec![7; size].into(),
    }
}

fn wish() -> Wish {
    let now = Timestamp::UNIX_EPOCH;
    Wish { now, until: now + Duration::from_secs(9), places: 100, most: 100, without: Vec::new(), latest_by: None }
}

fn cramped(path: &Path, pages: u32) -> Events {
    let db = super::super::open(path, SCHEMA, TABLES, Durability::PowerCut).unwrap();
    let used: u32 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    db.query_row(&format!("PRAGMA max_page_count = {}", used + pages), [], |_| Ok(())).unwrap();
    Events::over(db, path, Bounds::default()).unwrap()
}

#[tokio::test]
async fn a_full_device_refuses_what_is_too_large_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let queue = cramped(&path, 16);
    let now = Timestamp::UNIX_EPOCH;
    let (huge, small) =
        tokio::join!(queue.enqueue(vec![event(10), event(1 << 20)], now), queue.enqueue(vec![event(10)], now));
    assert!(matches!(huge, Err(Error::Full { .. })), "{huge:?}");
    assert_eq!(small.unwrap().len(), 1);
    assert_eq!(queue.depth().await.unwrap().pending, 1);
    let leased = queue.lease(wish()).await.unwrap().events;
    assert_eq!(leased.len(), 1);
    let then = vec![event(1 << 20)];
    let settled = queue.settle(leased[0].lease, Settlement::Done { then }, now).await;
    assert!(matches!(settled, Err(Error::Full { .. })), "{settled:?}");
    assert!(queue.settle(leased[0].lease, Settlement::Done { then: Vec::new() }, now).await.unwrap());
    drop(queue);
    assert_eq!(Events::open(&path, Bounds::default()).unwrap().depth().await.unwrap(), Depth::default());
}

#[tokio::test]
async fn a_lease_that_cannot_be_written_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let queue = Events::open(&path, Bounds::default()).unwrap();
    queue.enqueue(vec![event(1)], Timestamp::UNIX_EPOCH).await.unwrap();
    let other = Connection::open(&path).unwrap();
    // Somebody else's write fails the commit; the row itself is untouched.
    other.execute_batch("CREATE TRIGGER no BEFORE INSERT ON lease BEGIN SELECT RAISE(ABORT, 'no'); END").unwrap();
    assert!(matches!(queue.lease(wish()).await, Err(Error::Backend { .. })));
    assert_eq!(queue.depth().await.unwrap().pending, 1);
    other.execute_batch("DROP TRIGGER no").unwrap();
    let leased = queue.lease(wish()).await.unwrap().events;
    assert_eq!(leased.iter().map(|event| event.lease.turn).collect::<Vec<_>>(), [1]);
}

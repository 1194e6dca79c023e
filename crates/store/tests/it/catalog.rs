//! Documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lambent_store::port::{Change, Document, Expect, Write};
use lambent_store::{Catalog, Error};
use tokio::sync::mpsc;

use crate::Backend;

pub fn put(key: &str, expect: Expect, value: &str) -> Write {
    Write { key: key.to_owned(), expect, value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.to_owned(), expect, value: None }
}

async fn keys(catalog: &dyn Catalog, prefix: &str) -> Vec<String> {
    catalog.list(prefix).await.unwrap().into_iter().map(|document| document.key).collect()
}

async fn documents_come_back<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let catalog = &ports.catalog;
    assert_eq!(catalog.get("a").await.unwrap(), None);
    let first = catalog.commit(vec![put("a", Expect::Absent, "1"), put("b/x", Expect::Anything, "2")]).await.unwrap();
    let expected = Document { key: "a".to_owned(), revision: first, value: "1".into() };
    assert_eq!(catalog.get("a").await.unwrap(), Some(expected));
    let second =
        catalog.commit(vec![put("b/y", Expect::Absent, ""), delete("a", Expect::Revision(first))]).await.unwrap();
    assert!(second > first);
    assert_eq!(catalog.get("a").await.unwrap(), None);
    assert_eq!(catalog.get("b/x").await.unwrap().unwrap().revision, first, "untouched");
}

async fn lists_are_by_prefix_and_in_order<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    for key in ["b", "a/2", "a/10", "a/1", "a", "aa", "a/é", "a/\u{10FFFD}"] {
        ports.catalog.commit(vec![put(key, Expect::Absent, "")]).await.unwrap();
    }
    assert_eq!(keys(&*ports.catalog, "a/").await, ["a/1", "a/10", "a/2", "a/é", "a/\u{10FFFD}"]);
    assert_eq!(keys(&*ports.catalog, "").await.len(), 8);
    assert_eq!(keys(&*ports.catalog, "c").await, [""; 0]);
}

async fn a_commit_happens_whole_or_not_at_all<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let catalog = &ports.catalog;
    let first = catalog.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    for (expect, actual) in [(Expect::Absent, Some(first)), (Expect::Revision(first + 7), Some(first))] {
        let error = catalog.commit(vec![put("b", Expect::Absent, "x"), put("a", expect, "2")]).await.unwrap_err();
        assert!(matches!(&error, Error::Conflict { key, actual: found } if key == "a" && *found == actual), "{error}");
    }
    let error = catalog.commit(vec![delete("c", Expect::Revision(first))]).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { actual: None, .. }));
    assert_eq!(keys(&**catalog, "").await, ["a"]);
    catalog.commit(vec![delete("c", Expect::Anything)]).await.unwrap();
}

async fn of_many_writers_one_wins_each_round<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let mut revision = ports.catalog.commit(vec![put("n", Expect::Absent, "0")]).await.unwrap();
    for round in 0..5 {
        let rivals: Vec<_> = (0..20)
            .map(|_| {
                let catalog = ports.catalog.clone();
                tokio::spawn(async move { catalog.commit(vec![put("n", Expect::Revision(revision), "")]).await })
            })
            .collect();
        let mut winners = Vec::new();
        for rival in rivals {
            winners.extend(rival.await.unwrap().ok());
        }
        assert_eq!(winners.len(), 1, "round {round}");
        revision = winners[0];
    }
}

async fn next(changes: &mut mpsc::UnboundedReceiver<Change>) -> Change {
    // What a commit changed is sent before the commit returns.
    changes.try_recv().expect("a change")
}

async fn a_watch_misses_nothing<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let catalog: &Arc<dyn Catalog> = &ports.catalog;
    let first = catalog.commit(vec![put("a/1", Expect::Absent, "1"), put("b/1", Expect::Absent, "1")]).await.unwrap();
    let mut changes = catalog.watch("a/").await.unwrap();
    let document = |key: &str, revision, value: &str| {
        Change::Put(Document { key: key.to_owned(), revision, value: Bytes::copy_from_slice(value.as_bytes()) })
    };
    assert_eq!(next(&mut changes).await, document("a/1", first, "1"));
    assert_eq!(next(&mut changes).await, Change::Ready);
    catalog.commit(vec![put("b/2", Expect::Absent, "")]).await.unwrap();
    catalog.commit(vec![put("a/1", Expect::Absent, "lost")]).await.unwrap_err();
    let third = catalog.commit(vec![put("a/2", Expect::Absent, "2"), delete("a/1", Expect::Anything)]).await.unwrap();
    assert_eq!(next(&mut changes).await, document("a/2", third, "2"));
    assert_eq!(next(&mut changes).await, Change::Deleted { key: "a/1".to_owned(), revision: third });
    assert!(changes.try_recv().is_err());
}

/// Two watchers begun at different times, and the list, agree in the end, whatever was written in between.
async fn watchers_end_up_with_what_is_there<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let early = ports.catalog.watch("").await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let catalog = ports.catalog.clone();
            tokio::spawn(async move {
                for n in 0..25 {
                    let key = format!("k{}", (writer * 7 + n * 3) % 10);
                    let write = match n % 4 {
                        3 => delete(&key, Expect::Anything),
                        _ => put(&key, Expect::Anything, &format!("{writer}/{n}")),
                    };
                    catalog.commit(vec![write]).await.unwrap();
                }
            })
        })
        .collect();
    let late = ports.catalog.watch("").await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let there: BTreeMap<String, (u64, Bytes)> = (ports.catalog.list("").await.unwrap().into_iter())
        .map(|document| (document.key, (document.revision, document.value)))
        .collect();
    for mut changes in [early, late] {
        let mut seen = BTreeMap::new();
        let mut last = 0;
        let mut is_ready = false;
        while let Ok(change) = changes.try_recv() {
            match change {
                Change::Put(document) => {
                    assert!(!is_ready || document.revision >= last, "in commit order");
                    last = document.revision;
                    seen.insert(document.key, (document.revision, document.value));
                }
                Change::Deleted { key, revision } => {
                    assert!(revision >= last, "in commit order");
                    last = revision;
                    seen.remove(&key);
                }
                Change::Ready => is_ready = true,
            }
        }
        assert_eq!(seen, there);
    }
}

async fn revisions_grow_over_restarts<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let ports = B::open(dir.path());
        ports.catalog.commit(vec![delete("a", Expect::Anything)]).await.unwrap();
        let revision = ports.catalog.commit(vec![put("a", Expect::Absent, "")]).await.unwrap();
        assert!(revision > last);
        last = revision;
    }
}

crate::each_backend!(
    documents_come_back,
    lists_are_by_prefix_and_in_order,
    a_commit_happens_whole_or_not_at_all,
    of_many_writers_one_wins_each_round,
    a_watch_misses_nothing,
    watchers_end_up_with_what_is_there,
    revisions_grow_over_restarts,
);

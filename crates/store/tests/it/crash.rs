//! A process is killed in the midst of writing; what it was told is kept must be there.
//!
//! The child is this test binary once more, told by its environment to write and to say on its standard output what was
//! acknowledged. The parent reads a while, kills it (`SIGKILL`, no handler can run), opens the store and compares.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_store::EventQueue;
use lambent_store::port::{Expect, LogQuery};
use lambent_store::queue::{Query, Settlement, Wish};

use crate::catalog::put;
use crate::{Backend, OneMachine};

const DIR: &str = "LAMBENT_TEST_CRASH_DIR";
const BACKEND: &str = "LAMBENT_TEST_CRASH_BACKEND";

/// Runs in the child only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(backend)) = (std::env::var(DIR), std::env::var(BACKEND)) else { return };
    match backend.as_str() {
        OneMachine::NAME => write_for_ever::<OneMachine>(Path::new(&dir)).await,
        other => panic!("no back end {other}"),
    }
}

/// Says a line to the parent, whole.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

async fn write_for_ever<B: Backend>(dir: &Path) {
    let ports = B::open(dir);
    let mut writers = vec![tokio::spawn(run_for_ever(ports.events.clone()))];
    for writer in 0..4 {
        let (catalog, blobs, logs) = (ports.catalog.clone(), ports.blobs.clone(), ports.logs.clone());
        let events = ports.events.clone();
        writers.push(tokio::spawn(async move {
            for n in 0_u64.. {
                // Two documents that must never be seen apart, a blob of which must never be seen a part, a line.
                let (left, right) = (format!("left/{writer}"), format!("right/{writer}"));
                let value = n.to_string();
                let commit = vec![put(&left, Expect::Anything, &value), put(&right, Expect::Anything, &value)];
                catalog.commit(commit).await.unwrap();
                let blob = blobs.put(Bytes::from(vec![(n % 251) as u8; 40_000 + writer])).await.unwrap();
                logs.append(vec![crate::logs::event("g", &writer.to_string(), 0, &value)]).await.unwrap();
                let event = crate::events::event(&writer.to_string(), n * 4 + writer as u64);
                events.enqueue(vec![event], Timestamp::now()).await.unwrap();
                say(format_args!("acknowledged {writer} {n} {blob}"));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Leases events, says that they ran, and settles them: every third is buried, the others are done.
async fn run_for_ever(events: Arc<dyn EventQueue>) {
    loop {
        let (now, most) = (Timestamp::now(), 5);
        let until = now.checked_add(SignedDuration::from_secs(60)).unwrap();
        let wish = Wish { now, until, most, ..crate::events::wish(0) };
        for event in events.lease(wish).await.unwrap().events {
            let key = crate::events::key(&event.payload);
            let settlement = if key.is_multiple_of(3) {
                Settlement::Bury { queue: "dead".to_owned(), reason: "why".to_owned(), meta: Bytes::new() }
            } else {
                say(format_args!("ran {key}"));
                Settlement::Done { then: Vec::new() }
            };
            assert!(events.settle(event.lease, settlement, now).await.unwrap());
        }
        tokio::task::yield_now().await;
    }
}

fn start<B: Backend>(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(BACKEND, B::NAME)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn what_was_acknowledged_survives_a_kill<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let mut ran = BTreeSet::new();
    for round in 1..=3 {
        let mut child = start::<B>(dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        // A line that the kill cut off was not told to anyone: it is the last one and may be short.
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["ran", key] = words.as_slice() {
                ran.insert(key.parse::<u64>().unwrap());
            }
            if let ["acknowledged", writer, n, blob] = words.as_slice()
                && blob.len() == 64
            {
                acknowledged.push(((*writer).to_owned(), n.parse::<u64>().unwrap(), (*blob).to_owned()));
            }
            if acknowledged.len() == 60 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= 60 * round, "the child wrote {}", acknowledged.len());
        check::<B>(dir.path(), &acknowledged).await;
        check_events::<B>(dir.path(), &acknowledged, &ran).await;
    }
}

async fn check<B: Backend>(dir: &Path, acknowledged: &[(String, u64, String)]) {
    let ports = B::open(dir);
    for (writer, n, blob) in acknowledged {
        let get = async |side: &str| {
            let document = ports.catalog.get(&format!("{side}/{writer}")).await.unwrap().expect("acknowledged");
            (document.revision, String::from_utf8(document.value.to_vec()).unwrap().parse::<u64>().unwrap())
        };
        let (left, right) = (get("left").await, get("right").await);
        assert_eq!(left, right, "one commit");
        assert!(left.1 >= *n, "writer {writer} was told {n}, kept is {}", left.1);
        assert!(ports.blobs.get(blob.parse().unwrap()).await.unwrap().is_some(), "blob {blob}");
    }
    // `get` compares the content with its digest, so half a blob would be an error here.
    for digest in ports.blobs.list().await.unwrap() {
        assert!(ports.blobs.get(digest).await.unwrap().is_some());
    }
    let query = LogQuery { group: "g".to_owned(), limit: 100_000, ..LogQuery::default() };
    let kept = ports.logs.query(query).await.unwrap();
    for (writer, n, _) in acknowledged {
        let n = n.to_string();
        assert!(kept.iter().any(|event| event.stream == *writer && event.message == n), "line {writer}/{n}");
    }
}

/// Every acknowledged event ran, or is there to be run, or is buried; and none is there twice.
async fn check_events<B: Backend>(dir: &Path, acknowledged: &[(String, u64, String)], ran: &BTreeSet<u64>) {
    let ports = B::open(dir);
    let mut places: Vec<u64> = Vec::new();
    for queue in [None, Some("dead".to_owned())] {
        let query = Query { queue, limit: 100_000, ..Query::default() };
        for kept in ports.events.list(query).await.unwrap() {
            places.push(crate::events::key(&ports.events.get(kept.id).await.unwrap().unwrap().1));
        }
    }
    let there: BTreeSet<u64> = places.iter().copied().collect();
    // The children of all rounds count from 0, so a key may be there once for each round, but not more often.
    assert!(there.iter().all(|key| places.iter().filter(|other| *other == key).count() <= 3), "in two places");
    for (writer, n, _) in acknowledged {
        let key = n * 4 + writer.parse::<u64>().unwrap();
        assert!(ran.contains(&key) || there.contains(&key), "event {key} is lost");
    }
}

crate::each_backend!(what_was_acknowledged_survives_a_kill);

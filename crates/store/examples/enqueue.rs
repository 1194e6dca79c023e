//! How fast events are kept, each committed to disk before it is acknowledged; run by `cargo xtask bench enqueue`.
//!
//! `enqueue queue DIR CLIENTS SECONDS BACKLOG`: by the event queue, with so many events in it before; `enqueue lease DIR CLIENTS BACKLOG`: the same
//! for events that are leased and settled, a fixed number of them, by clients that take one when they are done with the last;
//! `enqueue insert DIR SECONDS`: by one SQLite transaction an event, what the queue is compared with. Prints events per second.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_store::queue::{NewEvent, Place, Settlement, Wish};
use lambent_store::{Embedded, EventQueue};

const EVENT: [u8; 256] = [b'x'; 256];
/// Events that are leased and settled.
const LEASED: usize = 50_000;
/// Before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rate = match words.as_slice() {
        ["queue", dir, clients, seconds, backlog] => {
            queue(Path::new(dir), clients.parse()?, seconds.parse()?, backlog.parse()?)?
        }
        ["lease", dir, clients, backlog] => lease(Path::new(dir), clients.parse()?, backlog.parse()?)?,
        ["insert", dir, seconds] => insert(Path::new(dir), seconds.parse()?)?,
        _ => {
            return Err(
                "usage: enqueue queue DIR CLIENTS SECONDS BACKLOG | lease DIR CLIENTS BACKLOG | insert DIR SECONDS"
                    .into(),
            );
        }
    };
    println!("{rate:.0}");
    Ok(())
}

fn event(now: Timestamp) -> NewEvent {
    NewEvent {
        account: "000000000000".to_owned(),
        lane: "function".to_owned(),
        place: Place::Pending,
        due: now,
        latest_start: now,
        meta: Bytes::from_static(b"{}"),
        payload: Bytes::from_static(&EVENT),
    }
}

/// A backlog, in large commits.
async fn fill(queue: &dyn EventQueue, backlog: usize) -> Outcome<()> {
    let mut left = backlog;
    while left > 0 {
        let (now, count) = (Timestamp::now(), left.min(10_000));
        queue.enqueue(vec![event(now); count], now).await?;
        left -= count;
    }
    Ok(())
}

/// One that leases, as the dispatcher does, for clients that each settle their event and are then free for another.
#[tokio::main]
async fn lease(dir: &Path, clients: usize, backlog: usize) -> Outcome<f64> {
    let store = Embedded::open(dir)?;
    fill(&*store.events, backlog).await?;
    let (mut tasks, mut taken, begun) = (tokio::task::JoinSet::new(), 0, Instant::now());
    while taken < LEASED {
        let now = Timestamp::now();
        // A lane gets half of the places.
        let (places, most) = (2 * clients, LEASED - taken);
        let wish =
            Wish { now, until: now + Duration::from_secs(60), places, most, without: Vec::new(), latest_by: None };
        let events = store.events.lease(wish).await?.events;
        taken += events.len();
        for event in events {
            let queue = store.events.clone();
            let done = Settlement::Done { then: Vec::new() };
            tasks.spawn(async move { queue.settle(event.lease, done, Timestamp::now()).await });
        }
        if let Some(ended) = tasks.join_next().await {
            ended??;
        }
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(per_second(taken as u64, begun.elapsed()))
}

/// Clients that each enqueue one event when the last one is kept.
#[tokio::main]
async fn queue(dir: &Path, clients: usize, seconds: f64, backlog: usize) -> Outcome<f64> {
    let store = Embedded::open(dir)?;
    fill(&*store.events, backlog).await?;
    let (counting, count, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Instant::now());
    let stop = stop + WARM_UP + Duration::from_secs_f64(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (queue, counting, count) = (store.events.clone(), counting.clone(), count.clone());
        tasks.spawn(async move {
            while Instant::now() < stop {
                let now = Timestamp::now();
                queue.enqueue(vec![event(now)], now).await?;
                count.fetch_add(u64::from(counting.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
            Ok::<_, lambent_store::Error>(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    counting.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(per_second(count.load(Ordering::Relaxed), begun.elapsed()))
}

/// One transaction an event, as durable.
fn insert(dir: &Path, seconds: f64) -> Outcome<f64> {
    std::fs::create_dir_all(dir)?;
    let db = rusqlite::Connection::open(dir.join("insert.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT")?;
    let mut insert = db.prepare("INSERT INTO events (payload) VALUES (?1)")?;
    let (mut count, begun) = (0, Instant::now());
    while begun.elapsed().as_secs_f64() < seconds {
        insert.execute([EVENT.as_slice()])?;
        count += 1;
    }
    Ok(per_second(count, begun.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "far fewer events than a float can count")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

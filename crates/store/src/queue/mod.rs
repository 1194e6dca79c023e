//! The promise of a durable event queue.
//!
//! ```text
//!            enqueue                lease                  settle: done, with what follows from it
//!   (caller) ───────▶ waiting/ready ─────▶ leased ───────────────────────────────────────▶ gone
//!                      ▲   ▲                 │ │ settle: bury
//!                      │   └── due, or lease │ └──────────▶ buried (in a queue of that name)
//!                      │       ran out ◀─────┘                 │
//!                      └────────── settle: retry ◀─────────────┘ revise
//! ```
//!
//! **One row an event.** State is moved, never copied: a commit takes an event out of one state and puts it, and what follows from it,
//! into the next, whole or not at all. After a crash an event is where its last commit left it; one that was leased can be leased again.
//!
//! **Order.** Of the events that are due, those are leased first that must start first. So that nobody starves, shares bound it: of
//! `places` places a lane (a function, or where results are delivered) gets another only while it has fewer than are free, an account while it has
//! fewer than three times as many. One lane alone comes to half of the places, two to a third each, and there is always one for a newcomer.
//!
//! **Bounds.** Events and bytes kept are bounded, by the same rule: a lane may add only while it has no more than is free. Beyond the
//! bound, [`EventQueue::enqueue`] refuses ([`Error::QueueFull`]) and keeps nothing.

mod order;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::Error;

pub use order::{Order, Room, Shares, Take};

/// An event's place in the order of arrival; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How much a queue keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events, buried ones too.
    pub events: u64,
    /// Bytes of them: `meta` and `payload`.
    pub bytes: u64,
}

impl Default for Bounds {
    /// 4 million events, 16 GiB.
    fn default() -> Self {
        Self { events: 4_000_000, bytes: 16 << 30 }
    }
}

/// Where an event begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Waiting to be leased, not before its `due`.
    Pending,
    /// In a queue that nothing is leased from, to be read by people.
    Buried {
        /// The queue's name.
        queue: String,
        /// Why it is there.
        reason: String,
    },
}

/// An event to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The account whose share it is leased on.
    pub account: String,
    /// The lane whose share it is leased on.
    pub lane: String,
    /// Where it begins.
    pub place: Place,
    /// Not leased before.
    pub due: Timestamp,
    /// When it must start at the latest; what events are ordered by.
    pub latest_start: Timestamp,
    /// What the owner of the queue knows of it; opaque here, and replaced when it is retried or buried.
    pub meta: Bytes,
    /// Its content; opaque here.
    pub payload: Bytes,
}

/// What is wanted of [`EventQueue::lease`].
#[derive(Debug, Clone)]
pub struct Wish {
    /// The time.
    pub now: Timestamp,
    /// When the leases run out, unless renewed.
    pub until: Timestamp,
    /// Leases that may be held at once, those that are held already included.
    pub places: usize,
    /// Events at most, now.
    pub most: usize,
    /// Lanes from which none are wanted now.
    pub without: Vec<String>,
    /// Only those that must start by then at the latest.
    pub latest_by: Option<Timestamp>,
}

/// The right to run an event and to say what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The event.
    pub id: EventId,
    /// How often it has been leased. A later lease ends the right of an earlier one.
    pub turn: u32,
}

/// A leased event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The right to it.
    pub lease: Lease,
    /// Its account.
    pub account: String,
    /// Its lane.
    pub lane: String,
    /// When it was enqueued.
    pub enqueued: Timestamp,
    /// When it must start at the latest.
    pub latest_start: Timestamp,
    /// What its owner knows of it.
    pub meta: Bytes,
    /// Its content.
    pub payload: Bytes,
}

/// What [`EventQueue::lease`] gave.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Events to run.
    pub events: Vec<Leased>,
    /// When the next one is due, or the next lease runs out.
    pub next: Option<Timestamp>,
    /// Of those that are due and were not asked for ([`Wish::latest_by`]): when the first of them must start.
    pub held_until: Option<Timestamp>,
}

/// What became of a leased event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is done. What follows from it takes its place, in the same commit.
    Done {
        /// What follows; the bounds do not apply, as it comes in exchange.
        then: Vec<NewEvent>,
    },
    /// It is to be leased again.
    Retry {
        /// Not before.
        due: Timestamp,
        /// What its owner knows of it now.
        meta: Bytes,
    },
    /// It will not be leased any more.
    Bury {
        /// The queue to read it from.
        queue: String,
        /// Why.
        reason: String,
        /// What its owner knows of it now.
        meta: Bytes,
    },
}

/// Which events to look at, in the order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Buried ones in this queue; none: those that are pending or leased.
    pub queue: Option<String>,
    /// Only of this account.
    pub account: Option<String>,
    /// Only of this lane.
    pub lane: Option<String>,
    /// Continue behind this one.
    pub after: Option<EventId>,
    /// At most so many.
    pub limit: usize,
}

/// What an event is waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Pending: to be due, or to have its turn.
    Pending,
    /// Leased by somebody.
    Leased,
    /// For somebody to read it.
    Buried {
        /// The queue.
        queue: String,
        /// Why it is there.
        reason: String,
    },
}

/// A kept event, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub id: EventId,
    /// Its account.
    pub account: String,
    /// Its lane.
    pub lane: String,
    /// Where it is.
    pub status: Status,
    /// When it was enqueued.
    pub enqueued: Timestamp,
    /// Not leased before; of a buried one: when it was buried.
    pub due: Timestamp,
    /// When it must start at the latest.
    pub latest_start: Timestamp,
    /// How often it was leased.
    pub leases: u32,
    /// What its owner knows of it.
    pub meta: Bytes,
    /// Size of its content.
    pub payload_bytes: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Events that are pending.
    pub pending: u64,
    /// Events that are leased.
    pub leased: u64,
    /// Events that are buried.
    pub buried: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Events that were leased when the queue was last closed, and so may have run without anybody knowing.
    pub interrupted: u64,
}

/// Events, kept until they are done. What a method acknowledged has reached the disk.
#[async_trait]
pub trait EventQueue: Send + Sync + 'static {
    /// Keeps all of `events` or none. [`Error::QueueFull`] beyond the bounds, [`Error::Full`] where the device is.
    async fn enqueue(&self, events: Vec<NewEvent>, now: Timestamp) -> Result<Vec<EventId>, Error>;

    /// Leases events that are due, in order.
    async fn lease(&self, wish: Wish) -> Result<Batch, Error>;

    /// Extends leases to `until`; says of each whether it still was a right.
    async fn renew(&self, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<bool>, Error>;

    /// Moves a leased event on; false where the lease is no right any more, and then nothing was changed.
    async fn settle(&self, lease: Lease, settlement: Settlement, now: Timestamp) -> Result<bool, Error>;

    /// Events as asked.
    async fn list(&self, query: Query) -> Result<Vec<Kept>, Error>;

    /// One event and its content.
    async fn get(&self, id: EventId) -> Result<Option<(Kept, Bytes)>, Error>;

    /// Makes an event that is not leased pending again, whatever it was; false where there is none such.
    async fn revise(&self, id: EventId, due: Timestamp, latest_start: Timestamp, meta: Bytes) -> Result<bool, Error>;

    /// Forgets events; a lease on one is no right any more. Returns how many there were.
    async fn forget(&self, ids: Vec<EventId>) -> Result<u64, Error>;

    /// Forgets, of what is buried, what has been there since before `before`, and of each account's queue what came before the newest `most`;
    /// at most `limit` of them. Returns how many there were.
    async fn expire(&self, before: Timestamp, most: u64, limit: usize) -> Result<u64, Error>;

    /// Names of the queues that hold buried events of an account, and how many.
    async fn queues(&self, account: &str) -> Result<Vec<(String, u64)>, Error>;

    /// How much is kept.
    async fn depth(&self) -> Result<Depth, Error>;

    /// Changes whenever an event may have become one that can be leased.
    fn changes(&self) -> watch::Receiver<u64>;
}

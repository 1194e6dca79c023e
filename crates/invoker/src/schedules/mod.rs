//! Schedules, as EventBridge Scheduler has them: functions that are called at a time, at a rate, by cron.
//!
//! A schedule is a document of the catalog, its next run an event of the queue (`tick.rs`). All of both go through [`Schedules`], which
//! changes one schedule at a time: the tick is kept first, then the document that makes it valid; a crash between leaves a tick that
//! nothing wants. What is missing its tick at the start gets one.
//!
//! ```text
//! cron.rs, expression.rs   when: pure
//! record.rs                what is kept, and what is refused
//! ops.rs                   AWS's operations
//! tick.rs                  a run: pure
//! ```

mod cron;
mod expression;
mod ops;
mod record;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use lambent_model::{AccountId, Clock, Region, RequestId};
use lambent_store::port::{Catalog, Expect, Write};
use lambent_store::queue::{EventId, Kept, NewEvent, Query};
use lambent_store::{EventQueue, record as documents};
use tokio::sync::RwLock;

use crate::events::{Meta, Task, Tick};
use record::{AfterCompletion, Definition, FORMAT, Group, State};

const SCHEDULES: &str = "schedule/";
const GROUPS: &str = "schedule-group/";
/// The group that every account has.
const DEFAULT_GROUP: &str = "default";
/// Ticks that are read at once.
const PAGE: usize = 1_000;

/// Why an operation was refused, in the scheduler's words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense.
    #[error("{0}")]
    Validation(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is one already.
    #[error("{0}")]
    Conflict(String),
    /// AWS could; this cannot yet.
    #[error("{0} is not built yet")]
    NotBuilt(String),
    /// The node failed. Asking again is safe.
    #[error("Unexpected error encountered while processing the request: {0}.")]
    Store(#[from] lambent_store::Error),
}

impl Error {
    /// AWS's error code and the status it comes with.
    pub fn code(&self) -> (&'static str, u16) {
        match self {
            Self::Validation(_) => ("ValidationException", 400),
            Self::NotFound(_) => ("ResourceNotFoundException", 404),
            Self::Conflict(_) => ("ConflictException", 409),
            Self::NotBuilt(_) => ("NotImplementedException", 501),
            Self::Store(lambent_store::Error::QueueFull { .. }) => ("ThrottlingException", 429),
            Self::Store(_) => ("InternalServerException", 500),
        }
    }
}

/// Account, group, name.
type Key = (String, String, String);

#[derive(Default)]
struct Book {
    schedules: BTreeMap<Key, Definition>,
    /// By account and name.
    groups: BTreeMap<(String, String), Group>,
}

/// All schedules of a node.
pub struct Schedules {
    catalog: Arc<dyn Catalog>,
    queue: Arc<dyn EventQueue>,
    clock: Arc<dyn Clock>,
    region: Region,
    /// Held for writing while something is changed; a tick waits for that.
    book: RwLock<Book>,
}

impl std::fmt::Debug for Schedules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

/// What follows from a tick.
pub(crate) struct Fired {
    pub(crate) then: Vec<NewEvent>,
}

impl Schedules {
    /// Reads what is kept, and gives a tick to whatever lacks one. To be called before events are dispatched.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        queue: Arc<dyn EventQueue>,
        clock: Arc<dyn Clock>,
        region: Region,
    ) -> Result<Arc<Self>, lambent_store::Error> {
        let mut book = Book::default();
        for document in catalog.list(SCHEDULES).await? {
            let found: Definition = documents::read(FORMAT, &document)?;
            book.schedules.insert(key(&found), found);
        }
        for document in catalog.list(GROUPS).await? {
            let found: Group = documents::read(FORMAT, &document)?;
            book.groups.insert((found.account.to_string(), found.name.clone()), found);
        }
        metrics::gauge!("lambent_schedules").set(book.schedules.len() as f64);
        let this = Self { catalog, queue, clock, region, book: RwLock::new(book) };
        this.mend().await?;
        Ok(Arc::new(this))
    }

    async fn mend(&self) -> Result<(), lambent_store::Error> {
        let ticking: BTreeSet<RequestId> =
            self.ticks(None).await?.into_iter().map(|(_, tick)| tick.generation).collect();
        let now = self.clock.now();
        let mut book = self.book.write().await;
        let without = book.schedules.values().filter(|schedule| !ticking.contains(&schedule.generation));
        let ticks: Vec<NewEvent> = without.filter_map(|s| tick::tick(s, s.next(now)?)).collect();
        if !ticks.is_empty() {
            tracing::warn!(count = ticks.len(), "schedules had no next run; they have one again");
            self.queue.enqueue(ticks, now).await?;
        }
        // A crash came between the last run and the deletion.
        let is_over = |s: &&Definition| {
            s.wanted.action_after_completion == AfterCompletion::Delete
                && s.wanted.state == State::Enabled
                && !ticking.contains(&s.generation)
                && s.next(now).is_none()
        };
        let over: Vec<Definition> = book.schedules.values().filter(is_over).cloned().collect();
        for definition in over {
            let gone = Write { key: path(&definition), expect: Expect::Anything, value: None };
            self.catalog.commit(vec![gone]).await?;
            book.schedules.remove(&key(&definition));
        }
        Ok(())
    }

    /// Ticks that are kept, of one lane or of all.
    async fn ticks(&self, lane: Option<String>) -> Result<Vec<(EventId, Tick)>, lambent_store::Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let account = Some(tick::ACCOUNT.to_owned());
            let query = Query { queue: None, account, lane: lane.clone(), after, limit: PAGE };
            let page: Vec<Kept> = self.queue.list(query).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.id);
            found.extend(page.iter().filter_map(|kept| match Meta::read(&kept.meta).ok()?.task {
                Task::Tick(tick) => Some((kept.id, tick)),
                Task::Invoke(_) | Task::Deliver(_) | Task::Keep(_) => None,
            }));
        }
    }

    /// What follows from a tick now; nothing where it is void.
    pub(crate) async fn fire(&self, tick: &Tick) -> Fired {
        let book = self.book.read().await;
        let Some(definition) = valid(&book, tick) else { return Fired { then: Vec::new() } };
        let now = self.clock.now();
        let next = definition.next(tick.at.max(now)).and_then(|next| tick::tick(definition, next));
        let late = now.duration_since(tick.at).as_secs_f64().max(0.0);
        metrics::histogram!("lambent_schedule_late_seconds").record(late);
        metrics::counter!("lambent_schedule_runs_total").increment(1);
        Fired { then: tick::event(definition, tick.at, now).into_iter().chain(next).collect() }
    }

    /// What is to be done when a tick has been settled: a schedule that has run for the last time may have to go.
    pub(crate) async fn fired(&self, tick: &Tick) {
        let mut book = self.book.write().await;
        let now = self.clock.now();
        let is_over = |definition: &&Definition| {
            definition.wanted.action_after_completion == AfterCompletion::Delete
                && definition.next(tick.at.max(now)).is_none()
        };
        let Some(definition) = valid(&book, tick).filter(is_over).cloned() else { return };
        if let Err(error) = self.forget(&mut book, &definition).await {
            tracing::error!(error = &error as &dyn std::error::Error, schedule = definition.arn(), "cannot be deleted");
        }
    }

    /// Keeps a schedule in place of another, or of none.
    async fn keep(&self, book: &mut Book, definition: Definition) -> Result<(), Error> {
        // From just before it was made: a rate begins at that moment itself.
        let (now, made) = (self.clock.now(), definition.modified);
        let first = definition.next(made.checked_sub(SignedDuration::from_micros(1)).unwrap_or(made));
        let tick = first.and_then(|at| tick::tick(&definition, at));
        if let Some(tick) = tick {
            self.queue.enqueue(vec![tick], now).await?;
        }
        let value = Some(documents::write(FORMAT, &definition)?);
        self.catalog.commit(vec![Write { key: path(&definition), expect: Expect::Anything, value }]).await?;
        let replaced = book.schedules.insert(key(&definition), definition);
        metrics::gauge!("lambent_schedules").set(book.schedules.len() as f64);
        if let Some(replaced) = replaced {
            self.forget_ticks(&replaced).await;
        }
        Ok(())
    }

    async fn forget(&self, book: &mut Book, definition: &Definition) -> Result<(), Error> {
        let gone = Write { key: path(definition), expect: Expect::Anything, value: None };
        self.catalog.commit(vec![gone]).await?;
        book.schedules.remove(&key(definition));
        metrics::gauge!("lambent_schedules").set(book.schedules.len() as f64);
        self.forget_ticks(definition).await;
        Ok(())
    }

    /// Void ticks do no harm; they are forgotten so that they take no room until they are due.
    async fn forget_ticks(&self, definition: &Definition) {
        let forget = async {
            let ticks = self.ticks(Some(tick::lane(definition))).await?;
            let void = ticks.into_iter().filter(|(_, tick)| tick.generation == definition.generation);
            self.queue.forget(void.map(|(id, _)| id).collect()).await
        };
        if let Err(error) = forget.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "void ticks stay until they are due");
        }
    }

    /// Runs a schedule's target now, beside its plan; false where there is no such schedule.
    pub async fn run(&self, account: &AccountId, group: &str, name: &str) -> Result<bool, Error> {
        let book = self.book.read().await;
        let key = (account.to_string(), group.to_owned(), name.to_owned());
        let Some(definition) = book.schedules.get(&key) else { return Ok(false) };
        let now = self.clock.now();
        let events: Vec<NewEvent> = tick::event(definition, now, now).into_iter().collect();
        self.queue.enqueue(events, now).await?;
        Ok(true)
    }

    /// When a schedule runs next.
    pub async fn next(&self, account: &AccountId, group: &str, name: &str) -> Option<Timestamp> {
        let key = (account.to_string(), group.to_owned(), name.to_owned());
        self.book.read().await.schedules.get(&key)?.next(self.clock.now())
    }
}

/// The schedule of a tick that is of its present generation.
fn valid<'a>(book: &'a Book, tick: &Tick) -> Option<&'a Definition> {
    let found = book.schedules.get(&(tick.account.to_string(), tick.group.clone(), tick.name.clone()))?;
    (found.generation == tick.generation).then_some(found)
}

fn key(definition: &Definition) -> Key {
    (definition.account.to_string(), definition.group.clone(), definition.name.clone())
}

fn path(definition: &Definition) -> String {
    format!("{SCHEDULES}{}/{}/{}", definition.account, definition.group, definition.name)
}

#[cfg(test)]
mod tests;

//! Deadlines that nobody had to give: from what calls did before it is learned when their results are needed and how long they take, and
//! from that, when they must start.
//!
//! ```text
//! sketch.rs    quantiles of durations, of which the old is forgotten
//! learned.rs   needs and durations, and the latest start that follows from them; pure
//! line.rs      which call starts next, and which are held back; pure
//! keep.rs      what is learned, in the catalog
//! ```
//! [`Deadlines`] is where an invocation's end, and a caller's asking, are told. Both cost a push to a short list; a task takes what has come together
//! some milliseconds later, so that a warm invocation pays nothing for what is learned of it. While more come than the list holds
//! ([`MOST_HEARD`]), the rest are not learned from.

mod keep;
pub mod learned;
pub mod line;
pub mod sketch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambent_model::{AccountId, FunctionArn, FunctionVersion, Version};
use lambent_store::Catalog;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Directory;
use learned::{Known, Learned, Options, Plan, Site, Wanted, What};

/// What may have come together before it is learned from.
pub const MOST_HEARD: usize = 4_096;
/// How long it comes together.
const GATHER: Duration = Duration::from_millis(50);
/// How often what has changed is written.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// Something that happened.
#[derive(Debug)]
enum Heard {
    Ran { version: Arc<FunctionVersion>, took: Duration },
    Needed { caller: Arc<FunctionVersion>, site: Arc<Site>, after: Duration },
}

/// A need or a duration, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// ARN of the function it is of: the caller of a site.
    pub function: String,
    /// Its version.
    pub version: String,
    /// The place in its code; none: this is the version's duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// ARN of the function called from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// What is counted on, in milliseconds: a low quantile of needs, a high one of durations.
    pub expected_ms: f64,
    /// The middle.
    pub median_ms: f64,
    /// Notes ever.
    pub count: u64,
    /// Whether they are enough to be counted on.
    pub is_used: bool,
}

/// What is learned, kept and told.
pub struct Deadlines {
    learned: Mutex<Learned>,
    heard: Mutex<Vec<Heard>>,
    /// Told when the list is empty no longer.
    hears: Notify,
    catalog: Arc<dyn Catalog>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadlines").finish_non_exhaustive()
    }
}

impl Deadlines {
    /// Takes up what an earlier process has learned.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        directory: &dyn Directory,
        options: Options,
    ) -> Result<Arc<Self>, lambent_store::Error> {
        let mut learned = Learned::new(options);
        keep::read(catalog.as_ref(), directory, &mut learned).await?;
        let deadlines = Arc::new(Self {
            learned: Mutex::new(learned),
            heard: Mutex::default(),
            hears: Notify::new(),
            catalog,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        deadlines.tasks.spawn(Arc::clone(&deadlines).listen());
        deadlines.tasks.spawn(Arc::clone(&deadlines).write_behind());
        Ok(deadlines)
    }

    /// Learns from what has come together, and writes what has changed.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.learn();
        while self.write().await {}
    }

    /// An invocation was answered, so long after it was given its place.
    pub(crate) fn ran(&self, version: &Arc<FunctionVersion>, took: Duration) {
        self.hear(Heard::Ran { version: Arc::clone(version), took });
    }

    /// A call's result was asked for, so long after its start; or its caller has ended and never asked.
    pub(crate) fn needed(&self, caller: &Arc<FunctionVersion>, site: &Arc<Site>, after: Duration) {
        self.hear(Heard::Needed { caller: Arc::clone(caller), site: Arc::clone(site), after });
    }

    fn hear(&self, what: Heard) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= MOST_HEARD {
            return;
        }
        heard.push(what);
        if heard.len() == 1 {
            drop(heard);
            self.hears.notify_one();
        }
    }

    /// When a call is needed, and must start.
    pub(crate) fn plan(&self, wanted: Wanted<'_>) -> Plan {
        self.learned().plan(wanted)
    }

    /// When a version must start at the latest, so that its answer is there at `deadline`.
    pub(crate) fn latest_start(&self, function: &FunctionArn, version: Version, now: i64, deadline: i64) -> i64 {
        self.learned().latest_start(function, version, now, deadline)
    }

    /// Forgets a function that is no more.
    pub async fn forget(&self, function: &FunctionArn) {
        // What has come together may be about it.
        self.learn();
        self.learned().forget(function);
        while self.write().await {}
    }

    /// What is known of an account's functions, or of one of them.
    pub fn show(&self, account: &AccountId, function: Option<&FunctionArn>) -> Vec<Shown> {
        let learned = self.learned();
        let least = learned.options().least;
        let known = learned.known();
        let wanted = known.iter().filter(|known| {
            known.function.account == *account && function.is_none_or(|function| known.function == function)
        });
        wanted.map(|known| shown(known, least)).collect()
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>) {
        while self.stop.run_until_cancelled(self.hears.notified()).await.is_some() {
            tokio::time::sleep(GATHER).await;
            self.learn();
        }
    }

    fn learn(&self) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        // Whoever plans a call waits for no more than one of these.
        for what in heard {
            match what {
                Heard::Ran { version, took } => self.learned().ran(&version.arn, version.version, took),
                Heard::Needed { caller, site, after } => self.learned().needed(&caller.arn, &site, after),
            }
        }
    }

    async fn write_behind(self: Arc<Self>) {
        while self.stop.run_until_cancelled(tokio::time::sleep(WRITE_EVERY)).await.is_some() {
            self.write().await;
        }
    }

    /// Writes some of what has changed; whether there may be more.
    async fn write(&self) -> bool {
        let (changed, writes) = {
            let mut learned = self.learned();
            let changed = learned.take_changed(keep::MOST_AT_ONCE);
            let writes = keep::writes(&learned, &changed);
            (changed, writes)
        };
        if writes.is_empty() {
            return false;
        }
        let is_full = writes.len() == keep::MOST_AT_ONCE;
        match self.catalog.commit(writes).await {
            Ok(_) => is_full,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what was learned of calls cannot be written");
                self.learned().still_changed(changed);
                false
            }
        }
    }
}

fn shown(known: &Known<'_>, least: u64) -> Shown {
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (version, site, callee) = match known.what {
        What::Duration(version) => (version, None, None),
        What::Need(site) => (site.version, Some(site.site.clone()), Some(site.callee.to_string())),
    };
    Shown {
        function: known.function.to_string(),
        version: version.to_string(),
        site,
        callee,
        expected_ms: millis(known.expected),
        median_ms: millis(known.median),
        count: known.count,
        is_used: known.count >= least,
    }
}

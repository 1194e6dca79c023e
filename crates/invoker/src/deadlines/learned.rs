//! What is known of calls: when their results are needed, and how long they take; and the latest start that follows from it.
//!
//! Pure: times are microseconds of whatever clock the caller has, and nothing is read or written. [`super::Deadlines`] keeps it on disk.
//!
//! Two things are learned, each a [`Sketch`]:
//!
//! - the **need** of a site: how long after a call's start its result was asked for, for each version of a calling function, place in its code, and
//!   function called. Asked for after it was there counts as well as before: either way that was when it was needed. A call that was never asked
//!   for was needed, if at all, until its caller ended.
//! - the **duration** of each version of a function: from the place it was given until its answer began, with a cold start where there was one.
//!
//! ```text
//! deadline      what the call says, else its start and a low quantile of the site's needs, else none: it is needed now
//! latest start  the deadline less a high quantile of the duration and a margin; not before now
//! ```
//! Too little is known until [`Options::least`] were noted, of either; then a call is needed now, as if nothing were learned at all. Nor can a deadline bring
//! a call ahead of others: whatever it says, it waits behind all that had to start before it came.
//!
//! Bounded: [`MOST`] sketches, and [`MOST_OF_FUNCTION`] needs, and as many durations, of one function; beyond it those go that were not used for the
//! longest. So a function that makes up sites pushes out its own. What belongs to a function goes when it is deleted ([`Learned::forget`]).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use lambent_model::{FunctionArn, Version};
use serde::{Deserialize, Serialize};

use super::sketch::Sketch;

/// Sketches of all functions.
pub const MOST: usize = 8_192;
/// Needs that are known of one calling function, and durations of its versions.
pub const MOST_OF_FUNCTION: usize = 256;

/// How cautious it is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The share of a site's needs that are expected to be no earlier: its complement.
    pub need_quantile: f64,
    /// The share of durations that are expected to be no longer.
    pub duration_quantile: f64,
    /// What a start takes, and then some.
    pub margin: Duration,
    /// Notes below which too little is known.
    pub least: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { need_quantile: 0.1, duration_quantile: 0.9, margin: Duration::from_millis(10), least: 8 }
    }
}

/// Where calls come from and go to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    /// The version that calls.
    pub version: Version,
    /// The place in its code; empty where it does not say.
    pub site: String,
    /// The function called.
    pub callee: FunctionArn,
}

/// What is to be planned.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Who calls.
    pub caller: &'a FunctionArn,
    /// From where, and whom.
    pub site: &'a Site,
    /// The version that will run.
    pub callee_version: Version,
    /// The time.
    pub now: i64,
    /// When the result is needed, where the call says so.
    pub deadline: Option<i64>,
}

/// When a call should start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// At the latest, if its deadline is to hold.
    pub latest: i64,
    /// When its result is needed; none: nobody knows, so now.
    pub deadline: Option<i64>,
}

/// A sketch, and when it was last used.
#[derive(Debug, Default)]
struct Entry {
    sketch: Sketch,
    used: u64,
}

/// Of one function.
#[derive(Debug, Default)]
struct Function {
    needs: HashMap<Site, Entry>,
    durations: HashMap<Version, Entry>,
}

/// As it is kept of one function.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub needs: Vec<(Site, Sketch)>,
    pub durations: Vec<(Version, Sketch)>,
}

/// All that is known.
#[derive(Debug)]
pub struct Learned {
    options: Options,
    functions: HashMap<FunctionArn, Function>,
    /// Functions of which more is known than when this was last asked for.
    changed: BTreeSet<FunctionArn>,
    sketches: usize,
    /// Counts uses.
    turn: u64,
}

/// A need or a duration, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<'a> {
    /// The function it is of: the caller of a site.
    pub function: &'a FunctionArn,
    /// What it is.
    pub what: What<'a>,
    /// The low quantile of needs, the high one of durations.
    pub expected: Duration,
    /// The middle.
    pub median: Duration,
    /// Notes ever.
    pub count: u64,
}

/// What is known of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What<'a> {
    /// When results are needed.
    Need(&'a Site),
    /// How long this version runs.
    Duration(Version),
}

impl Learned {
    /// Nothing.
    pub fn new(options: Options) -> Self {
        Self { options, functions: HashMap::new(), changed: BTreeSet::new(), sketches: 0, turn: 0 }
    }

    /// How cautious it is.
    pub fn options(&self) -> Options {
        self.options
    }

    /// A result was asked for so long after its call was started; or its caller ended then, and nobody had asked.
    pub fn needed(&mut self, caller: &FunctionArn, site: &Site, after: Duration) {
        self.turn += 1;
        let turn = self.turn;
        let function = self.functions.entry(caller.clone()).or_default();
        self.sketches += usize::from(note(&mut function.needs, site, after, turn));
        self.note_change(caller);
    }

    /// A version ran for so long.
    pub fn ran(&mut self, function: &FunctionArn, version: Version, took: Duration) {
        self.turn += 1;
        let turn = self.turn;
        let of = self.functions.entry(function.clone()).or_default();
        self.sketches += usize::from(note(&mut of.durations, &version, took, turn));
        self.note_change(function);
    }

    fn note_change(&mut self, function: &FunctionArn) {
        if !self.changed.contains(function) {
            self.changed.insert(function.clone());
        }
        self.bound(function);
    }

    /// When a call is needed, and must start.
    pub fn plan(&mut self, wanted: Wanted<'_>) -> Plan {
        self.turn += 1;
        let Options { need_quantile, least, .. } = self.options;
        let need = self.functions.get_mut(wanted.caller).and_then(|function| function.needs.get_mut(wanted.site));
        let turn = self.turn;
        let need = need.and_then(|entry| entry.ask(need_quantile, least, turn));
        let deadline = wanted.deadline.or_else(|| Some(wanted.now.saturating_add(micros(need?))));
        let latest = match deadline {
            Some(deadline) => self.latest_start(&wanted.site.callee, wanted.callee_version, wanted.now, deadline),
            None => wanted.now,
        };
        Plan { latest, deadline }
    }

    /// When a version must start at the latest, so that its answer is there at `deadline`; now, where too little is known of it.
    pub fn latest_start(&mut self, function: &FunctionArn, version: Version, now: i64, deadline: i64) -> i64 {
        let Options { duration_quantile, margin, least, .. } = self.options;
        let entry = self.functions.get_mut(function).and_then(|function| function.durations.get_mut(&version));
        match entry.and_then(|entry| entry.ask(duration_quantile, least, self.turn)) {
            Some(expected) => deadline.saturating_sub(micros(expected)).saturating_sub(micros(margin)).max(now),
            None => now,
        }
    }

    /// Forgets a function: its versions, its sites, and the sites from which it is called.
    pub fn forget(&mut self, function: &FunctionArn) {
        if let Some(gone) = self.functions.remove(function) {
            self.sketches -= gone.needs.len() + gone.durations.len();
            self.changed.insert(function.clone());
        }
        for (caller, of) in &mut self.functions {
            let before = of.needs.len();
            of.needs.retain(|site, _| site.callee != *function);
            if of.needs.len() < before {
                self.sketches -= before - of.needs.len();
                self.changed.insert(caller.clone());
            }
        }
    }

    /// All that is known, in order.
    pub fn known(&self) -> Vec<Known<'_>> {
        let Options { need_quantile, duration_quantile, .. } = self.options;
        let known = |function, what, sketch: &Sketch, share| {
            Some(Known {
                function,
                what,
                expected: sketch.quantile(share)?,
                median: sketch.quantile(0.5)?,
                count: sketch.count(),
            })
        };
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.sort_by_key(|(arn, _)| *arn);
        let mut all = Vec::with_capacity(self.sketches);
        for (arn, function) in functions {
            let mut durations: Vec<_> = function.durations.iter().collect();
            durations.sort_by_key(|(version, _)| **version);
            let each = durations.into_iter();
            all.extend(
                each.filter_map(|(version, entry)| {
                    known(arn, What::Duration(*version), &entry.sketch, duration_quantile)
                }),
            );
            let mut needs: Vec<_> = function.needs.iter().collect();
            needs.sort_by_key(|(site, _)| *site);
            let each = needs.into_iter();
            all.extend(each.filter_map(|(site, entry)| known(arn, What::Need(site), &entry.sketch, need_quantile)));
        }
        all
    }

    /// The functions of which something has changed since this was last asked, at most so many.
    pub(crate) fn take_changed(&mut self, most: usize) -> Vec<FunctionArn> {
        let mut changed = std::mem::take(&mut self.changed).into_iter();
        let taken = changed.by_ref().take(most).collect();
        self.changed.extend(changed);
        taken
    }

    /// It could not be written after all.
    pub(crate) fn still_changed(&mut self, functions: impl IntoIterator<Item = FunctionArn>) {
        self.changed.extend(functions);
    }

    /// What is to be kept of a function; none: nothing is known of it.
    pub(crate) fn kept(&self, function: &FunctionArn) -> Option<Kept> {
        let function = self.functions.get(function)?;
        let needs = function.needs.iter().map(|(site, entry)| (site.clone(), entry.sketch.clone())).collect();
        let durations = function.durations.iter().map(|(version, entry)| (*version, entry.sketch.clone())).collect();
        Some(Kept { needs, durations })
    }

    /// Takes up what was kept.
    pub(crate) fn restore(&mut self, function: FunctionArn, kept: Kept) {
        let room = MOST.saturating_sub(self.sketches);
        // Nobody knows any more which was used last.
        let mut entry = |sketch| {
            self.turn += 1;
            Entry { sketch, used: self.turn }
        };
        let needs = kept.needs.into_iter().take(MOST_OF_FUNCTION.min(room));
        let needs: HashMap<_, _> = needs.map(|(site, sketch)| (site, entry(sketch))).collect();
        let durations = kept.durations.into_iter().take(MOST_OF_FUNCTION.min(room.saturating_sub(needs.len())));
        let durations: HashMap<_, _> = durations.map(|(version, sketch)| (version, entry(sketch))).collect();
        self.sketches += needs.len() + durations.len();
        if let Some(before) = self.functions.insert(function, Function { needs, durations }) {
            self.sketches -= before.needs.len() + before.durations.len();
        }
    }

    /// Keeps to the bounds, after one more is known of `function`.
    fn bound(&mut self, function: &FunctionArn) {
        if let Some(of) = self.functions.get_mut(function) {
            let too_many = |count: usize| count > MOST_OF_FUNCTION;
            let oldest = |entries: &mut dyn Iterator<Item = u64>| nth_oldest(entries.collect(), MOST_OF_FUNCTION / 8);
            let before = of.needs.len() + of.durations.len();
            if too_many(of.needs.len()) {
                let until = oldest(&mut of.needs.values().map(|entry| entry.used));
                of.needs.retain(|_, entry| entry.used > until);
            }
            if too_many(of.durations.len()) {
                let until = oldest(&mut of.durations.values().map(|entry| entry.used));
                of.durations.retain(|_, entry| entry.used > until);
            }
            self.sketches -= before - of.needs.len() - of.durations.len();
        }
        if self.sketches > MOST {
            self.drop_oldest();
        }
    }

    /// An eighth goes at once, so that what is looked through to find it is so seldom.
    fn drop_oldest(&mut self) {
        let used = |function: &Function| -> Vec<u64> {
            let needs = function.needs.values().map(|entry| entry.used);
            needs.chain(function.durations.values().map(|entry| entry.used)).collect()
        };
        let until = nth_oldest(self.functions.values().flat_map(used).collect(), MOST / 8);
        for (arn, function) in &mut self.functions {
            let before = function.needs.len() + function.durations.len();
            function.needs.retain(|_, entry| entry.used > until);
            function.durations.retain(|_, entry| entry.used > until);
            let dropped = before - function.needs.len() - function.durations.len();
            if dropped > 0 {
                self.sketches -= dropped;
                self.changed.insert(arn.clone());
            }
        }
        self.functions.retain(|_, function| !function.needs.is_empty() || !function.durations.is_empty());
    }
}

impl Entry {
    /// A quantile, where enough is known.
    fn ask(&mut self, share: f64, least: u64, turn: u64) -> Option<Duration> {
        self.used = turn;
        if self.sketch.count() < least { None } else { self.sketch.quantile(share) }
    }
}

/// Notes a duration; whether that is the first of its key.
fn note<K: Hash + Eq + Clone>(entries: &mut HashMap<K, Entry>, key: &K, duration: Duration, turn: u64) -> bool {
    if let Some(entry) = entries.get_mut(key) {
        entry.sketch.note(duration);
        entry.used = turn;
        return false;
    }
    let mut entry = Entry { used: turn, ..Entry::default() };
    entry.sketch.note(duration);
    entries.insert(key.clone(), entry);
    true
}

/// The last use of the `n`th of those that were not used for the longest.
fn nth_oldest(mut used: Vec<u64>, n: usize) -> u64 {
    if used.is_empty() {
        return 0;
    }
    let at = n.min(used.len() - 1);
    *used.select_nth_unstable(at).1
}

/// A duration, as all times here are.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "learned_tests.rs"]
mod tests;

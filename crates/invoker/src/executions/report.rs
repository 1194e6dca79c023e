//! Dependencies that code reports while it runs: what it is about to read, and could not have been declared.
//!
//! ```text
//! run begins ──► under way ──report──► looked at ──► answered: now the code reads ──► run ends: kept beside the declared ones
//!                               └────► cannot be looked at, or was refused: the record of this run is never reused
//! ```
//! The state is taken between the report and its answer, the code reads after that, and after the run it is looked at again, as all others are.
//! The first state counts; what is declared as well keeps the one from before the run.
//!
//! Reports find their run by the id of the request it is of. Those of runs that keep no dependencies find none, and are ignored.
//!
//! What bounds it: [`MAX_REPORTED`] for each run, the length of a dependency's text, and the time of a look. HTTP resources and objects are
//! not looked at for functions without a network: their code would reach with the node's hands what it may not reach itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lambent_model::function::Network;
use lambent_model::idempotency::{self, MAX_REPORTED, Resource};
use lambent_model::{FunctionVersion, RequestId};

use super::Executions;
use super::depending::{States, Wanted};
use super::inspect::Unknown;

/// Why a report was refused. The record of its run is not reused: what it was about is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of them is no dependency.
    #[error(transparent)]
    Dependency(#[from] idempotency::Error),
    /// They are too many.
    #[error("With these the invocation would have reported {count} dependencies; it may report {MAX_REPORTED}")]
    TooMany {
        /// So many there would be.
        count: usize,
    },
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// Nothing: dependencies are not kept of this run.
    Ignored,
    /// It is part of the record. What could not be looked at, and why, is here: with it the record is not reused.
    Noted(Vec<(String, Unknown)>),
}

/// Runs whose dependencies are kept.
#[derive(Default)]
pub(super) struct Reports(Arc<Mutex<HashMap<RequestId, Arc<Run>>>>);

/// One run.
struct Run {
    version: Arc<FunctionVersion>,
    /// What is declared; looked at before.
    declared: BTreeSet<String>,
    noted: Mutex<Noted>,
}

/// What a run has reported.
#[derive(Default)]
pub(super) struct Noted {
    pub states: States,
    /// A report was refused.
    pub is_cut_short: bool,
}

/// The right to have a run's reports, which are over with it.
pub(super) struct UnderWay {
    runs: Arc<Mutex<HashMap<RequestId, Arc<Run>>>>,
    request: RequestId,
    run: Arc<Run>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reports {
    /// Takes reports for this run from now on.
    pub fn begin(&self, request: RequestId, version: Arc<FunctionVersion>, declared: &Wanted) -> UnderWay {
        let declared = declared.keys().cloned().collect();
        let run = Arc::new(Run { version, declared, noted: Mutex::default() });
        lock(&self.0).insert(request, run.clone());
        UnderWay { runs: self.0.clone(), request, run }
    }

    fn find(&self, request: &RequestId) -> Option<Arc<Run>> {
        lock(&self.0).get(request).cloned()
    }
}

impl UnderWay {
    /// Ends it: what was reported.
    pub fn end(self) -> Noted {
        std::mem::take(&mut *lock(&self.run.noted))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut runs = lock(&self.runs);
        if runs.get(&self.request).is_some_and(|run| Arc::ptr_eq(run, &self.run)) {
            runs.remove(&self.request);
        }
    }
}

/// The state of what is being looked at: until that is known nothing is, should the run end meanwhile.
const LOOKING: &str = "the function answered before it was looked at";

impl Run {
    /// What of `resources` has to be looked at. They are noted from now on.
    fn note(&self, resources: Vec<Resource>) -> Result<Wanted, Error> {
        let mut noted = lock(&self.noted);
        let mut named: BTreeMap<String, Resource> =
            resources.into_iter().map(|resource| (resource.to_string(), resource)).collect();
        named.retain(|name, _| !self.declared.contains(name));
        let count = noted.states.len() + named.keys().filter(|name| !noted.states.contains_key(*name)).count();
        if count > MAX_REPORTED {
            noted.is_cut_short = true;
            return Err(Error::TooMany { count });
        }
        let looking = || Err(Unknown(LOOKING.to_owned()));
        let mut wanted = Wanted::new();
        for (name, resource) in named {
            let state = noted.states.entry(name.clone()).or_insert_with(looking);
            if let Err(problem) = self.check(&resource) {
                *state = Err(problem);
            } else if *state == looking() {
                // Also where an earlier report still waits: whoever reports must not read before a look that it waited for.
                wanted.insert(name, Some(resource));
            }
        }
        Ok(wanted)
    }

    fn check(&self, resource: &Resource) -> Result<(), Unknown> {
        match (resource, self.version.network) {
            (Resource::Http(_) | Resource::S3 { .. }, Network::None) => {
                Err(Unknown("the function has no network, so the node does not go there for its code".to_owned()))
            }
            (Resource::Http(_) | Resource::S3 { .. }, Network::Internet) => Ok(()),
            (Resource::File(_) | Resource::Function { .. } | Resource::Rows { .. }, _) => Ok(()),
        }
    }

    /// Keeps what was found, and tells what of `names` is not known.
    fn found(&self, found: States, names: &[String]) -> Vec<(String, Unknown)> {
        let mut noted = lock(&self.noted);
        for (name, state) in found {
            let Some(kept) = noted.states.get_mut(&name) else { continue };
            *kept = match (&*kept, state) {
                (Err(Unknown(why)), state) if why == LOOKING => state,
                // Two reports at once that saw different things: there is no telling which of them the code read.
                (Ok(first), Ok(second)) if *first != second => Err(Unknown("it changed during the run".to_owned())),
                (first, _) => first.clone(),
            };
        }
        let unknown = |name: &String| Some((name.clone(), noted.states.get(name)?.clone().err()?));
        names.iter().filter_map(unknown).collect()
    }
}

impl Executions {
    /// The code that runs for `request` is about to read what `names` name. Comes back when their states are known, or known not to be.
    pub async fn report(&self, request: RequestId, names: &[String]) -> Result<Reported, Error> {
        let run = self.reports.find(&request);
        let read: Result<Vec<Resource>, _> = names.iter().take(MAX_REPORTED + 1).map(|name| name.parse()).collect();
        let resources = match read {
            Ok(resources) if names.len() <= MAX_REPORTED => resources,
            refused => {
                self.misreported(request);
                return Err(refused.err().map_or(Error::TooMany { count: names.len() }, Error::Dependency));
            }
        };
        let Some(run) = run else { return Ok(Reported::Ignored) };
        let came = self.looks.come();
        let names: Vec<String> = resources.iter().map(Resource::to_string).collect();
        let wanted = run.note(resources)?;
        let seen = self.look(&run.version.arn, &wanted, came).await;
        Ok(Reported::Noted(run.found(seen.states, &names)))
    }

    /// The code that runs for `request` has tried to report something that nobody understands.
    pub fn misreported(&self, request: RequestId) {
        if let Some(run) = self.reports.find(&request) {
            lock(&run.noted).is_cut_short = true;
        }
    }
}

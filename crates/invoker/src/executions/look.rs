//! What people see of execution records, and do about them.

use jiff::Timestamp;
use lambent_model::idempotency::Mode;
use lambent_model::{AccountId, FunctionArn, FunctionRef, Qualifier, Version};
use lambent_store::records::{Owner, Query, Record, RecordId};
use serde::Serialize;

use super::Executions;
use super::depending::Wanted;
use super::inspect::State;
use super::record::Meta;
use crate::Error;

/// Most records of a page.
const PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;

/// Which records.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of the function with this ARN.
    pub function: Option<String>,
    /// Only those with a greater id.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// A record, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// Its id.
    pub id: u64,
    /// ARN of the function.
    pub function: String,
    /// The version that ran.
    pub version: String,
    /// `key` or `dependencies`.
    pub mode: Mode,
    /// The key, in mode `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `finished`, `started` or `expired`.
    pub state: &'static str,
    /// How often it was begun; more than once: a process ended before it did.
    pub turns: u32,
    /// The request that ran.
    pub request_id: String,
    /// SHA-256 of what it got.
    pub payload: String,
    /// SHA-256 of the code that ran.
    pub code: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Until when it counts.
    pub expires_at: Timestamp,
    /// Whether the answer is an error of the function.
    pub is_error: bool,
    /// Size of the answer.
    pub answer_bytes: u64,
    /// What it depends on beside code, configuration and input, as it was.
    pub dependencies: std::collections::BTreeMap<String, Option<State>>,
}

/// Whether a record would be used now, and what speaks for and against it.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// The record.
    pub record: Described,
    /// Whether the next request that is the same gets its answer.
    pub is_reusable: bool,
    /// In a sentence.
    pub because: String,
    /// Each dependency.
    pub dependencies: Vec<Difference>,
}

/// How a dependency came to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Every execution depends on its code and configuration.
    Own,
    /// The function's setting names it.
    Declared,
    /// Its code reported it while it ran.
    Reported,
}

/// A dependency then and now.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// What it is.
    pub name: String,
    /// Who says so.
    pub origin: Origin,
    /// As recorded; none: it could not be told.
    pub recorded: Option<State>,
    /// As it is.
    pub current: Option<State>,
    /// Why that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether they are the same.
    pub is_unchanged: bool,
}

impl Executions {
    /// Records of `account`, oldest first.
    pub async fn list(&self, account: &AccountId, filter: Filter) -> Result<Vec<Described>, Error> {
        let query = Query {
            account: Some(account.to_string()),
            function: filter.function,
            after: filter.after.map(RecordId),
            limit: filter.limit.unwrap_or(DEFAULT_PAGE).min(PAGE),
        };
        let (found, now) = (self.records.list(query).await?, self.clock.now());
        Ok(found.iter().filter_map(|record| described(record, now)).collect())
    }

    /// One record, and its answer.
    pub async fn show(&self, account: &AccountId, id: u64) -> Result<Option<(Described, Option<bytes::Bytes>)>, Error> {
        let found = self.records.get(RecordId(id)).await?.filter(|(record, _)| record.account == account.as_str());
        Ok(found.and_then(|(record, answer)| Some((described(&record, self.clock.now())?, answer))))
    }

    /// Whether, and why, a record would be used now.
    pub async fn why(&self, account: &AccountId, id: u64) -> Result<Option<Reason>, Error> {
        let found = self.records.get(RecordId(id)).await?.filter(|(record, _)| record.account == account.as_str());
        let Some((record, _)) = found else { return Ok(None) };
        let (Some(record), Some(meta)) = (described(&record, self.clock.now()), Meta::read(&record)) else {
            return Ok(None);
        };
        let Ok(arn) = record.function.parse::<FunctionRef>().map(|named| named.resolve(account, &Default::default()))
        else {
            return Ok(None);
        };
        let mut dependencies = vec![self.own(&arn, &meta)];
        dependencies.extend(self.others(&arn, &meta).await);
        let changed: Vec<&str> =
            dependencies.iter().filter(|each| !each.is_unchanged).map(|each| each.name.as_str()).collect();
        let (is_reusable, because) = match (record.state, meta.mode, changed.as_slice()) {
            ("expired", ..) => (false, "its time is over".to_owned()),
            ("started", ..) => (false, "it has no answer yet".to_owned()),
            (_, Mode::Key, _) => (true, "its key counts until it expires".to_owned()),
            _ if meta.is_cut_short => (false, "a report of dependencies by its code was refused".to_owned()),
            (.., []) => (true, "nothing has changed".to_owned()),
            (.., changed) => (false, format!("changed, or not to be told: {}", changed.join(", "))),
        };
        Ok(Some(Reason { record, is_reusable, because, dependencies }))
    }

    /// Forgets a record; false where there is none.
    pub async fn discard(&self, account: &AccountId, id: u64) -> Result<bool, Error> {
        match self.records.get(RecordId(id)).await? {
            Some((record, _)) if record.account == account.as_str() => {
                self.forget(vec![record.id]).await.map(|n| n > 0)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Forgets all records of a function; returns how many there were.
    pub async fn purge(&self, account: &AccountId, function: String) -> Result<u64, Error> {
        let mut dropped = 0;
        loop {
            let query = Query {
                account: Some(account.to_string()),
                function: Some(function.clone()),
                after: None,
                limit: PAGE,
            };
            let ids: Vec<RecordId> = self.records.list(query).await?.iter().map(|record| record.id).collect();
            if ids.is_empty() {
                return Ok(dropped);
            }
            dropped += self.forget(ids).await?;
        }
    }

    /// Forgets all records of functions that are no more; returns how many there were. For the start, before anything is
    /// served: a process may end between the deletion of a function and that of its records, and a function of the same name
    /// must not find them.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let (mut dropped, mut after) = (0, None);
        loop {
            let owners = self.records.owners(after, PAGE).await?;
            let Some(last) = owners.last() else { return Ok(dropped) };
            after = Some(last.clone());
            for Owner { account, function } in owners.into_iter().filter(|owner| self.is_gone(owner)) {
                if let Ok(account) = account.parse() {
                    dropped += self.purge(&account, function).await?;
                }
            }
        }
    }

    /// What cannot be read names no function that can be known to be gone.
    fn is_gone(&self, owner: &Owner) -> bool {
        let (Ok(account), Ok(named)) = (owner.account.parse(), owner.function.parse::<FunctionRef>()) else {
            return false;
        };
        let arn = named.resolve(&account, &Default::default());
        arn.to_string() == owner.function
            && matches!(self.directory.resolve(&arn, None), Err(lambent_registry::Error::ResourceNotFound(_)))
    }

    async fn forget(&self, ids: Vec<RecordId>) -> Result<u64, Error> {
        self.hot.forget(&ids);
        let count = self.records.forget(ids.clone()).await?;
        // Somebody may have read it from disk in between.
        self.hot.forget(&ids);
        Ok(count)
    }

    /// The function's own code and configuration, which every record depends on.
    fn own(&self, arn: &FunctionArn, meta: &Meta) -> Difference {
        let qualifier = match meta.version {
            Version::Latest => None,
            version @ Version::Published(_) => Some(Qualifier::Version(version)),
        };
        let recorded = State::Generation(meta.generation);
        let current = self.directory.resolve(arn, qualifier.as_ref());
        let (current, problem) = match current {
            Ok(resolved) => (Some(State::Generation(resolved.version.generation)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_unchanged = current.as_ref() == Some(&recorded);
        let name = "code and configuration".to_owned();
        Difference { name, origin: Origin::Own, recorded: Some(recorded), current, problem, is_unchanged }
    }

    async fn others(&self, arn: &FunctionArn, meta: &Meta) -> Vec<Difference> {
        let wanted: Wanted = meta.dependencies.keys().map(|name| (name.clone(), name.parse().ok())).collect();
        let mut states = self.look(arn, &wanted, self.looks.come()).await.states;
        let each = meta.dependencies.iter().map(|(name, recorded)| {
            let (current, problem) = match states.remove(name) {
                Some(Ok(state)) => (Some(state), None),
                Some(Err(unknown)) => (None, Some(unknown.to_string())),
                None => (None, None),
            };
            let is_unchanged = recorded.is_some() && *recorded == current;
            let origin = if meta.reported.contains(name) { Origin::Reported } else { Origin::Declared };
            Difference { name: name.clone(), origin, recorded: recorded.clone(), current, problem, is_unchanged }
        });
        each.collect()
    }
}

fn described(record: &Record, now: Timestamp) -> Option<Described> {
    let meta = Meta::read(record)?;
    let state = match record.finished {
        _ if record.expires <= now => "expired",
        Some(_) => "finished",
        None => "started",
    };
    Some(Described {
        id: record.id.0,
        function: record.function.clone(),
        version: meta.version.to_string(),
        mode: meta.mode,
        key: meta.key,
        state,
        turns: record.turn,
        request_id: meta.request_id.to_string(),
        payload: meta.payload,
        code: meta.code.to_string(),
        started_at: record.started,
        finished_at: record.finished,
        expires_at: record.expires,
        is_error: meta.is_error,
        answer_bytes: record.answer_bytes,
        dependencies: meta.dependencies,
    })
}

//! `dependencies`: an answer counts as long as nothing has changed that it depends on.
//!
//! ```text
//! states ──► run, its code reports (`report.rs`) and reads ──► states again ──► the same: the record counts
//!                                                                          └──► changed, or not to be told: it never does
//! ```
//! The states are taken before the run, those of what its code reports before the code reads, and once more after it: else a change that comes
//! before the read and is taken back later would leave a record of the states before it, with an answer from between.
//! What was reported is looked at for the next request as well as what is declared. Who waits for another's run takes its answer only after
//! a look that began after it came, which may be the one behind that run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use lambent_model::idempotency::{Idempotency, Mode, Resource};
use lambent_model::{FunctionArn, FunctionVersion};
use lambent_store::records::NewRecord;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::task::JoinSet;

use super::digest::{self, Key};
use super::flight::{Joined, Lead};
use super::inspect::{State, Unknown};
use super::looks::{Looked, Turn};
use super::record::{Kept, Meta};
use super::{Done, Executions, Request, Run, buffered, whole};
use crate::Error;
use crate::invoke::Answer;

/// How often a request waits for another's run that turns out old; then it runs by itself.
const ROUNDS: usize = 4;

/// What a request depends on, by its text. A dependency that this payload gives no sense to has no resource.
pub(super) type Wanted = BTreeMap<String, Option<Resource>>;
/// What that is now.
pub(super) type States = BTreeMap<String, Result<State, Unknown>>;

/// States, and when they were.
pub(super) struct Seen {
    pub states: States,
    pub looked: Looked,
}

/// What a request's setting makes of its payload.
struct Sense {
    key: Key,
    wanted: Wanted,
}

fn sense(request: &Request) -> Sense {
    let Request { resolved, invocation, setting } = request;
    let needs_payload = !setting.input.is_empty() || setting.on.iter().any(|dependency| dependency.needs_payload());
    let payload: Option<Value> = needs_payload.then(|| serde_json::from_slice(&invocation.payload).ok()).flatten();
    let input = request.input(payload.as_ref());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (context, identity) = (text(&invocation.client_context), text(&invocation.cognito_identity));
    let version = &resolved.version;
    let (function, number, tenant) = (version.arn.to_string(), version.version.to_string(), text(&invocation.tenant));
    let parts = [&function, &number, &tenant, &context, &identity].map(|part| part.as_bytes());
    let key = digest::of([b"dependencies".as_slice(), &input].into_iter().chain(parts));
    Sense { key, wanted: wanted(setting, payload.as_ref().unwrap_or(&Value::Null)) }
}

fn wanted(setting: &Idempotency, payload: &Value) -> Wanted {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let named = setting.on.iter().map(|dependency| match dependency.of(payload, encode) {
        Some(resource) => (resource.to_string(), Some(resource)),
        None => (dependency.as_str().to_owned(), None),
    });
    named.collect()
}

/// Whether a record is of this code and configuration, and of these declared dependencies.
fn is_of(meta: &Meta, version: &FunctionVersion, wanted: &Wanted) -> bool {
    meta.generation == version.generation && meta.is_checked() && meta.declared().eq(wanted.keys())
}

/// What an execution depends on: what is declared, and what its code reported.
fn all(wanted: &Wanted, reported: &BTreeSet<String>) -> Wanted {
    let reported = reported.iter().map(|name| (name.clone(), name.parse().ok()));
    wanted.iter().map(|(name, resource)| (name.clone(), resource.clone())).chain(reported).collect()
}

/// Whether all is as it was.
fn is_as_it_was(meta: &Meta, states: &States) -> bool {
    let mut pairs = meta.dependencies.values().zip(states.values());
    meta.dependencies.keys().eq(states.keys())
        && pairs.all(|(was, is)| was.is_some() && was.as_ref() == is.as_ref().ok())
}

impl Executions {
    pub(super) async fn depending(self: &Arc<Self>, runner: Arc<dyn Run>, request: Request) -> Result<Answer, Error> {
        let came = self.looks.come();
        let Sense { key, wanted } = sense(&request);
        let (asked, fresh) = (request.asked(), SignedDuration::from_millis(request.setting.fresh_ms.into()));
        let version = request.resolved.version.clone();
        for _ in 0..ROUNDS {
            let mut seen = None;
            let found = self.candidate(&key).await?;
            let before = found.as_ref().map(|(kept, _)| kept.id);
            if let Some((kept, looked)) = found.filter(|(kept, _)| is_of(&kept.meta, &version, &wanted)) {
                let now = self.clock.now();
                let is_fresh = kept.meta.dependencies.is_empty()
                    || looked.turn > came
                    || (looked.at <= now && now.duration_since(looked.at) < fresh);
                if !is_fresh {
                    seen = Some(self.look(&version.arn, &all(&wanted, &kept.meta.reported), came).await);
                }
                if is_fresh || seen.as_ref().is_some_and(|seen| is_as_it_was(&kept.meta, &seen.states)) {
                    if let Some(Seen { looked, .. }) = seen {
                        self.hot.looked(&key, kept.id, looked);
                    }
                    return Ok(self.reused_from(&kept, &asked));
                }
            }
            match self.flights.join(key, "") {
                Joined::Follow(follow) => match follow.landed().await {
                    // It is the run of this very request, and only the next one may find what has changed since.
                    Some(done) if done.id.is_none() && (done.meta.is_error || done.meta.is_checked()) => {
                        return Ok(self.reused(&done, &asked));
                    }
                    // On record: a look decides. Unchecked: so does one. Or nothing came of it: the next round leads, or follows another.
                    Some(_) | None => {}
                },
                // Another's run has landed since the record was looked for: that is for the next round to judge.
                Joined::Lead(_) if self.hot.get(&key, self.clock.now()).map(|(kept, _)| kept.id) > before => {}
                Joined::Lead(lead) => {
                    return self.lead_depending(Some(lead), runner, request, (key, wanted), (came, seen)).await;
                }
            }
        }
        self.lead_depending(None, runner, request, (key, wanted), (came, None)).await
    }

    async fn lead_depending(
        self: &Arc<Self>,
        lead: Option<Lead>,
        runner: Arc<dyn Run>,
        request: Request,
        (key, wanted): (Key, Wanted),
        (came, seen): (Turn, Option<Seen>),
    ) -> Result<Answer, Error> {
        let executions = self.clone();
        let task = self.tasks.spawn(async move {
            let asked = request.asked();
            let done = Arc::new(executions.run_depending(runner, request, (key, wanted), (came, seen)).await?);
            if let Some(lead) = lead {
                lead.land(done.clone());
            }
            Ok(executions.ran(&done, &asked))
        });
        task.await.unwrap_or(Err(Error::Lost))
    }

    /// The record of `key`, from memory or disk, and when its dependencies were last looked at.
    async fn candidate(&self, key: &Key) -> Result<Option<(Arc<Kept>, Looked)>, Error> {
        let now = self.clock.now();
        if let Some(found) = self.hot.get(key, now) {
            return Ok(Some(found));
        }
        let Some((record, answer)) = self.records.find(&hex::encode(key), now).await? else { return Ok(None) };
        let Some(kept) = Kept::read(&record, answer).map(Arc::new) else { return Ok(None) };
        let looked = kept.meta.looked.into();
        self.hot.put(*key, kept.clone(), looked);
        Ok(Some((kept, looked)))
    }

    async fn run_depending(
        &self,
        runner: Arc<dyn Run>,
        request: Request,
        (key, wanted): (Key, Wanted),
        (came, seen): (Turn, Option<Seen>),
    ) -> Result<Done, Error> {
        let Request { resolved, invocation, setting } = request;
        let version = resolved.version.clone();
        let mut seen = match seen {
            Some(seen) => seen,
            None => self.look(&version.arn, &wanted, came).await,
        };
        // What an earlier run reported is no matter of this one, unless it reports it again.
        seen.states.retain(|name, _| wanted.contains_key(name));
        let (request_id, payload) = (invocation.request_id, hex::encode(digest::of([&invocation.payload[..]])));
        let started = self.clock.now();
        let under_way = self.reports.begin(request_id, version.clone(), &wanted);
        let (answer, bytes) = whole(runner.run(resolved, buffered(invocation)).await?).await?;
        let noted = under_way.end();
        let finished = self.clock.now();
        let reported: BTreeSet<String> = noted.states.keys().cloned().collect();
        seen.states.extend(noted.states);
        let is_failure = answer.error.is_some() && !setting.reuse_errors;
        if !is_failure && !noted.is_cut_short && seen.states.values().all(Result::is_ok) {
            self.look_again(&version.arn, &mut seen, &all(&wanted, &reported)).await;
        }
        let meta = Meta {
            mode: Mode::Dependencies,
            version: version.version,
            generation: version.generation,
            code: version.code.digest,
            request_id,
            key: None,
            payload,
            is_error: answer.error.is_some(),
            content_type: answer.content_type,
            dependencies: seen.states.into_iter().map(|(name, state)| (name, state.ok())).collect(),
            reported,
            is_cut_short: noted.is_cut_short,
            looked: seen.looked.at,
        };
        let done = Done { meta, answer: bytes, finished, id: None, log_tail: answer.log_tail };
        if is_failure {
            return Ok(done);
        }
        if !done.meta.is_checked() && self.may_count_again(&key, &done.meta).await {
            return Ok(done);
        }
        let expires = self.until(finished, &setting);
        let new = NewRecord {
            key: hex::encode(key),
            account: version.arn.account.to_string(),
            function: version.arn.to_string(),
            expires,
            meta: done.meta.written(),
        };
        match self.records.put(new, done.answer.clone(), started, finished).await {
            Ok(id) => {
                let kept = Kept { id, meta: done.meta.clone(), answer: done.answer.clone(), finished, expires };
                self.hot.put(key, Arc::new(kept), seen.looked);
                Ok(Done { id: Some(id), ..done })
            }
            // It ran, and what is lost is only a shorter way for the next one.
            Err(error) => {
                tracing::warn!(%error, "cannot keep what an execution returned");
                Ok(done)
            }
        }
    }

    /// Looks after a run at what was `seen` before it. What has changed meanwhile is not known: the run may have read this or that.
    async fn look_again(&self, of: &FunctionArn, seen: &mut Seen, wanted: &Wanted) {
        let mut again = self.look(of, wanted, self.looks.come()).await;
        for (name, before) in &mut seen.states {
            let after =
                again.states.remove(name).unwrap_or_else(|| Err(Unknown("it was not looked at again".to_owned())));
            if *before != after {
                *before = after.and(Err(Unknown("it changed during the run".to_owned())));
            }
        }
        seen.looked = again.looked;
    }

    /// Whether the record of `key` counts again once its dependencies can be looked at and are as they were. One of a run with `meta`,
    /// which never counts beyond the freshness bound, must not take its place.
    async fn may_count_again(&self, key: &Key, meta: &Meta) -> bool {
        let is_good = |kept: &Meta| {
            kept.is_checked() && kept.generation == meta.generation && kept.declared().eq(meta.declared())
        };
        match self.candidate(key).await {
            Ok(found) => found.is_some_and(|(kept, _)| is_good(&kept.meta)),
            // It ran; what matters is that nothing good is lost.
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether an execution has a good record");
                true
            }
        }
    }

    /// What all of these are, looked at side by side since `came`. The time and the turn are those of the first look.
    pub(super) async fn look(&self, of: &FunctionArn, wanted: &Wanted, came: Turn) -> Seen {
        let mut first = Looked { at: self.clock.now(), turn: self.looks.come() };
        let mut states = States::new();
        let mut looks = JoinSet::new();
        for (name, resource) in wanted {
            let resource = match self.at_once(of, resource.as_ref()) {
                Ok(resource) => resource.clone(),
                Err(state) => {
                    states.insert(name.clone(), state);
                    continue;
                }
            };
            let (name, waiting) = (name.clone(), self.looks.wait(&resource.to_string()));
            looks.spawn(async move {
                let look = waiting.look(&resource, came).await;
                (name, look)
            });
        }
        while let Some(looked) = looks.join_next().await {
            if let Ok((name, look)) = looked {
                first = Looked { at: first.at.min(look.looked.at), turn: first.turn.min(look.looked.turn) };
                if look.state.is_err() {
                    metrics::counter!("lambent_executions_unchecked_total").increment(1);
                }
                states.insert(name, look.state);
            }
        }
        Seen { states, looked: first }
    }

    /// What has to be looked at outside; else the state, which is known here, or that it may not be known.
    fn at_once<'a>(
        &self,
        of: &FunctionArn,
        resource: Option<&'a Resource>,
    ) -> Result<&'a Resource, Result<State, Unknown>> {
        let unknown = |why: &str| Err(Unknown(why.to_owned()));
        match resource {
            None => Err(unknown("the payload has no single text, number or truth value at its path")),
            Some(Resource::Function { function, .. }) => {
                let arn = function.resolve(&of.account, &of.region);
                if arn.account != of.account {
                    return Err(unknown("it is another account's"));
                }
                Err(match self.directory.resolve(&arn, function.qualifier.as_ref()) {
                    Ok(found) => Ok(State::Generation(found.version.generation)),
                    Err(lambent_registry::Error::ResourceNotFound(_)) => Ok(State::Absent),
                    Err(error) => unknown(&error.to_string()),
                })
            }
            // Before a look that another function's request may share.
            Some(resource) => self.looks.check(of, resource).map(|()| resource).map_err(Err),
        }
    }
}

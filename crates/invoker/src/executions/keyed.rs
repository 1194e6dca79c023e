//! `key`: requests with one key run once within the window, for each version of a function.
//!
//! ```text
//! in memory ───────────────────────────────────────────> its answer
//! somebody runs it ──────────────────────── wait ──────> the same answer
//! begin: Finished ─────────────────────────────────────> its answer
//!        Started, by a process that died ── take over ─┐
//!        Fresh ────────────────────────────────────────┴> run ─> finish (on disk) ─> the answer
//!                                                            └─> refused, or failed ─> abandon: the key is free again
//! ```
//! Nobody else in this process can have begun what is started and has no flight, and no other process has the store open: it died.

use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use lambent_model::idempotency::{Idempotency, MAX_KEY_BYTES, Mode, Selector};
use lambent_store::records::{Begun, NewRecord, Outcome, Turn};
use serde_json::Value;

use super::digest::{self, Key};
use super::flight::{Joined, Lead};
use super::record::{Kept, Meta};
use super::{Ask, Done, Executions, Request, Run, buffered, whole};
use crate::Error;
use crate::invoke::Answer;

/// Longest that a run takes, waiting included; until then what was begun counts.
const RUN_WITHIN: SignedDuration = SignedDuration::from_secs(3600);

/// The key of a request: its own, or what its payload has at the function's path. None: it has none.
pub(super) fn key(ask: &Ask, setting: &Idempotency, payload: &[u8]) -> Option<String> {
    if ask.key.is_some() {
        return ask.key.clone();
    }
    let path = setting.key.as_ref()?;
    let payload: Value = serde_json::from_slice(payload).ok()?;
    let text = match path.one(&payload)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // A long one is as good by its digest.
    Some(if text.len() <= MAX_KEY_BYTES { text } else { hex::encode(digest::of([text.as_bytes()])) })
}

impl Executions {
    pub(super) async fn keyed(
        self: &Arc<Self>,
        runner: Arc<dyn Run>,
        request: Request,
        text: String,
    ) -> Result<Answer, Error> {
        let version = &request.resolved.version;
        let (function, number) = (version.arn.to_string(), version.version.to_string());
        // One tenant's answer is never another's.
        let tenant = request.invocation.tenant.clone().unwrap_or_default();
        let parts = [&function, &number, &tenant, &text].map(|part| part.as_bytes());
        let key = digest::of(std::iter::once(b"key".as_slice()).chain(parts));
        let payload = request.payload_digest();
        let asked = request.asked();
        let mut request = Some(request);
        loop {
            if let Some((kept, _)) = self.hot.get(&key, self.clock.now()) {
                same(&payload, &kept.meta.payload)?;
                return Ok(self.reused_from(&kept, &asked));
            }
            match self.flights.join(key, &payload) {
                Joined::Follow(follow) => {
                    same(&payload, &follow.payload)?;
                    if let Some(done) = follow.landed().await {
                        return Ok(self.reused(&done, &asked));
                    }
                }
                Joined::Lead(lead) => {
                    // It leads once: what comes of it is its answer.
                    let Some(request) = request.take() else { return Err(Error::Lost) };
                    let run = Keyed { runner, request, text, key, payload };
                    let executions = self.clone();
                    let task = self.tasks.spawn(async move { executions.lead(lead, run).await });
                    return task.await.unwrap_or(Err(Error::Lost));
                }
            }
        }
    }

    async fn lead(&self, lead: Lead, run: Keyed) -> Result<Answer, Error> {
        let (asked, now) = (run.request.asked(), self.clock.now());
        let meta = run.meta(now);
        let expires = self.until(now, &run.request.setting).max(now + RUN_WITHIN);
        let arn = &run.request.resolved.version.arn;
        let new = NewRecord {
            key: hex::encode(run.key),
            account: arn.account.to_string(),
            function: arn.to_string(),
            expires,
            meta: meta.written(),
        };
        let turn = match self.records.begin(new, now).await? {
            Begun::Fresh(turn) => turn,
            Begun::Finished(record, answer) => {
                let Some(kept) = Kept::read(&record, answer).map(Arc::new) else { return Err(Error::Lost) };
                self.hot.put(run.key, kept.clone(), now.into());
                same(&run.payload, &kept.meta.payload)?;
                let done = Arc::new(Done::from(Kept::clone(&kept)));
                lead.land(done.clone());
                return Ok(self.reused(&done, &asked));
            }
            Begun::Started(record) => {
                same(&run.payload, &Meta::read(&record).ok_or(Error::Lost)?.payload)?;
                let left = Turn { id: record.id, number: record.turn };
                tracing::info!(record = %record.id, "an execution whose process ended before it did runs again");
                self.records.take_over(left, now).await?.ok_or(Error::Lost)?
            }
        };
        let done = Arc::new(self.fill(turn, run, meta).await?);
        lead.land(done.clone());
        Ok(self.ran(&done, &asked))
    }

    /// Runs, and has what it returned on record before anybody is told.
    async fn fill(&self, turn: Turn, run: Keyed, meta: Meta) -> Result<Done, Error> {
        let Keyed { runner, request, key, .. } = run;
        let setting = request.setting;
        let ran = runner.run(request.resolved, buffered(request.invocation)).await;
        let (answer, bytes) = match async { whole(ran?).await }.await {
            Ok(ran) => ran,
            Err(error) => {
                self.abandon(turn).await;
                return Err(error);
            }
        };
        let finished = self.clock.now();
        let meta = Meta { is_error: answer.error.is_some(), content_type: answer.content_type, ..meta };
        let done = Done { meta, answer: bytes, finished, id: Some(turn.id), log_tail: answer.log_tail };
        if done.meta.is_error && !setting.reuse_errors {
            self.abandon(turn).await;
            return Ok(Done { id: None, ..done });
        }
        let expires = self.until(finished, &setting);
        let outcome = Outcome { meta: done.meta.written(), answer: done.answer.clone(), expires };
        if !self.records.finish(turn, outcome, finished).await? {
            // Forgotten while it ran, or its time was over: it is no record, but it is an answer.
            return Ok(Done { id: None, ..done });
        }
        let kept = Kept { id: turn.id, meta: done.meta.clone(), answer: done.answer.clone(), finished, expires };
        self.hot.put(key, Arc::new(kept), finished.into());
        Ok(done)
    }

    async fn abandon(&self, turn: Turn) {
        if let Err(error) = self.records.abandon(turn).await {
            // It is started still, with nobody who runs it: the next request takes it over.
            tracing::warn!(record = %turn.id, %error, "cannot forget an execution that failed");
        }
    }
}

/// A run under a key.
struct Keyed {
    runner: Arc<dyn Run>,
    request: Request,
    text: String,
    key: Key,
    payload: String,
}

impl Keyed {
    fn meta(&self, now: jiff::Timestamp) -> Meta {
        let version = &self.request.resolved.version;
        Meta {
            mode: Mode::Key,
            version: version.version,
            generation: version.generation,
            code: version.code.digest,
            request_id: self.request.invocation.request_id,
            key: Some(self.text.clone()),
            payload: self.payload.clone(),
            is_error: false,
            content_type: String::new(),
            dependencies: Default::default(),
            reported: Default::default(),
            is_cut_short: false,
            looked: now,
        }
    }
}

impl Request {
    /// What the function gets, in short.
    pub(super) fn payload_digest(&self) -> String {
        let invocation = &self.invocation;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (context, identity) = (text(&invocation.client_context), text(&invocation.cognito_identity));
        let payload = self.input(None);
        hex::encode(digest::of([&payload[..], context.as_bytes(), identity.as_bytes()]))
    }

    /// The parts of its payload that matter, as text; all of it where none are named, or it is no JSON and has no parts.
    pub(super) fn input(&self, parsed: Option<&Value>) -> Bytes {
        let (payload, paths) = (&self.invocation.payload, self.setting.input.as_slice());
        if paths.is_empty() {
            return self.whole_input().clone();
        }
        let owned: Option<Value> = match parsed {
            None => serde_json::from_slice(payload).ok(),
            Some(_) => None,
        };
        let Some(value) = parsed.or(owned.as_ref()) else { return payload.clone() };
        let of = |path: &Selector| Value::from_iter(path.all(value).into_iter().cloned());
        Value::from_iter(paths.iter().flat_map(|path| [path.as_str().into(), of(path)])).to_string().into()
    }
}

/// One key stands for one payload.
fn same(payload: &str, theirs: &str) -> Result<(), Error> {
    if payload == theirs { Ok(()) } else { Err(Error::IdempotencyMismatch) }
}

//! A tick: the event that stands for a schedule's next run.
//!
//! ```text
//! schedule made ─▶ tick, due at its time ─▶ leased ─▶ one commit: the tick goes, the function's event and the next tick come
//! ```
//! So a tick leaves one event, whatever dies when. A tick whose schedule was changed or deleted is void: it names the generation it is of.
//! Where the node was away at several ticks of a schedule, the first of them runs, late and once; the next is the first that is still to come.

use std::hash::{BuildHasher as _, RandomState};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lambent_model::{FunctionRef, RequestId};
use lambent_store::queue::{NewEvent, Place};
use serde_json::json;

use super::record::Definition;
use crate::events::{Call, Meta, Scheduled, Task, Tick};

/// The account whose share ticks are leased on; no account of anybody has such a name, so that nobody sees or purges them.
pub(crate) const ACCOUNT: &str = "schedules";

/// The lane of a schedule's ticks.
pub(crate) fn lane(definition: &Definition) -> String {
    definition.arn()
}

/// The tick of `at`.
pub(crate) fn tick(definition: &Definition, at: Timestamp) -> Option<NewEvent> {
    let function: FunctionRef = definition.wanted.target.arn.parse().ok()?;
    let function = function.resolve(&definition.account, &definition.region);
    let Definition { account, group, name, generation, .. } = definition.clone();
    let meta = Meta::new(RequestId::random(), at, Task::Tick(Tick { function, account, group, name, generation, at }));
    Some(NewEvent {
        account: ACCOUNT.to_owned(),
        lane: lane(definition),
        place: Place::Pending,
        due: at,
        latest_start: at,
        meta: meta.written(),
        payload: Bytes::new(),
    })
}

/// The event for the function, of the run that was to be at `at`.
pub(crate) fn event(definition: &Definition, at: Timestamp, now: Timestamp) -> Option<NewEvent> {
    let target = &definition.wanted.target;
    let named: FunctionRef = target.arn.parse().ok()?;
    let (id, function) = (RequestId::random(), named.resolve(&definition.account, &definition.region));
    let payload = content(definition, at, id);
    let dead_letter = target.dead_letter_config.as_ref().and_then(|config| config.arn.clone());
    let call = Call {
        function,
        qualifier: named.qualifier.map(|qualifier| qualifier.to_string()),
        trace: None,
        client_context: None,
        tenant: None,
        affinity: None,
        schedule: Some(Scheduled { arn: definition.arn(), at, dead_letter }),
    };
    let window = definition.window().as_millis().unsigned_abs().max(1);
    let delay = u128::from(RandomState::new().hash_one(at.as_nanosecond())) % window;
    let delay = SignedDuration::from_millis(i64::try_from(delay).unwrap_or(0));
    let due = now.checked_add(delay).unwrap_or(now);
    Some(Meta::new(id, due, Task::Invoke(call)).pending(payload))
}

/// `Input` with AWS's words in it replaced; without one what EventBridge sends then.
fn content(definition: &Definition, at: Timestamp, id: RequestId) -> Bytes {
    let (arn, time) = (definition.arn(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if let Some(input) = &definition.wanted.target.input {
        let words = [
            ("<aws.scheduler.schedule-arn>", arn.as_str()),
            ("<aws.scheduler.scheduled-time>", &time),
            ("<aws.scheduler.execution-id>", &id.to_string()),
            ("<aws.scheduler.attempt-number>", "1"),
        ];
        return words.iter().fold(input.clone(), |text, (word, value)| text.replace(word, value)).into();
    }
    json!({
        "version": "0",
        "id": id.to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": definition.account.as_str(),
        "time": time,
        "region": definition.region.as_str(),
        "resources": [arn],
        "detail": "{}",
    })
    .to_string()
    .into()
}

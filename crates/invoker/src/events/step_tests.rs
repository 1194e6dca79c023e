//! Every outcome, and what becomes of the event.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use lambent_model::FunctionArn;
use lambent_store::queue::Place;
use serde_json::{Value, json};

use super::*;

const SECOND: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(SECOND + seconds).unwrap()
}

fn function() -> FunctionArn {
    FunctionArn { region: Default::default(), account: Default::default(), name: "f".parse().unwrap() }
}

fn meta() -> Meta {
    let call = Call {
        function: function(),
        qualifier: None,
        trace: Some("Root=1-a-b".to_owned()),
        client_context: None,
        tenant: None,
        affinity: None,
        schedule: None,
    };
    Meta::new("6f1e0b6e-1f0b-4b5e-9f0e-000000000001".parse().unwrap(), at(0), Task::Invoke(call))
}

fn settings() -> EventSettings {
    EventSettings {
        maximum_age: limits::EVENT_AGE,
        retries: 2,
        on_success: None,
        on_failure: None,
        dead_letter: None,
        allows_loops: false,
        reserved_concurrency: None,
    }
}

fn queue(name: &str) -> Option<String> {
    Some(format!("arn:aws:lambent:us-east-1:000000000000:queue/{name}"))
}

fn failed() -> Outcome {
    let payload = Bytes::from_static(br#"{"errorMessage":"boom","errorType":"E"}"#);
    Outcome::Answered(Response { executed_version: "$LATEST".to_owned(), error: Some("Unhandled".to_owned()), payload })
}

fn succeeded() -> Outcome {
    Outcome::Answered(Response { executed_version: "7".to_owned(), error: None, payload: "[1]".into() })
}

fn step(meta: Meta, outcome: Outcome, settings: &EventSettings, now: i64) -> (Settlement, End) {
    let mut fresh = || "6f1e0b6e-1f0b-4b5e-9f0e-0000000000ff".parse().unwrap();
    let now = Now { delays: Delays::default(), at: at(now), fresh: &mut fresh };
    invoked(meta, &Bytes::from_static(br#"{"a":1}"#), outcome, Some(settings), now)
}

fn retry(settlement: Settlement) -> (i64, Meta) {
    let Settlement::Retry { due, meta } = settlement else { panic!("{settlement:?}") };
    (due.as_second() - SECOND, Meta::read(&meta).unwrap())
}

fn reason(settlement: Settlement) -> String {
    let Settlement::Bury { queue, reason, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!(queue, DEAD_LETTERS);
    reason
}

fn then(settlement: Settlement) -> Vec<NewEvent> {
    let Settlement::Done { then } = settlement else { panic!("{settlement:?}") };
    then
}

fn json(event: &NewEvent) -> Value {
    serde_json::from_slice(&event.payload).unwrap()
}

#[test]
fn a_failed_event_runs_again_after_one_and_two_minutes_and_is_then_given_up() {
    let (settlement, end) = step(meta(), failed(), &settings(), 10);
    let (due, meta) = retry(settlement);
    assert_eq!((due, meta.failures, end), (70, 1, End::Retried));
    let (due, meta) = retry(step(meta, failed(), &settings(), 70).0);
    assert_eq!((due, meta.failures), (190, 2));
    let (settlement, end) = step(meta, failed(), &settings(), 190);
    assert_eq!((reason(settlement).as_str(), end), ("RetriesExhausted: boom", End::Buried));
    let none = EventSettings { retries: 0, ..settings() };
    assert_eq!(step(self::meta(), failed(), &none, 0).1, End::Buried);
}

#[test]
fn what_could_not_run_backs_off_until_its_age_is_over() {
    let later = || Outcome::Later { status: 429, reason: "TooManyRequestsException: Rate Exceeded.".to_owned() };
    let (mut meta, mut now, mut delays) = (meta(), 0, Vec::new());
    let buried = loop {
        let (settlement, end) = step(meta.clone(), later(), &settings(), now);
        if end == End::Buried {
            break reason(settlement);
        }
        let (due, next) = retry(settlement);
        delays.push(due - now);
        (meta, now) = (next, due);
    };
    assert_eq!(delays[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert!(now > 6 * 3600 - 301 && now <= 6 * 3600, "{now}");
    assert_eq!(buried, "EventAgeExceeded: TooManyRequestsException: Rate Exceeded.");
    let (_, meta) = retry(step(meta, failed(), &settings(), 5).0);
    assert_eq!((meta.setbacks, meta.failures), (0, 1), "throttles are no failures of the function");
}

#[test]
fn success_leaves_a_record_where_one_is_wanted() {
    assert_eq!(then(step(meta(), succeeded(), &settings(), 0).0), []);
    let wanted =
        EventSettings { on_success: queue("ok"), on_failure: queue("no"), dead_letter: queue("no"), ..settings() };
    let mut failed_once = meta();
    failed_once.failures = 1;
    let left = then(step(failed_once, succeeded(), &wanted, 5).0);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].place, Place::Buried { queue: "ok".to_owned(), reason: "Success".to_owned() });
    assert_eq!(
        json(&left[0]),
        json!({
            "version": "1.0",
            "timestamp": "2023-11-14T22:13:25.000Z",
            "requestContext": {
                "requestId": "6f1e0b6e-1f0b-4b5e-9f0e-000000000001",
                "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST",
                "condition": "Success",
                "approximateInvokeCount": 2,
            },
            "requestPayload": {"a": 1},
            "responseContext": {"statusCode": 200, "executedVersion": "7"},
            "responsePayload": [1],
        })
    );
}

#[test]
fn what_is_given_up_goes_to_both_targets() {
    let url = "arn:aws:lambent:us-east-1:000000000000:url/http://x/".to_owned();
    let wanted = EventSettings { retries: 0, on_failure: queue("no"), dead_letter: Some(url.clone()), ..settings() };
    let (settlement, end) = step(meta(), failed(), &wanted, 5);
    let left = then(settlement);
    assert_eq!((left.len(), end), (2, End::GivenUp));
    let record = json(&left[0]);
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 1);
    assert_eq!(
        record["responseContext"],
        json!({"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"})
    );
    assert_eq!(record["responsePayload"]["errorMessage"], "boom");
    assert_eq!((left[1].place.clone(), left[1].lane.as_str()), (Place::Pending, url.as_str()));
    assert_eq!(json(&left[1]), json!({"a": 1}), "a dead letter is the event itself");
    let Task::Deliver(parcel) = Meta::read(&left[1].meta).unwrap().task else { panic!() };
    let attributes: Vec<_> =
        parcel.attributes.iter().map(|(name, kind, value)| format!("{name}/{kind}/{value}")).collect();
    assert_eq!(
        attributes,
        ["RequestID/String/6f1e0b6e-1f0b-4b5e-9f0e-000000000001", "ErrorCode/Number/200", "ErrorMessage/String/boom"]
    );
}

#[test]
fn an_event_that_never_ran_has_no_response_in_its_record() {
    let wanted = EventSettings { on_failure: queue("no"), ..settings() };
    let record = json(&then(step(meta(), Outcome::TooOld, &wanted, 5).0)[0]);
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 0);
    assert!(record.get("responseContext").is_none() && record.get("responsePayload").is_none());
    let never = Outcome::Never { status: 429, reason: "off".to_owned() };
    assert_eq!(then(step(meta(), never, &wanted, 5).0).len(), 1);
}

#[test]
fn a_function_as_destination_gets_a_new_event_of_the_same_chain() {
    let to = Some("arn:aws:lambda:us-east-1:000000000000:function:g:prod".to_owned());
    let left = then(step(meta(), succeeded(), &EventSettings { on_success: to.clone(), ..settings() }, 5).0);
    let after = Meta::read(&left[0].meta).unwrap();
    assert!(after.request_id.to_string().ends_with("ff"));
    let Task::Invoke(call) = after.task else { panic!() };
    assert_eq!((call.function.name.as_str(), call.qualifier.as_deref()), ("g", Some("prod")));
    assert_eq!(call.trace.as_deref(), Some("Root=1-a-b"));
    let payload = serde_json::to_vec(&"x".repeat(limits::ASYNC_REQUEST_BYTES)).unwrap().into();
    let huge = Outcome::Answered(Response { executed_version: "1".to_owned(), error: None, payload });
    let left = then(step(meta(), huge, &EventSettings { on_success: to, ..settings() }, 5).0);
    assert!(
        matches!(&left[0].place, Place::Buried { queue, reason } if queue == DEAD_LETTERS && reason.contains("more than"))
    );
}

#[test]
fn events_of_what_is_gone_are_buried_and_stopping_changes_nothing() {
    let mut fresh = RequestId::random;
    let now = Now { delays: Delays::default(), at: at(0), fresh: &mut fresh };
    let (settlement, _) = invoked(meta(), &Bytes::new(), Outcome::Gone { reason: String::new() }, None, now);
    assert!(reason(settlement).ends_with("function:f does not exist any more."));
    assert_eq!(reason(step(meta(), Outcome::Gone { reason: "gone".to_owned() }, &settings(), 0).0), "gone");
    let (due, after) = retry(step(meta(), Outcome::Stopping, &settings(), 9).0);
    assert_eq!((due, after), (9, meta()));
    let nowhere = EventSettings { on_success: Some("nonsense".to_owned()), ..settings() };
    let left = then(step(meta(), succeeded(), &nowhere, 0).0);
    assert!(
        matches!(&left[0].place, Place::Buried { reason, .. } if reason.starts_with("nonsense is no destination."))
    );
}

#[test]
fn deliveries_back_off_and_are_buried_when_refused_or_too_old() {
    let parcel = Parcel { function: function(), to: "arn:x".to_owned(), attributes: Vec::new() };
    let meta = Meta::new(RequestId::random(), at(0), Task::Deliver(parcel));
    let mut fresh = RequestId::random;
    let mut step = |meta: &Meta, outcome, seconds| {
        delivered(meta.clone(), outcome, &Now { delays: Delays::default(), at: at(seconds), fresh: &mut fresh })
    };
    let failure = |may_pass| Err(Undelivered { may_pass, text: "no".to_owned() });
    assert_eq!(step(&meta, Ok(()), 0), (Settlement::Done { then: Vec::new() }, End::Delivered));
    let (due, next) = retry(step(&meta, failure(true), 0).0);
    assert_eq!((due, next.setbacks), (1, 1));
    assert_eq!(reason(step(&meta, failure(false), 0).0), "It could not be delivered to arn:x: no");
    assert_eq!(step(&meta, failure(true), 6 * 3600).1, End::Buried);
}

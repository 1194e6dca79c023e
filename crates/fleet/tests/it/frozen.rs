//! Containers that are frozen while their code waits for an answer of the node's.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use lambent_fleet::{
    Caller, Credentials, Error, FleetConfig, Identity, Pause, Permit, ResponseMode, Running, Seat, Services, StartKind,
    Streamed,
};
use lambent_model::FunctionVersion;
use tokio::sync::Semaphore;

use crate::harness::{Harness, bootstrap, call, finish};

/// Waits on the event `"wait"`, and answers with what it was told; with `"fine"` otherwise.
const WAITS: &str = "while true; do next; GOT=fine; if [ \"$EVENT\" = '\"wait\"' ]; then \
                     GOT=$(curl -sS http://$AWS_LAMBDA_RUNTIME_API/lambent/2026-11-24/calls/any); fi; \
                     answer \"\\\"$GOT\\\"\"; done";

/// Where an invocation sits, and what answers its requests.
#[derive(Debug)]
struct Waiting {
    pause: Arc<Pause>,
    answers: Semaphore,
}

impl Seat for Waiting {
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// Holds each request open, as one of code that is blocked, until its seat has an answer.
struct Desk;

#[async_trait]
impl Services for Desk {
    fn credentials(&self, _: &Identity, _: Duration) -> Option<Credentials> {
        None
    }

    async fn answer(&self, caller: Caller, _: Request<Incoming>) -> Streamed {
        let seat: Arc<dyn Any + Send + Sync> = caller.invoke.unwrap().seat.clone().unwrap();
        let seat = seat.downcast::<Waiting>().unwrap();
        seat.pause.block();
        seat.answers.acquire().await.unwrap().forget();
        seat.pause.go_on();
        seat.pause.running().await;
        let body = Full::new(Bytes::from_static(b"told"));
        Response::new(body.map_err(|never| match never {}).boxed_unsync())
    }
}

async fn fleet(change: impl FnOnce(&mut FleetConfig)) -> Harness {
    let harness = Harness::with(|config| {
        config.freeze_after = Duration::ZERO;
        config.pool.ceiling = 0;
        change(config);
    })
    .await;
    harness.fleet.serve_inside(Arc::new(Desk));
    harness
}

/// Begins an invocation that waits.
async fn wait(harness: &Harness, function: &FunctionVersion) -> (Running, Arc<Waiting>) {
    let seat = Arc::new(Waiting { pause: Arc::default(), answers: Semaphore::new(0) });
    let mut call = call(function, "\"wait\"", ResponseMode::Buffered);
    call.permit = Some(Permit::seated((), seat.clone(), Arc::clone(&seat.pause)));
    (harness.fleet.invoke(Arc::new(function.clone()), call).await.unwrap(), seat)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_is_frozen_until_the_answer_is_there() {
    let harness = fleet(|_| {}).await;
    let Some(function) = harness.shell(WAITS).await else { return };
    for _ in 0..3 {
        let (running, seat) = wait(&harness, &function).await;
        harness.settled("frozen", 1).await;
        assert_eq!(harness.fleet.status().memory_mib, 0, "it is beside the node's bounds");
        seat.answers.add_permits(1);
        let outcome = finish(running).await;
        assert_eq!((outcome.failed, outcome.body.as_str()), (false, "\"told\""));
        harness.settled("idle", 1).await;
        assert_eq!(harness.fleet.status().memory_mib, 256);
    }
    let next = harness.call(&function, "1").await;
    assert_eq!((next.body.as_str(), next.report.start), ("\"fine\"", StartKind::Warm));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_ends_the_frozen() {
    let harness = fleet(|_| {}).await;
    let Some(mut function) = harness.shell(WAITS).await else { return };
    function.timeout = Duration::from_secs(1);
    let (running, _seat) = wait(&harness, &function).await;
    harness.settled("frozen", 1).await;
    let outcome = finish(running).await;
    assert!(outcome.failed && outcome.body.contains("Task timed out after 1.00 seconds"), "{}", outcome.body);
    assert_eq!(outcome.report.duration, Duration::from_secs(1));
    let next = harness.call(&function, "1").await;
    assert_eq!((next.body.as_str(), next.report.start), ("\"fine\"", StartKind::Cold));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_node_is_the_end_of_the_frozen() {
    let harness = fleet(|_| {}).await;
    let Some(function) = harness.shell(WAITS).await else { return };
    let (running, _seat) = wait(&harness, &function).await;
    harness.settled("frozen", 1).await;
    harness.fleet.shutdown(Duration::ZERO).await;
    assert!(matches!(running.response.await.unwrap(), Err(Error::ShuttingDown)));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_waited_for_when_the_node_ends() {
    let harness = fleet(|_| {}).await;
    let Some(function) = harness.shell(WAITS).await else { return };
    let (running, seat) = wait(&harness, &function).await;
    harness.settled("frozen", 1).await;
    let fleet = Arc::clone(&harness.fleet);
    let ends = tokio::spawn(async move { fleet.shutdown(Duration::from_secs(60)).await });
    seat.answers.add_permits(1);
    assert_eq!(finish(running).await.body, "\"told\"");
    ends.await.unwrap();
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_frozen_leave_their_room_to_those_they_wait_for() {
    let harness = fleet(|config| {
        config.max_containers = 1;
        config.most_frozen = 3;
    })
    .await;
    let Some(function) = harness.shell(WAITS).await else { return };
    let mut frozen = Vec::new();
    for count in 1..=4 {
        frozen.push(wait(&harness, &function).await);
        harness.settled("frozen", count).await;
    }
    // The fourth counts: there is no more room until one of the others is back, and its call over.
    let last = harness.start(&function, "1").await.unwrap();
    for (running, seat) in frozen.into_iter().rev() {
        seat.answers.add_permits(1);
        assert_eq!(finish(running).await.body, "\"told\"");
    }
    assert_eq!(finish(last).await.body, "\"fine\"");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_extensions_is_not_frozen() {
    let harness = fleet(|_| {}).await;
    let Some(plain) = harness.shell(WAITS).await else { return };
    let extension = "ID=$(curl -sS -D - -o /dev/null -H 'Lambda-Extension-Name: e' -d '{\"events\":[]}' \
                     http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/register | tr -d '\\r' \
                     | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: //p')\n\
                     curl -sS -H \"Lambda-Extension-Identifier: $ID\" \
                     http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/event/next";
    let mut extended = plain.clone();
    extended.generation = uuid::Uuid::new_v4();
    extended.layers = vec![harness.layer(&[("extensions/e", &bootstrap(extension))]).await];
    let (running, seat) = wait(&harness, &extended).await;
    harness.settled("busy", 1).await;
    // Whoever begins to wait later is frozen before, however often that is tried.
    for _ in 0..3 {
        let (other, others) = wait(&harness, &plain).await;
        harness.settled("frozen", 1).await;
        harness.settled("busy", 1).await;
        others.answers.add_permits(1);
        finish(other).await;
    }
    seat.answers.add_permits(1);
    assert_eq!(finish(running).await.body, "\"told\"");
    harness.end().await;
}

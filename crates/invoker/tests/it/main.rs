//! The one door, in front of a real fleet on simulated cells. What needs curl says so and skips when the machine has none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod world;

use std::time::Duration;

use lambent_invoker::{Body, Error, ErrorKind, LogTail, Mode, ThrottleReason};
use lambent_model::{Version, limits};
use lambent_registry::State;

use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_with_version_and_log() {
    let Some(world) = World::new("while true; do next; answer \"$EVENT\"; done").await else { return };
    let mut invocation = world.invocation("\"hello\"");
    invocation.mode = Mode::Buffered { log_tail: LogTail::Tail };
    let answer = world.invoker.invoke(invocation).await.unwrap();
    assert!(matches!(&answer.body, Body::Buffered(body) if body == "\"hello\""), "{answer:?}");
    assert_eq!((answer.executed_version, answer.error), (Version::Latest, None));
    let tail = String::from_utf8(answer.log_tail.unwrap().to_vec()).unwrap();
    assert!(tail.starts_with("START RequestId: ") && tail.contains("\nREPORT RequestId: "), "{tail}");
    assert_eq!(world.invoker.running(), 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_function_is_an_answer() {
    let Some(world) = World::new("next; exit 1").await else { return };
    let answer = world.invoker.invoke(world.invocation("1")).await.unwrap();
    assert_eq!(answer.error, Some(ErrorKind::Unhandled));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_reaches_the_function() {
    let trace = "grep -i '^lambda-runtime-trace-id' $TMPDIR/headers | tr -d '\\r' | sed 's/.*: //'";
    let Some(world) = World::new(&format!("while true; do next; answer \"\\\"$({trace})\\\"\"; done")).await else {
        return;
    };
    let mut invocation = world.invocation("1");
    invocation.trace = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1".to_owned());
    let answer = world.invoker.invoke(invocation).await.unwrap();
    let Body::Buffered(body) = answer.body else { panic!() };
    assert_eq!(body, "\"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\"");
    let answer = world.invoker.invoke(world.invocation("1")).await.unwrap();
    let Body::Buffered(body) = answer.body else { panic!() };
    assert!(body.starts_with(b"\"Root=1-") && body.ends_with(b";Sampled=0\""), "{body:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_and_the_account_throttle_as_aws_does() {
    let Some(world) = World::new("next; sleep 0.5; answer 1; next").await else { return };
    world.change(|resolved| resolved.reserved_concurrency = Some(1));
    let first = tokio::spawn({
        let (invoker, invocation) = (world.invoker.clone(), world.invocation("1"));
        async move { invoker.invoke(invocation).await }
    });
    while world.invoker.running() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = world.invoker.invoke(world.invocation("1")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded));
    assert_eq!(
        (refused.code(), refused.status(), refused.to_string().as_str()),
        ("TooManyRequestsException", 429, "Rate Exceeded.")
    );
    assert!(first.await.unwrap().is_ok());
    world.change(|resolved| resolved.reserved_concurrency = None);
    world.reserve(1_000);
    let refused = world.invoker.invoke(world.invocation("1")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(ThrottleReason::ConcurrentInvocationLimitExceeded));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_in_awss_words() {
    let Some(world) = World::new("").await else { return };
    let mut invocation = world.invocation("1");
    invocation.payload = vec![b'1'; limits::SYNC_REQUEST_BYTES + 1].into();
    let refused = world.invoker.invoke(invocation).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("RequestEntityTooLargeException", 413));
    assert_eq!(refused.to_string(), "Request must be smaller than 6291456 bytes for the InvokeFunction operation");
    world.change(|resolved| resolved.state = State::Pending);
    let refused = world.invoker.invoke(world.invocation("1")).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("ResourceConflictException", 409));
    assert!(refused.to_string().ends_with("The function is currently in the following state: Pending"), "{refused}");
    assert!(world.invoker.dry_run(&world.invocation("1")).is_err());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_runs_nothing() {
    let Some(world) = World::new("while true; do next; answer 1; done").await else { return };
    assert_eq!(world.invoker.dry_run(&world.invocation("1")).unwrap(), Version::Latest);
    assert!(world.fleet.status().containers.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept_roughly_and_repeat_with_the_seed() {
    let Some(world) = World::new("while true; do next; answer 1; done").await else { return };
    let mut other = world.version();
    other.version = Version::Published(1.try_into().unwrap());
    world.change(|resolved| resolved.additional = Some((other.into(), 0.25)));
    let mut counts = [0, 0];
    for _ in 0..60 {
        let answer = world.invoker.invoke(world.invocation("1")).await.unwrap();
        counts[usize::from(answer.executed_version != Version::Latest)] += 1;
    }
    assert!((6..=26).contains(&counts[1]), "{counts:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_refuses_new_calls_and_waits_for_running_ones() {
    let Some(world) = World::new("next; sleep 0.4; answer 1; next").await else { return };
    let running = tokio::spawn({
        let (invoker, invocation) = (world.invoker.clone(), world.invocation("1"));
        async move { invoker.invoke(invocation).await }
    });
    while world.invoker.running() == 0 {
        tokio::task::yield_now().await;
    }
    world.invoker.drain(Duration::from_secs(20)).await;
    assert_eq!(world.invoker.running(), 0);
    assert!(running.await.unwrap().is_ok());
    assert!(matches!(world.invoker.invoke(world.invocation("1")).await, Err(Error::ShuttingDown)));
    world.end().await;
}

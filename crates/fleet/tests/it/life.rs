//! What a container does when all goes well.

use std::time::Duration;

use futures_util::future::join_all;
use lambent_fleet::{Body, Error, FunctionResponse, ResponseMode, StartKind};
use lambent_model::function::Runtime;

use crate::harness::{Harness, call, finish};

const ECHO: &str = "import os\ndef handler(event, context):\n    return {'event': event, 'pid': os.getpid()}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_python_function_answers_cold_then_warm() {
    let harness = Harness::new().await;
    let Some(function) = harness.python(ECHO).await else { return };
    let first = harness.call(&function, r#"{"n":1}"#).await;
    assert!(!first.failed, "{}", first.body);
    assert!(first.body.contains(r#""event": {"n": 1}"#), "{}", first.body);
    assert_eq!(first.report.start, StartKind::Cold);
    let log = harness.log_until(|log| log.iter().any(|line| line.starts_with("REPORT"))).await;
    let Some(init) = first.report.init else { panic!("a cold call has an init duration: {log:#?}") };
    assert!(first.report.billed >= first.report.duration + init, "init is billed");
    assert!(first.report.max_memory_mib > 0);
    let second = harness.call(&function, r#"{"n":1}"#).await;
    assert_eq!(second.body, first.body, "the same process");
    assert_eq!((second.report.start, second.report.init), (StartKind::Warm, None));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_bootstrap_answers() {
    let harness = Harness::new().await;
    let Some(function) = harness.shell("while true; do next; answer \"{\\\"got\\\":$EVENT}\"; done").await else {
        return;
    };
    assert_eq!(harness.call(&function, "7").await.body, r#"{"got":7}"#);
    assert_eq!(harness.call(&function, "8").await.body, r#"{"got":8}"#);
    assert_eq!(harness.fleet.status().containers.len(), 1);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_function_streams() {
    let harness = Harness::new().await;
    let node = harness.fleet.runtimes().into_iter().find(|runtime| matches!(runtime, Runtime::Node { .. }));
    let Some(node) = node else { return eprintln!("SKIPPED: this machine has no Node.js") };
    let source = "exports.handler = awslambda.streamifyResponse(async (event, out) => { \
                  out.write('one '); out.write('two'); out.end(); });";
    let function = harness.function(node, &[("app.js", source)]).await;
    let call = call(&function, "{}", ResponseMode::Streaming);
    let running = harness.fleet.invoke(function.into(), call).await.unwrap();
    let FunctionResponse::Success { body: Body::Stream(mut pieces), .. } = running.response.await.unwrap().unwrap()
    else {
        panic!("no stream")
    };
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(String::from_utf8(all).unwrap(), "one two");
    running.finished.await.unwrap();
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_get_containers_of_their_own() {
    let harness = Harness::new().await;
    let Some(function) =
        harness.python("import time\ndef handler(e, c):\n    time.sleep(2)\n    return c.log_stream_name\n").await
    else {
        return;
    };
    let mut streams: Vec<String> =
        join_all((0..4).map(|_| harness.call(&function, "{}"))).await.into_iter().map(|outcome| outcome.body).collect();
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), 4);
    assert_eq!(harness.fleet.status().containers.len(), 4);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_containers_end_in_time_and_when_their_version_does() {
    let harness = Harness::with(|config| config.idle_timeout = Duration::from_millis(300)).await;
    let Some(function) = harness.shell("while true; do next; answer 1; done").await else { return };
    harness.call(&function, "{}").await;
    harness.empty().await;
    harness.end().await;
    let harness = Harness::new().await;
    harness.call(&function_of(&harness).await, "{}").await;
    let function = function_of(&harness).await;
    harness.call(&function, "{}").await;
    harness.settled("idle", 2).await;
    harness.fleet.retire(function.generation);
    harness.settled("idle", 1).await;
    harness.end().await;
}

async fn function_of(harness: &Harness) -> lambent_model::FunctionVersion {
    harness.shell("while true; do next; answer 1; done").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_room_that_idle_containers_make() {
    let harness = Harness::with(|config| config.max_containers = 1).await;
    let Some(first) = harness.shell("while true; do next; answer 1; done").await else { return };
    let slow = harness.shell("while true; do next; sleep 1; answer 2; done").await.unwrap();
    assert_eq!(harness.call(&first, "{}").await.body, "1");
    harness.settled("idle", 1).await;
    let running = harness.start(&slow, "{}").await.unwrap();
    let waiting = harness.start(&first, "{}").await.unwrap();
    let another = harness.start(&slow, "{}").await.unwrap();
    assert_eq!(finish(running).await.body, "2");
    // In whichever order: the slow one's container is free for its own next call, or gone for the other's.
    let (first, second) = tokio::join!(finish(waiting), finish(another));
    assert_eq!((first.body.as_str(), second.body.as_str()), ("1", "2"));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_find_no_room_are_refused() {
    let harness = Harness::with(|config| {
        (config.max_containers, config.memory_mib, config.room_patience) = (1, 256, Duration::from_millis(50));
    })
    .await;
    let Some(mut large) = harness.shell("while true; do next; answer 1; done").await else { return };
    large.memory_mib = 257;
    let refused = harness.start(&large, "{}").await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    let slow = harness.shell("next; sleep 30; answer 2; next").await.unwrap();
    let slow = harness.start(&slow, "{}").await.unwrap();
    let other = harness.shell("while true; do next; answer 1; done").await.unwrap();
    let refused = harness.start(&other, "{}").await.unwrap().response.await.unwrap();
    assert!(matches!(refused, Err(Error::Full { .. })));
    drop(slow);
    harness.fleet.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_merged_under_opt() {
    let harness = Harness::new().await;
    let Some(mut function) = harness.python("import where\ndef handler(e, c):\n    return where.NAME\n").await else {
        return;
    };
    let (low, high) = (
        harness.layer(&[("python/where.py", "NAME = 'low'")]).await,
        harness.layer(&[("python/where.py", "NAME = 'high'")]).await,
    );
    function.layers = vec![low, high];
    assert_eq!(harness.call(&function, "{}").await.body, "\"high\"");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_running_calls_end() {
    let harness = Harness::new().await;
    let Some(function) = harness.shell("next; sleep 0.5; answer '\"done\"'; next").await else { return };
    let running = harness.start(&function, "{}").await.unwrap();
    let (outcome, ()) = tokio::join!(finish(running), harness.fleet.shutdown(Duration::from_secs(20)));
    assert_eq!(outcome.body, "\"done\"");
    assert!(matches!(harness.start(&function, "{}").await, Err(Error::ShuttingDown)));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_gives_up_what_outlasts_the_grace_time() {
    let harness = Harness::new().await;
    let Some(function) = harness.shell("next; sleep 100").await else { return };
    let running = harness.start(&function, "{}").await.unwrap();
    harness.settled("busy", 1).await;
    harness.fleet.shutdown(Duration::ZERO).await;
    assert!(matches!(running.response.await.unwrap(), Err(Error::ShuttingDown)));
    harness.end().await;
}

//! Each way in which a function goes wrong, what the caller gets for it, and that the next call is clean.

use std::time::Duration;

use lambent_fleet::StartKind;
use lambent_model::FunctionVersion;
use lambent_model::function::{Provided, Runtime};

use crate::harness::{Harness, Outcome, bootstrap, isolated};

/// Goes wrong on the event `1`, and answers `"fine"` otherwise.
async fn going_wrong(harness: &Harness, wrong: &str) -> Option<FunctionVersion> {
    let script = format!("while true; do next; if [ \"$EVENT\" = 1 ]; then {wrong}; fi; answer '\"fine\"'; done");
    harness.shell(&script).await
}

async fn wrong_then_clean(harness: &Harness, function: &FunctionVersion) -> Outcome {
    let wrong = harness.call(function, "1").await;
    let next = harness.call(function, "2").await;
    assert_eq!((next.failed, next.body.as_str()), (false, "\"fine\""), "the next call is clean");
    assert_eq!(next.report.start, StartKind::Cold, "in a container of its own");
    wrong
}

fn assert_document(outcome: &Outcome, error_type: &str, message: &str) {
    assert!(outcome.failed, "{}", outcome.body);
    let document: serde_json::Value = serde_json::from_str(&outcome.body).unwrap();
    assert_eq!(document["errorType"], error_type, "{document}");
    let text = document["errorMessage"].as_str().unwrap();
    assert!(text.starts_with("RequestId: ") && text.ends_with(&format!(" Error: {message}")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_out() {
    let harness = Harness::new().await;
    let Some(mut function) = going_wrong(&harness, "trap '' TERM; sleep 100").await else { return };
    function.timeout = Duration::from_secs(1);
    let outcome = wrong_then_clean(&harness, &function).await;
    assert_document(&outcome, "Sandbox.Timedout", "Task timed out after 1.00 seconds");
    assert_eq!(outcome.report.duration, Duration::from_secs(1));
    let tail = outcome.tail();
    assert!(tail.contains("Task timed out after 1.00 seconds\n"), "{tail}");
    assert!(tail.contains("\tDuration: 1000.00 ms\t") && tail.contains("\tStatus: timeout"), "{tail}");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_and_signals() {
    let harness = Harness::new().await;
    for (wrong, message) in [
        ("exit 3", "Runtime exited with error: exit status 3"),
        ("exit 0", "Runtime exited without providing a reason"),
        ("kill -SEGV $$", "Runtime exited with error: signal: segmentation fault"),
        ("kill -KILL $$", "Runtime exited with error: signal: killed"),
    ] {
        let Some(function) = going_wrong(&harness, wrong).await else { return };
        let outcome = wrong_then_clean(&harness, &function).await;
        assert_document(&outcome, "Runtime.ExitError", message);
        let tail = outcome.tail();
        assert!(tail.contains(&format!("Error: {message}\nRuntime.ExitError\nEND RequestId: ")), "{tail}");
        assert!(tail.contains("\tStatus: error\tError Type: Runtime.ExitError"), "{tail}");
    }
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory() {
    let harness = Harness::new().await;
    let source = "def handler(event, context):\n    if event == 1:\n        held = []\n        while True:\n            \
                  held.append(bytearray(4 << 20))\n    return 'fine'\n";
    let Some(mut function) = harness.python(source).await else { return };
    function.memory_mib = 128;
    let outcome = wrong_then_clean(&harness, &function).await;
    assert_document(&outcome, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed");
    assert!(outcome.tail().contains("Memory Size: 128 MB\tMax Memory Used: 128 MB"), "{}", outcome.tail());
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_leaves_the_container_as_it_was() {
    let harness = Harness::new().await;
    let Some(function) = harness.python("def handler(e, c):\n    raise ValueError('no')\n").await else { return };
    let outcome = harness.call(&function, "1").await;
    assert!(outcome.failed);
    assert!(
        outcome.body.contains(r#""errorMessage": "no""#) && outcome.body.contains("ValueError"),
        "{}",
        outcome.body
    );
    assert_eq!(harness.call(&function, "1").await.report.start, StartKind::Warm);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large() {
    let harness = Harness::new().await;
    let source = "def handler(e, c):\n    return 'x' * (7 << 20) if e == 1 else 'fine'\n";
    let Some(function) = harness.python(source).await else { return };
    let outcome = harness.call(&function, "1").await;
    assert!(outcome.failed);
    assert_eq!(
        outcome.body,
        r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}"#
    );
    let next = harness.call(&function, "2").await;
    assert_eq!((next.body.as_str(), next.report.start), ("\"fine\"", StartKind::Warm));
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_during_init_is_tried_once_more_inside_the_call() {
    let harness = Harness::new().await;
    let Some(function) = harness.shell("echo starting; exit 9").await else { return };
    let outcome = harness.call(&function, "1").await;
    assert_document(&outcome, "Runtime.ExitError", "Runtime exited with error: exit status 9");
    assert_eq!(outcome.report.init, None);
    let log = harness.log_until(|log| log.iter().any(|line| line.starts_with("REPORT"))).await;
    let shapes: Vec<String> = log.iter().map(|line| shape(line)).collect();
    let expected = [
        "INIT_START",
        "starting",
        "INIT_REPORT Phase: init Status: error Error Type: Runtime.ExitError",
        "starting",
        "INIT_REPORT Phase: invoke Status: error Error Type: Runtime.ExitError",
        "START",
        "RequestId:",
        "END",
        "REPORT",
    ];
    assert_eq!(shapes, expected);
    harness.end().await;
}

/// A line's first word, and what an `INIT_REPORT` says beside its duration.
fn shape(line: &str) -> String {
    let first = line.split_whitespace().next().unwrap_or_default().to_owned();
    match line.split_once(" ms\t") {
        Some((_, rest)) if first == "INIT_REPORT" => format!("{first} {}", rest.replace('\t', " ")),
        _ => first,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_fails_once_is_forgiven() {
    if isolated() {
        return eprintln!("SKIPPED: a cell leaves no mark for the next one");
    }
    let harness = Harness::new().await;
    let mark = harness.path().join("mark");
    let script =
        format!("[ -e {0} ] || {{ touch {0}; exit 1; }}; while true; do next; answer '\"fine\"'; done", mark.display());
    let Some(function) = harness.shell(&script).await else { return };
    let outcome = harness.call(&function, "1").await;
    assert_eq!((outcome.failed, outcome.body.as_str()), (false, "\"fine\""));
    assert_eq!(harness.call(&function, "1").await.report.start, StartKind::Warm);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_error_is_the_answer() {
    let harness = Harness::new().await;
    let Some(function) = harness.python("import nothing_of_this_name\n").await else { return };
    let outcome = harness.call(&function, "1").await;
    let document: serde_json::Value = serde_json::from_str(&outcome.body).unwrap();
    assert_eq!(document["errorType"], "Runtime.ImportModuleError", "{document}");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_hangs_runs_into_the_calls_time_out() {
    let harness = Harness::new().await;
    let Some(mut function) = harness.shell("[ -e $LAMBDA_TASK_ROOT/none ] || sleep 100").await else { return };
    function.timeout = Duration::from_secs(1);
    // The init phase itself lasts its full 10 seconds first.
    let outcome = harness.call(&function, "1").await;
    assert_document(&outcome, "Sandbox.Timedout", "Task timed out after 1.00 seconds");
    let log = harness.log_until(|log| log.iter().any(|line| line.starts_with("REPORT"))).await;
    assert!(log.iter().any(|line| shape(line) == "INIT_REPORT Phase: init Status: timeout"), "{log:#?}");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_be_run() {
    let harness = Harness::new().await;
    let provided = Runtime::Provided(Provided::Al2023);
    let none = harness.function(provided.clone(), &[("other", "x")]).await;
    let outcome = harness.call(&none, "1").await;
    let message = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]";
    assert_document(&outcome, "Runtime.InvalidEntrypoint", message);
    let garbage = harness.function(provided.clone(), &[("bootstrap", "no program at all")]).await;
    let outcome = harness.call(&garbage, "1").await;
    assert_document(&outcome, "Runtime.InvalidEntrypoint", "fork/exec /var/task/bootstrap: exec format error");
    let lost = bootstrap("").replace("/bin/bash", "/no/such/shell");
    let lost = harness.function(provided, &[("bootstrap", &lost)]).await;
    let outcome = harness.call(&lost, "1").await;
    assert_document(&outcome, "Runtime.InvalidEntrypoint", "fork/exec /var/task/bootstrap: no such file or directory");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_while_idle_is_not_used_again() {
    let harness = Harness::new().await;
    let Some(function) = harness.shell("next; answer '\"fine\"'; (sleep 0.2; kill -9 $$) & next; sleep 9").await else {
        return;
    };
    harness.call(&function, "1").await;
    harness.empty().await;
    let next = harness.call(&function, "1").await;
    assert_eq!((next.body.as_str(), next.report.start), ("\"fine\"", StartKind::Cold));
    harness.end().await;
}

//! Versions with snapshots: clones where cells are real (`LAMBENT_TEST_AGENT`), ordinary starts and a reason where they are simulated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lambent_fleet::{Pressure, PressureProbe, SnapStart};
use lambent_model::{FunctionVersion, Version};

use crate::harness::{Harness, call, isolated};

const SOURCE: &str = r#"
import os, random, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot
steps = ["init"]
register_before_snapshot(steps.append, "before")
register_before_snapshot(steps.append, "first")
register_after_restore(steps.append, "after")
token = uuid.uuid4().hex
def handler(event, context):
    steps.append("call")
    return [steps, token, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], random.random(), context.log_stream_name]
"#;

async fn published(harness: &Harness, source: &str) -> Option<FunctionVersion> {
    let version = Version::Published(std::num::NonZeroU64::MIN);
    Some(FunctionVersion { snap_start: true, version, ..harness.python(source).await? })
}

fn answer(body: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_made_from_the_snapshot_where_that_can_be() {
    let harness = Harness::new().await;
    let Some(function) = published(&harness, SOURCE).await else { return };
    harness.fleet.prepare(&function).await.unwrap();
    harness.fleet.snapshot(&function).await.unwrap();
    let state = harness.fleet.snap_start(function.generation);
    let cloned = state == SnapStart::On;
    assert_eq!(cloned, isolated(), "{state:?}");
    harness.empty().await;
    // Two at once, so that each has a container of its own.
    let (one, two) = tokio::join!(harness.call(&function, "{}"), harness.call(&function, "{}"));
    let (first, second) = (answer(&one.body), answer(&two.body));
    assert_eq!(first[0], serde_json::json!(["init", "first", "before", "after", "call"]));
    assert_eq!(first[1] == second[1], cloned, "one init for both");
    assert_ne!(first[3], second[3]);
    assert_ne!(first[4], second[4], "a log stream of its own");
    let tail = one.tail();
    if cloned {
        assert_eq!(first[2], "snap-start");
        assert!(tail.contains("\tRestore Duration: ") && tail.contains(" ms\tBilled Restore Duration: "), "{tail}");
        assert!(!tail.contains("Init Duration"), "{tail}");
        let said = |all: &[String]| {
            all.iter().filter(|line| line.starts_with("RESTORE_REPORT Restore Duration:")).count() == 2
        };
        let all = harness.log_until(said).await;
        assert_eq!(all.iter().filter(|line| line.starts_with("RESTORE_START Runtime Version: python:3.")).count(), 2);
        assert_eq!(all.iter().filter(|line| line.starts_with("INIT_START")).count(), 1, "{all:#?}");
    } else {
        assert!(tail.contains("Init Duration"), "{tail}");
    }
    let warm = answer(&harness.call(&function, "{}").await.body);
    assert_eq!(warm[0].as_array().unwrap().len(), 6, "{warm:?}");
    harness.fleet.retire(function.generation);
    assert_eq!(harness.fleet.snap_start(function.generation), SnapStart::Pending);
    let left = std::fs::read_dir(harness.path().join("fleet/snapshots")).unwrap().count();
    harness.empty().await;
    let directory = harness.end().await;
    assert!(left <= 1 && std::fs::read_dir(directory.path().join("fleet/snapshots")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_snapshot_starts_ordinarily_and_says_why() {
    let harness = Harness::new().await;
    let source = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n\
                  def handler(event, context): return 1\n";
    let Some(function) = published(&harness, source).await else { return };
    harness.fleet.snapshot(&function).await.unwrap();
    let SnapStart::Off(reason) = harness.fleet.snap_start(function.generation) else { panic!("it is on") };
    assert!(!isolated() || reason.contains("more than one thread"), "{reason}");
    assert_eq!(harness.call(&function, "{}").await.body, "1");
    assert_eq!(harness.fleet.status().snapshots.len(), 1);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_init_or_hook_fails_has_no_snapshot() {
    let harness = Harness::new().await;
    let hook = "from snapshot_restore_py import register_before_snapshot\n@register_before_snapshot\n\
                def fail(): raise ValueError('no')\ndef handler(event, context): return 1\n";
    for (source, kind) in [("raise ValueError('no')\n", "ValueError"), (hook, "Runtime.BeforeSnapshotError")] {
        let Some(function) = published(&harness, source).await else { return };
        let failed = harness.fleet.snapshot(&function).await;
        let refused = failed.clone().err().unwrap_or_default();
        assert!(refused.contains(kind), "{failed:?}");
        assert_eq!(harness.fleet.snap_start(function.generation), SnapStart::Pending);
    }
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_after_restore_hook_fails_the_call() {
    let harness = Harness::new().await;
    let source = "from snapshot_restore_py import register_after_restore\n@register_after_restore\n\
                  def fail(): raise ValueError('no')\ndef handler(event, context): return 1\n";
    let Some(function) = published(&harness, source).await else { return };
    harness.fleet.snapshot(&function).await.unwrap();
    if harness.fleet.snap_start(function.generation) == SnapStart::On {
        let version = Arc::new(function.clone());
        let call = call(&function, "{}", lambent_fleet::ResponseMode::Buffered);
        let running = harness.fleet.invoke(version, call).await.unwrap();
        let refused = running.response.await.unwrap().unwrap_err();
        assert!(
            matches!(&refused, lambent_fleet::Error::Restore(kind) if kind == "Runtime.AfterRestoreError"),
            "{refused:?}"
        );
    } else {
        let outcome = harness.call(&function, "{}").await;
        assert!(outcome.failed && outcome.body.contains("ValueError"), "{}", outcome.body);
    }
    harness.end().await;
}

static PRESSED: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_takes_them_ahead_of_any_call_while_there_is_memory() {
    let probe = PressureProbe(|| if PRESSED.load(Ordering::Acquire) { Pressure::High } else { Pressure::Calm });
    let harness = Harness::with(|config| config.pool.pressure = probe).await;
    let Some(function) = published(&harness, SOURCE).await else { return };
    let Some(other) = published(&harness, SOURCE).await else { return };
    assert_ne!(function.generation, other.generation);
    PRESSED.store(true, Ordering::Release);
    assert_eq!(harness.fleet.snapshot_ahead(vec![Arc::new(function.clone())]).await.unwrap(), 0);
    assert_eq!(harness.fleet.snap_start(function.generation), SnapStart::Pending);
    PRESSED.store(false, Ordering::Release);
    let versions = vec![Arc::new(function.clone()), Arc::new(other.clone())];
    assert_eq!(harness.fleet.snapshot_ahead(versions).await.unwrap(), 2);
    for version in [&function, &other] {
        let state = harness.fleet.snap_start(version.generation);
        assert_eq!(state == SnapStart::On, isolated(), "{state:?}");
    }
    harness.empty().await;
    let first = answer(&harness.call(&function, "{}").await.body);
    assert_eq!(first[2] == "snap-start", isolated(), "the first call has a clone");
    harness.end().await;
}

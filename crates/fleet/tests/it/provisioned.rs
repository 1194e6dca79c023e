//! Containers that are initialised ahead of calls and kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lambent_fleet::{Provisioned, StartKind};
use lambent_model::FunctionVersion;

use crate::harness::{Harness, isolated, processes_with};

/// Answers with why its container was made, after a moment.
const KIND: &str = "import os, time\n\
    def handler(e, c):\n    time.sleep(e)\n    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n";

impl Harness {
    /// Waits until a version's provisioned concurrency is as it should be.
    async fn provisioned(&self, function: &FunctionVersion, what: impl Fn(&Provisioned) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !what(&self.fleet.provisioned(function.generation)) {
            let found = self.fleet.provisioned(function.generation);
            assert!(Instant::now() < deadline, "{found:?}, {:?}", self.fleet.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn provision(&self, function: &FunctionVersion, count: u32) {
        self.fleet.provision(vec![(Arc::new(function.clone()), count)]);
        self.provisioned(function, |found| found.available == count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_find_them_warm_and_spill_over() {
    let harness = Harness::with(|config| config.idle_timeout = Duration::from_millis(200)).await;
    let Some(function) = harness.python(KIND).await else { return };
    harness.provision(&function, 2).await;
    let outcome = harness.call(&function, "0").await;
    assert_eq!((outcome.body.as_str(), outcome.report.start), ("\"provisioned-concurrency\"", StartKind::Warm));
    assert_eq!(outcome.report.init, None, "nobody waited for it");
    let mut kinds: Vec<_> = join_all((0..3).map(|_| harness.call(&function, "1"))).await;
    kinds.sort_by(|a, b| a.body.cmp(&b.body));
    let kinds: Vec<&str> = kinds.iter().map(|outcome| outcome.body.trim_matches('"')).collect();
    assert_eq!(kinds, ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]);
    // The third goes when it was idle for long enough, the others stay.
    harness.settled("idle", 2).await;
    assert_eq!(harness.fleet.provisioned(function.generation).available, 2);
    let log = harness.log_until(|log| log.iter().any(|line| line.starts_with("REPORT"))).await;
    assert!(log.iter().any(|line| line.starts_with("INIT_START")), "{log:#?}");
    harness.provision(&function, 1).await;
    harness.settled("idle", 1).await;
    harness.fleet.provision(Vec::new());
    harness.empty().await;
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_made_again() {
    let harness = Harness::new().await;
    let Some(function) = harness.python(KIND).await else { return };
    harness.provision(&function, 1).await;
    let first = harness.fleet.status().containers;
    if isolated() {
        // Processes of real cells do not carry the mark.
        return drop(harness.end().await);
    }
    let mark = format!("AWS_LAMBDA_LOG_GROUP_NAME={}", function.logging.group);
    let cells = harness.path().join("cells").to_string_lossy().into_owned();
    let ours: Vec<u32> = processes_with(&cells).into_iter().filter(|pid| processes_with(&mark).contains(pid)).collect();
    for pid in ours {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let known = |id| first.iter().any(|container| container.id == id);
    while !harness.fleet.status().containers.iter().any(|now| !known(now.id) && now.state == "idle") {
        assert!(Instant::now() < deadline, "{:?}", harness.fleet.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(harness.call(&function, "0").await.body, "\"provisioned-concurrency\"");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_so_and_is_tried_again() {
    let harness = Harness::new().await;
    let source = "import os, sys\nassert os.path.exists(os.path.join(os.path.dirname(__file__), 'now'))\n\
        def handler(e, c): return 1\n";
    let Some(function) = harness.python(source).await else { return };
    harness.fleet.provision(vec![(Arc::new(function.clone()), 1)]);
    let failed = Provisioned { available: 0, failure: Some("FUNCTION_ERROR_INIT_FAILURE".to_owned()) };
    harness.provisioned(&function, |found| *found == failed).await;
    let code = harness.path().join("fleet/code").join(function.code.digest.to_string());
    std::fs::write(code.join("now"), "").unwrap();
    harness.provisioned(&function, |found| *found == Provisioned { available: 1, failure: None }).await;
    harness.end().await;
}

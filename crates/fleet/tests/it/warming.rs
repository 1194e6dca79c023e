//! Instances that wait for whoever needs one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lambent_fleet::{Error, FleetConfig, KindStatus, Pressure, PressureProbe, StartKind};
use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;
use lambent_sandbox::{Barrier, BlankSpec, Cell, CellSpec, Sandbox, Template, TemplateSpec};

use crate::harness::{Harness, finish, isolated, processes_with, sandbox};

/// Says whether the runtime had waited: only then is more loaded than a function asks for.
const WAITED: &str = "import sys\nWAITED = 'decimal' in sys.modules\ndef handler(e, c):\n    return WAITED\n";

impl Harness {
    /// Waits until the pool is as it should be.
    async fn warmed(&self, what: &str, is_so: impl Fn(&[KindStatus]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(&self.fleet.status().warming) {
            assert!(Instant::now() < deadline, "never {what}: {:?}", self.fleet.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn full(&self) {
        self.warmed("full", |kinds| {
            !kinds.is_empty() && kinds.iter().all(|kind| kind.waiting >= kind.target.max(1) && kind.building == 0)
        })
        .await;
    }

    /// A Python function for which an instance waits.
    async fn expected(&self, source: &str) -> Option<FunctionVersion> {
        let function = self.python(source).await?;
        self.fleet.prepare(&function).await.unwrap();
        self.full().await;
        Some(function)
    }

    fn waiting(&self) -> usize {
        self.fleet.status().warming.iter().map(|kind| kind.waiting).sum()
    }
}

fn without_pool(config: &mut FleetConfig) {
    config.pool.ceiling = 0;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_call_takes_what_waits_and_the_pool_is_filled_again() {
    let harness = Harness::new().await;
    let Some(function) = harness.expected(WAITED).await else { return };
    let outcome = harness.call(&function, "{}").await;
    assert_eq!((outcome.body.as_str(), outcome.report.start), ("true", StartKind::Cold), "{}", outcome.tail());
    assert!(outcome.report.init.is_some());
    harness.full().await;
    assert_eq!(harness.fleet.status().containers.len(), 1, "what waits is no container");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pool_everything_is_built_in_the_calls_way() {
    let harness = Harness::with(without_pool).await;
    let Some(function) = harness.python(WAITED).await else { return };
    harness.fleet.prepare(&function).await.unwrap();
    assert_eq!(harness.call(&function, "{}").await.body, "false");
    assert_eq!(harness.waiting(), 0);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_and_shells_wait_too() {
    let harness = Harness::new().await;
    let Some(shell) = harness.shell("while true; do next; answer 1; done").await else { return };
    harness.fleet.prepare(&shell).await.unwrap();
    let node = harness.fleet.runtimes().into_iter().find(|runtime| matches!(runtime, Runtime::Node { .. }));
    if let Some(node) = node {
        let source = "exports.handler = async () => [process.env.MINE, process.cwd(), require.main.filename];";
        let mut function = harness.function(node, &[("app.js", source)]).await;
        function.environment.insert("MINE".to_owned(), "mine".to_owned());
        harness.fleet.prepare(&function).await.unwrap();
        harness.full().await;
        let body = harness.call(&function, "{}").await.body;
        assert!(body.contains("\"mine\"") && body.contains("bootstrap.cjs"), "{body}");
    }
    harness.full().await;
    assert_eq!(harness.call(&shell, "{}").await.body, "1");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_start_obeys_is_started() {
    let harness = Harness::new().await;
    let source = format!("{WAITED}\nimport os\nHASH = hash('x')\nhandler = lambda e, c: [WAITED, HASH]\n");
    let Some(mut function) = harness.expected(&source).await else { return };
    function.environment.insert("PYTHONHASHSEED".to_owned(), "1".to_owned());
    let first = harness.call(&function, "{}").await.body;
    function.generation = uuid::Uuid::new_v4();
    assert!(first.starts_with("[false"), "{first}");
    assert_eq!(harness.call(&function, "{}").await.body, first, "the seed counts");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_while_it_waits_is_replaced() {
    let harness = Harness::with(|config| config.pool.floor = 5).await;
    let Some(function) = harness.expected(WAITED).await else { return };
    let mark = harness.path().join("cells").to_string_lossy().into_owned();
    let mut killed = Vec::new();
    // Processes of real cells do not carry the mark.
    for _ in 0..if isolated() { 0 } else { 3 } {
        let fresh = |_: &[KindStatus]| processes_with(&mark).iter().filter(|pid| !killed.contains(*pid)).count() == 5;
        harness.warmed("another", fresh).await;
        for pid in processes_with(&mark) {
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
            killed.push(pid);
        }
    }
    let alive = |_: &[KindStatus]| isolated() || processes_with(&mark).iter().any(|pid| !killed.contains(pid));
    harness.warmed("one that lives", alive).await;
    harness.full().await;
    assert_eq!(harness.call(&function, "{}").await.body, "true");
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_account_meets_another() {
    let harness = Harness::with(|config| config.pool.ceiling = 2).await;
    let source = "import os, tempfile\n\
        SEEN = os.listdir(tempfile.gettempdir())\n\
        def handler(e, c):\n\
        \x20   open(os.path.join(tempfile.gettempdir(), os.environ['OWNER']), 'w').close()\n\
        \x20   return SEEN + [k for k in os.environ if k.startswith('OF_') and k != 'OF_' + os.environ['OWNER']]\n";
    let Some(function) = harness.expected(source).await else { return };
    for round in 0..4 {
        let owner = format!("{}{}", ["A", "B"][round % 2], round);
        let mut function = function.clone();
        function.arn.account = format!("{:012}", round % 2).parse().unwrap();
        function.generation = uuid::Uuid::new_v4();
        function.environment.insert("OWNER".to_owned(), owner.clone());
        function.environment.insert(format!("OF_{owner}"), "1".to_owned());
        assert_eq!(harness.call(&function, "{}").await.body, "[]");
    }
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vanished_code_is_a_clean_error_and_costs_no_more_than_it_must() {
    let harness = Harness::new().await;
    let Some(function) = harness.expected(WAITED).await else { return };
    let code = harness.path().join("fleet/code").join(function.code.digest.to_string());
    let aside = code.with_extension("aside");
    std::fs::rename(&code, &aside).unwrap();
    let running = harness.start(&function, "{}").await.unwrap();
    let refused = running.response.await.unwrap();
    assert!(matches!(refused, Err(Error::Sandbox(_))), "{refused:?}");
    std::fs::rename(&aside, &code).unwrap();
    harness.empty().await;
    harness.full().await;
    assert_eq!(harness.call(&function, "{}").await.body, "true");
    harness.end().await;
}

static PRESSED: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread")]
async fn a_short_host_gets_the_pool_back_first_and_idle_containers_then() {
    let probe = PressureProbe(|| if PRESSED.load(Ordering::Acquire) { Pressure::High } else { Pressure::Calm });
    let harness = Harness::with(|config| config.pool.pressure = probe).await;
    let Some(function) = harness.expected(WAITED).await else { return };
    harness.call(&function, "{}").await;
    harness.settled("idle", 1).await;
    harness.full().await;
    PRESSED.store(true, Ordering::Release);
    harness.warmed("empty", |kinds| kinds.iter().all(|kind| kind.waiting + kind.building == 0)).await;
    harness.empty().await;
    assert!(!harness.call(&function, "{}").await.failed, "calls are served all the same");
    PRESSED.store(false, Ordering::Release);
    harness.full().await;
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_ends_with_the_node() {
    let harness = Harness::with(|config| config.pool.floor = 4).await;
    if harness.expected(WAITED).await.is_none() {
        return;
    }
    assert_eq!(harness.waiting(), 4);
    // Looks for processes that are left.
    harness.end().await;
}

/// A back end that fails as often as it is told to.
struct Failing {
    inner: Arc<dyn Sandbox>,
    failures: Arc<AtomicU32>,
}

#[async_trait]
impl Sandbox for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    async fn create(&self, spec: CellSpec) -> Result<Arc<dyn Cell>, lambent_sandbox::Error> {
        self.inner.create(spec).await
    }

    async fn blank(&self, spec: BlankSpec) -> Result<Arc<dyn Cell>, lambent_sandbox::Error> {
        let left = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(lambent_sandbox::Error::Ended),
            Err(_) => self.inner.blank(spec).await,
        }
    }

    async fn template(&self, spec: TemplateSpec) -> Result<Arc<dyn Template>, lambent_sandbox::Error> {
        self.inner.template(spec).await
    }

    fn freezes(&self) -> bool {
        self.inner.freezes()
    }

    async fn recover(&self) -> Result<usize, lambent_sandbox::Error> {
        self.inner.recover().await
    }

    fn barriers(&self) -> Vec<Barrier> {
        self.inner.barriers()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_end_that_fails_is_tried_again_and_calls_say_so() {
    let failures = Arc::new(AtomicU32::new(u32::MAX));
    let counted = Arc::clone(&failures);
    let wrap = move |path: &std::path::Path| -> Arc<dyn Sandbox> {
        Arc::new(Failing { inner: sandbox(path), failures: counted })
    };
    let harness = Harness::over(wrap, |_| {}).await;
    let Some(function) = harness.python(WAITED).await else { return };
    harness.fleet.prepare(&function).await.unwrap();
    let running = harness.start(&function, "{}").await.unwrap();
    let refused = running.response.await.unwrap();
    assert!(matches!(refused, Err(Error::Sandbox(_))), "{refused:?}");
    failures.store(2, Ordering::Release);
    harness.full().await;
    assert_eq!(finish(harness.start(&function, "{}").await.unwrap()).await.body, "true");
    harness.end().await;
}

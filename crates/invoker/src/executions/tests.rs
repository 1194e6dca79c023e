//! Executions over a function, a world and a clock that tests turn by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lambent_fleet::{LogTail, Stages};
use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::idempotency::Resource;
use lambent_model::{FunctionArn, FunctionVersion, Qualifier, Region, RequestId, Version};
use lambent_registry::{EventSettings, State as FunctionState};
use lambent_store::Embedded;
use lambent_store::records::{NewRecord, Query};
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;

/// URLs and their ETags, and the code, at a time.
type Past = (Timestamp, HashMap<String, Option<String>>, uuid::Uuid);

/// Everything outside of executions.
struct World {
    now: Mutex<Timestamp>,
    resolved: Mutex<Resolved>,
    /// URL to its ETag; none: it does not answer.
    outside: Mutex<HashMap<String, Option<String>>>,
    runs: AtomicU64,
    looks: AtomicU64,
    /// As `gate`, for looks.
    sight: Semaphore,
    /// A run takes one and puts it back: without any, runs wait.
    gate: Semaphore,
    /// A function that was deleted.
    gone: Mutex<Option<FunctionArn>>,
    fails: Mutex<bool>,
    refuses: Mutex<bool>,
    /// What its code reports, and what comes of that.
    reports: Mutex<Vec<String>>,
    reported: Mutex<Option<Result<Reported, String>>>,
    /// A change that comes while it runs: before it reports, before it reads, or after.
    during: Mutex<Option<(Moment, String, Option<String>)>>,
    /// Who is told what its code reports.
    executions: Mutex<std::sync::Weak<Executions>>,
    /// The world as it became, and when; for the property below.
    past: Mutex<Vec<Past>>,
}

/// When in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Begun,
    Reported,
    Read,
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
}

impl Directory for World {
    fn resolve(&self, arn: &FunctionArn, _: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error> {
        if self.gone.lock().unwrap().as_ref() == Some(arn) {
            return Err(lambent_registry::Error::ResourceNotFound(arn.to_string()));
        }
        Ok(self.resolved.lock().unwrap().clone())
    }

    fn reserved_total(&self) -> u32 {
        0
    }

    fn event_settings(&self, _: &FunctionArn, _: Option<&Qualifier>) -> Result<EventSettings, lambent_registry::Error> {
        Err(lambent_registry::Error::TooManyRequests)
    }
}

#[async_trait]
impl Inspect for World {
    async fn state(&self, resource: &Resource) -> Result<State, Unknown> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let found = self.outside.lock().unwrap().get(&resource.to_string()).cloned();
        let _pass = self.sight.acquire().await.unwrap();
        match found {
            None => Ok(State::Absent),
            Some(Some(etag)) => Ok(State::Etag(etag)),
            Some(None) => Err(Unknown("it does not answer".to_owned())),
        }
    }

    fn check(&self, _: &FunctionArn, resource: &Resource) -> Result<(), Unknown> {
        match resource.to_string().starts_with("rows:others") {
            true => Err(Unknown("it is for others".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Run for World {
    /// Answers with what the world is like, and with the number of the run.
    async fn run(&self, _: Resolved, invocation: Invocation) -> Result<Answer, Error> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        self.comes_to(Moment::Begun);
        let (names, executions) = (self.reports.lock().unwrap().clone(), self.executions.lock().unwrap().upgrade());
        if let (Some(executions), false) = (executions, names.is_empty()) {
            let reported = executions.report(invocation.request_id, &names).await;
            *self.reported.lock().unwrap() = Some(reported.map_err(|error| error.to_string()));
        }
        self.comes_to(Moment::Reported);
        let sight = self.sight(&invocation.payload);
        self.comes_to(Moment::Read);
        let _pass = self.gate.acquire().await.unwrap();
        if *self.refuses.lock().unwrap() {
            return Err(Error::ShuttingDown);
        }
        Ok(Answer {
            executed_version: Version::Latest,
            request_id: invocation.request_id,
            error: self.fails.lock().unwrap().then_some(ErrorKind::Unhandled),
            content_type: "application/json".to_owned(),
            body: Body::Buffered(json!({"run": number, "sight": sight}).to_string().into()),
            stages: Stages::since(invocation.received_at),
            log_tail: None,
            finished: None,
            execution: None,
            affinity: None,
        })
    }
}

impl World {
    /// What a run sees.
    fn sight(&self, payload: &[u8]) -> String {
        let generation = self.resolved.lock().unwrap().version.generation;
        sighted(&self.outside.lock().unwrap(), generation, payload)
    }

    fn set(&self, url: &str, etag: Option<&str>) {
        self.outside.lock().unwrap().insert(url.to_owned(), etag.map(str::to_owned));
        self.remember();
    }

    fn comes_to(&self, moment: Moment) {
        let mut during = self.during.lock().unwrap();
        if let Some((_, url, etag)) = during.take_if(|(when, ..)| *when == moment) {
            self.pass(150);
            self.set(&url, etag.as_deref());
            self.pass(150);
        }
    }

    fn remember(&self) {
        let generation = self.resolved.lock().unwrap().version.generation;
        self.past.lock().unwrap().push((self.now(), self.outside.lock().unwrap().clone(), generation));
    }

    fn reports(&self, names: &[&str]) {
        *self.reports.lock().unwrap() = names.iter().map(|&name| name.to_owned()).collect();
    }

    /// What came of the last report.
    fn reported(&self) -> Result<Reported, String> {
        self.reported.lock().unwrap().take().unwrap()
    }

    fn pass(&self, milliseconds: i64) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
    }

    fn deploy(&self) {
        let mut resolved = self.resolved.lock().unwrap();
        let generation = uuid::Uuid::new_v4();
        resolved.version = Arc::new(FunctionVersion { generation, ..FunctionVersion::clone(&resolved.version) });
    }

    fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
}

fn sighted(outside: &HashMap<String, Option<String>>, generation: uuid::Uuid, payload: &[u8]) -> String {
    let mut outside: Vec<_> = outside.iter().collect();
    outside.sort();
    format!("{outside:?} {generation} {}", String::from_utf8_lossy(payload))
}

struct Bench {
    world: Arc<World>,
    executions: Arc<Executions>,
    records: Arc<dyn Records>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(setting: serde_json::Value) -> Self {
        Self::holding(setting, 1 << 20)
    }

    fn holding(setting: serde_json::Value, memory_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("store")).unwrap();
        let world = Arc::new(World {
            now: Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()),
            resolved: Mutex::new(resolved(setting)),
            outside: Mutex::default(),
            runs: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            sight: Semaphore::new(1000),
            gate: Semaphore::new(1000),
            gone: Mutex::default(),
            fails: Mutex::new(false),
            refuses: Mutex::new(false),
            reports: Mutex::default(),
            reported: Mutex::default(),
            during: Mutex::default(),
            executions: Mutex::default(),
            past: Mutex::default(),
        });
        let executions = executions(&store.records, &world, memory_bytes);
        Self { executions, records: store.records.clone(), world, _dir: dir }
    }

    /// As after a restart: what was in memory is gone.
    fn restart(&mut self) {
        self.executions = executions(&self.records, &self.world, 1 << 20);
    }

    async fn ask(&self, payload: &str, ask: Option<Ask>) -> Result<(String, Execution), Error> {
        let resolved = self.world.resolved.lock().unwrap().clone();
        let invocation = invocation(&resolved, payload, ask);
        let answer = self.executions.invoke(self.world.clone(), resolved, invocation).await?;
        let Body::Buffered(body) = answer.body else { panic!() };
        let execution = answer.execution.unwrap_or(Execution::Ran { record: None });
        Ok((String::from_utf8(body.to_vec()).unwrap(), execution))
    }

    fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<Execution> {
        let bench = self.clone();
        tokio::spawn(async move { bench.ask("1", None).await.unwrap().1 })
    }

    async fn is_reused(&self, payload: &str) -> bool {
        matches!(self.ask(payload, None).await.unwrap().1, Execution::Reused { .. })
    }
}

fn executions(records: &Arc<dyn Records>, world: &Arc<World>, memory_bytes: usize) -> Arc<Executions> {
    let executions = Executions::start(records.clone(), world.clone(), world.clone(), world.clone(), memory_bytes);
    *world.executions.lock().unwrap() = Arc::downgrade(&executions);
    executions
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

fn by_key(key: &str) -> Option<Ask> {
    Some(Ask { key: Some(key.to_owned()), ..Ask::default() })
}

fn invocation(resolved: &Resolved, payload: &str, idempotency: Option<Ask>) -> Invocation {
    Invocation {
        function: resolved.version.arn.clone(),
        qualifier: None,
        request_id: RequestId::random(),
        payload: payload.to_owned().into(),
        client_context: None,
        cognito_identity: None,
        tenant: None,
        affinity: None,
        trace: None,
        mode: AnswerMode::Buffered { log_tail: LogTail::None },
        received_at: Instant::now(),
        idempotency,
        turn: None,
    }
}

fn resolved(setting: serde_json::Value) -> Resolved {
    let version = FunctionVersion {
        arn: FunctionArn { region: Region::default(), account: Default::default(), name: "one".parse().unwrap() },
        version: Version::Latest,
        generation: uuid::Uuid::new_v4(),
        runtime: Runtime::Provided(Provided::Al2023),
        handler: None,
        code: CodeRef { zipped_bytes: 0, digest: "0".repeat(64).parse().unwrap() },
        layers: Vec::new(),
        environment: Default::default(),
        timeout: Duration::from_secs(3),
        memory_mib: 128,
        ephemeral_mib: 512,
        network: Network::Internet,
        logging: Logging {
            group: "/aws/lambda/one".to_owned(),
            format: LogFormat::Text,
            application_level: None,
            system_level: None,
        },
        tracing: TracingMode::PassThrough,
        snap_start: false,
        per_tenant: false,
    };
    Resolved {
        invoked_arn: version.arn.to_string(),
        version: version.into(),
        additional: None,
        state: FunctionState::Active,
        state_reason: None,
        reserved_concurrency: None,
        policy: None,
        idempotency: Some(Arc::new(serde_json::from_value(setting).unwrap())),
        affinity: None,
    }
}

#[tokio::test]
async fn a_key_runs_once_and_survives_a_restart() {
    let mut bench = Bench::new(json!({"mode": "off", "window_secs": 60}));
    let (first, ran) = bench.ask("1", by_key("a")).await.unwrap();
    let Execution::Ran { record: Some(record) } = ran else { panic!("{ran:?}") };
    bench.world.pass(5_000);
    for _ in 0..2 {
        let (again, reused) = bench.ask("1", by_key("a")).await.unwrap();
        let age = Duration::from_secs(5);
        assert_eq!((&again, reused), (&first, Execution::Reused { record: Some(record), age }));
        assert_eq!(reused.to_string(), format!("reused; record={record}; age=5"));
        bench.restart();
    }
    assert_ne!(bench.ask("1", by_key("b")).await.unwrap().0, first);
    assert_ne!(bench.ask("1", None).await.unwrap().0, first, "off");
    bench.world.pass(56_000);
    assert_ne!(bench.ask("1", by_key("a")).await.unwrap().0, first, "its window is over");
}

#[tokio::test]
async fn a_key_stands_for_one_payload() {
    let bench = Bench::new(json!({"mode": "key", "key": "$.id", "input": ["$.amount"]}));
    let first = bench.ask(r#"{"id": 7, "amount": 1, "sent": 1}"#, None).await.unwrap().0;
    assert_eq!(bench.ask(r#"{"id": 7, "amount": 1, "sent": 2}"#, None).await.unwrap().0, first);
    let refused = bench.ask(r#"{"id": 7, "amount": 2}"#, None).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("IdempotentParameterMismatchException", 400));
    // Without a key each runs; who asks for one by name is told.
    assert!(!bench.is_reused("{}").await);
    assert!(!bench.is_reused("no JSON").await);
    let ask = Some(Ask { mode: Some(Mode::Key), ..Ask::default() });
    assert!(matches!(bench.ask("{}", ask).await, Err(Error::NoIdempotencyKey)));
    assert_eq!(bench.world.runs(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_at_the_same_time_share_one_run_also_when_its_caller_goes() {
    for setting in [json!({"mode": "key", "key": "$"}), json!({"mode": "dependencies", "on": ["https://h/a"]})] {
        let bench = Arc::new(Bench::new(setting));
        let all = bench.world.gate.acquire_many(1000).await.unwrap();
        let mut asked = Vec::new();
        for _ in 0..10 {
            let theirs = bench.clone();
            asked.push(tokio::spawn(async move { theirs.ask("1", None).await.unwrap().0 }));
            while bench.world.runs() == 0 {
                tokio::task::yield_now().await;
            }
        }
        asked.remove(0).abort();
        drop(all);
        let mut answers = Vec::new();
        for task in asked {
            answers.push(task.await.unwrap());
        }
        answers.dedup();
        assert_eq!((answers.len(), bench.world.runs()), (1, 1));
    }
}

#[tokio::test]
async fn failures_are_not_kept_unless_asked() {
    for (reuse_errors, runs) in [(false, 3), (true, 1)] {
        for setting in [json!({"mode": "key", "key": "$"}), json!({"mode": "dependencies"})] {
            let mut setting = setting;
            setting["reuse_errors"] = reuse_errors.into();
            let bench = Bench::new(setting);
            *bench.world.fails.lock().unwrap() = true;
            for _ in 0..3 {
                bench.ask("1", None).await.unwrap();
            }
            assert_eq!(bench.world.runs(), runs);
        }
    }
}

#[tokio::test]
async fn what_was_refused_leaves_the_key_free() {
    let bench = Bench::new(json!({"mode": "key", "key": "$"}));
    *bench.world.refuses.lock().unwrap() = true;
    assert!(matches!(bench.ask("1", None).await, Err(Error::ShuttingDown)));
    assert_eq!(bench.records.usage().await.unwrap().records, 0);
    *bench.world.refuses.lock().unwrap() = false;
    assert!(!bench.is_reused("1").await);
    assert!(bench.is_reused("1").await);
}

#[tokio::test]
async fn a_start_whose_process_died_runs_again() {
    let bench = Bench::new(json!({"mode": "key", "key": "$"}));
    bench.ask("1", None).await.unwrap();
    let done = bench.records.list(Query { limit: 1, ..Query::default() }).await.unwrap().remove(0);
    bench.records.forget(vec![done.id]).await.unwrap();
    // As it is on disk when the process dies during the run.
    let started = NewRecord {
        key: done.key,
        account: done.account,
        function: done.function,
        expires: done.expires,
        meta: done.meta,
    };
    bench.records.begin(started, bench.world.now()).await.unwrap();
    let mut bench = bench;
    bench.restart();
    assert!(!bench.is_reused("1").await);
    assert!(bench.is_reused("1").await);
    let records = bench.records.list(Query { limit: 9, ..Query::default() }).await.unwrap();
    assert_eq!((records.len(), records[0].turn), (1, 2), "one success is on record");
}

#[tokio::test]
async fn an_answer_counts_until_something_changes() {
    let mut bench = Bench::new(json!({"mode": "dependencies", "input": ["$.a"], "on": ["https://h/{$.a}"]}));
    bench.world.set("https://h/x", Some("1"));
    let payload = r#"{"a": "x", "b": 1}"#;
    assert!(!bench.is_reused(payload).await);
    assert!(bench.is_reused(r#"{"a": "x", "b": 2}"#).await, "only $.a matters");
    assert!(!bench.is_reused(r#"{"a": "y"}"#).await);
    bench.restart();
    assert!(bench.is_reused(payload).await);
    bench.world.set("https://h/x", Some("2"));
    assert!(!bench.is_reused(payload).await);
    assert!(bench.is_reused(payload).await);
    bench.world.deploy();
    assert!(!bench.is_reused(payload).await, "its code changed");
    assert!(bench.is_reused(payload).await);
    bench.world.set("https://h/x", None);
    assert!(!bench.is_reused(payload).await, "it cannot be told");
    bench.world.set("https://h/x", Some("2"));
    assert!(bench.is_reused(payload).await, "it is as it was recorded when it could be told");
    bench.world.set("https://h/x", Some("3"));
    assert!(!bench.is_reused(payload).await);
    assert!(bench.is_reused(payload).await);
}

#[tokio::test]
async fn those_who_come_at_the_same_time_share_looks() {
    for is_on_record in [false, true] {
        let bench = Arc::new(Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"]})));
        bench.world.gate.forget_permits(1000);
        let first = bench.spawn();
        until(|| bench.world.runs() == 1).await;
        if is_on_record {
            bench.world.gate.add_permits(1000);
            first.await.unwrap();
        }
        bench.world.sight.forget_permits(1000);
        let before = bench.world.looks();
        let asked: Vec<_> = (0..10).map(|_| bench.spawn()).collect();
        // All have come: on one thread they had their turn before this has it again.
        tokio::task::yield_now().await;
        bench.world.gate.add_permits(1000);
        until(|| bench.world.looks() > before).await;
        bench.world.sight.add_permits(1000);
        for task in asked {
            assert!(matches!(task.await.unwrap(), Execution::Reused { .. }));
        }
        let looks = bench.world.looks() - before;
        assert_eq!(bench.executions.looks.going(), 0);
        assert!(looks <= 2, "one, and one for those who came during it: {looks}");
        assert_eq!(bench.world.runs(), 1);
    }
}

#[tokio::test]
async fn a_look_says_nothing_to_those_who_came_after_it_began() {
    let bench = Arc::new(Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"]})));
    bench.world.set("https://h/a", Some("1"));
    bench.ask("1", None).await.unwrap();
    bench.world.sight.forget_permits(1000);
    let before = bench.world.looks();
    let early = bench.spawn();
    until(|| bench.world.looks() > before).await;
    bench.world.set("https://h/a", Some("2"));
    let late = bench.spawn();
    tokio::task::yield_now().await;
    bench.world.sight.add_permits(1000);
    assert!(matches!(early.await.unwrap(), Execution::Reused { .. }));
    assert!(matches!(late.await.unwrap(), Execution::Ran { .. }), "the change came before it");
}

#[tokio::test]
async fn an_unchecked_run_takes_no_good_records_place() {
    let mut bench = Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"]}));
    bench.world.set("https://h/a", None);
    let (_, Execution::Ran { record: Some(unchecked) }) = bench.ask("1", None).await.unwrap() else { panic!() };
    let why = bench.executions.why(&Default::default(), unchecked.0).await.unwrap().unwrap();
    assert!(!why.is_reusable, "kept, so that people see why it is not used");
    bench.world.set("https://h/a", Some("1"));
    let (_, Execution::Ran { record: Some(good) }) = bench.ask("1", None).await.unwrap() else { panic!() };
    bench.world.set("https://h/a", None);
    let together = tokio::join!(bench.ask("1", None), bench.ask("1", None));
    for (_, execution) in [together.0.unwrap(), together.1.unwrap()] {
        assert_eq!(execution, Execution::Ran { record: None }, "who waited cannot tell either and runs");
    }
    bench.world.set("https://h/a", Some("1"));
    for _ in 0..2 {
        let reused = bench.ask("1", None).await.unwrap().1;
        assert_eq!(reused, Execution::Reused { record: Some(good), age: Duration::ZERO });
        bench.restart();
    }
    bench.world.deploy();
    bench.world.set("https://h/a", None);
    let ran = bench.ask("1", None).await.unwrap().1;
    assert!(matches!(ran, Execution::Ran { record: Some(_) }), "the good one is of other code");
}

#[tokio::test]
async fn fresh_states_are_not_looked_at() {
    let bench = Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"], "fresh_ms": 1000}));
    bench.world.set("https://h/a", Some("1"));
    assert!(!bench.is_reused("1").await);
    bench.world.set("https://h/a", Some("2"));
    bench.world.pass(999);
    assert!(bench.is_reused("1").await);
    assert_eq!(bench.world.looks(), 2, "before the run and after it");
    bench.world.pass(1);
    assert!(!bench.is_reused("1").await);
}

#[tokio::test]
async fn why_says_what_changed_and_drop_forgets() {
    let bench = Bench::new(json!({"mode": "dependencies", "on": ["https://h/a", "function:other"]}));
    bench.world.set("https://h/a", Some("1"));
    let (_, Execution::Ran { record: Some(id) }) = bench.ask("1", None).await.unwrap() else { panic!() };
    let account = Default::default();
    let why = bench.executions.why(&account, id.0).await.unwrap().unwrap();
    assert!(why.is_reusable && why.dependencies.len() == 3, "{why:?}");
    bench.world.set("https://h/a", Some("2"));
    let why = bench.executions.why(&account, id.0).await.unwrap().unwrap();
    assert_eq!(why.because, "changed, or not to be told: https://h/a");
    bench.world.deploy();
    let why = bench.executions.why(&account, id.0).await.unwrap().unwrap();
    assert!(why.dependencies.iter().all(|each| !each.is_unchanged), "{why:?}");
    let stranger = "111111111111".parse().unwrap();
    assert!(bench.executions.show(&stranger, id.0).await.unwrap().is_none());
    assert!(!bench.executions.discard(&stranger, id.0).await.unwrap());
    assert!(bench.executions.discard(&account, id.0).await.unwrap());
    assert!(!bench.is_reused("1").await);
    assert_eq!(bench.executions.list(&account, Filter::default()).await.unwrap().len(), 1);
    let arn = bench.world.resolved.lock().unwrap().version.arn.to_string();
    assert_eq!(bench.executions.purge(&account, arn).await.unwrap(), 1);
}

#[tokio::test]
async fn what_belongs_to_no_function_is_swept_at_the_start() {
    let mut bench = Bench::new(json!({"mode": "key", "key": "$"}));
    let one = bench.world.resolved.lock().unwrap().version.arn.clone();
    let two = FunctionArn { name: "two".parse().unwrap(), ..one.clone() };
    bench.ask("1", None).await.unwrap();
    let done = bench.records.list(Query { limit: 1, ..Query::default() }).await.unwrap().remove(0);
    // As a process leaves it that ends after the function's deletion, before that of its records.
    *bench.world.gone.lock().unwrap() = Some(two.clone());
    for (key, function) in [("a", two.to_string()), ("b", two.to_string()), ("c", "no ARN".to_owned())] {
        let (account, meta) = (two.account.to_string(), done.meta.clone());
        let new = NewRecord { key: key.to_owned(), account, function, expires: done.expires, meta };
        match key {
            "a" => drop(bench.records.begin(new, done.started).await.unwrap()),
            _ => drop(bench.records.put(new, Bytes::new(), done.started, done.started).await.unwrap()),
        }
    }
    bench.restart();
    assert_eq!(bench.executions.sweep().await.unwrap(), 2);
    let left = bench.records.list(Query { limit: 9, ..Query::default() }).await.unwrap();
    assert_eq!(left.iter().map(|record| record.function.as_str()).collect::<Vec<_>>(), [&*one.to_string(), "no ARN"]);
    assert!(bench.is_reused("1").await);
    *bench.world.gone.lock().unwrap() = Some(one);
    assert_eq!(bench.executions.sweep().await.unwrap(), 1);
    assert_eq!(bench.executions.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn what_the_code_reports_is_looked_at_as_well() {
    let mut bench = Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"]}));
    let (a, b) = ("https://h/a", r#"rows:shop/SELECT 1 WHERE x = {"y"}"#);
    bench.world.reports(&[b, a, b]);
    let (_, Execution::Ran { record: Some(id) }) = bench.ask("1", None).await.unwrap() else { panic!() };
    assert_eq!(bench.world.reported(), Ok(Reported::Noted(vec![])));
    assert_eq!(bench.world.looks(), 4, "before and after; what is declared as well is one of the former");
    for _ in 0..2 {
        assert!(bench.is_reused("1").await);
        let why = bench.executions.why(&Default::default(), id.0).await.unwrap().unwrap();
        let origins: Vec<_> = why.dependencies.iter().map(|each| (each.name.as_str(), each.origin)).collect();
        let own = ("code and configuration", Origin::Own);
        assert_eq!(origins, [own, (a, Origin::Declared), (b, Origin::Reported)]);
        assert!(why.is_reusable);
        bench.restart();
    }
    bench.world.set(b, Some("1"));
    bench.world.reports(&[]);
    assert!(!bench.is_reused("1").await);
    bench.world.set(b, Some("2"));
    assert!(bench.is_reused("1").await, "the last run depended on it no more");
}

#[tokio::test]
async fn a_state_that_comes_back_brings_no_answer_from_between() {
    for moment in [Moment::Begun, Moment::Reported, Moment::Read] {
        for setting in [json!({"mode": "dependencies", "on": ["https://h/a"]}), json!({"mode": "dependencies"})] {
            let mut bench = Bench::new(setting);
            bench.world.reports(&["https://h/a"]);
            bench.world.set("https://h/a", Some("1"));
            *bench.world.during.lock().unwrap() = Some((moment, "https://h/a".to_owned(), Some("2".to_owned())));
            bench.ask("1", None).await.unwrap();
            bench.restart();
            bench.world.set("https://h/a", Some("1"));
            let (answer, execution) = bench.ask("1", None).await.unwrap();
            assert!(matches!(execution, Execution::Ran { .. }), "{moment:?}: {answer}");
            bench.world.set("https://h/a", None);
            bench.ask("1", None).await.unwrap();
            bench.world.set("https://h/a", Some("1"));
            assert!(bench.is_reused("1").await, "what was read then is true again");
        }
    }
}

#[tokio::test]
async fn a_change_after_the_report_is_noticed_and_one_before_it_is_known() {
    for (moment, is_reused) in [(Moment::Begun, true), (Moment::Reported, false), (Moment::Read, false)] {
        let bench = Bench::new(json!({"mode": "dependencies"}));
        bench.world.reports(&["https://h/a"]);
        *bench.world.during.lock().unwrap() = Some((moment, "https://h/a".to_owned(), Some("1".to_owned())));
        let first = bench.ask("1", None).await.unwrap().0;
        assert_eq!(bench.is_reused("1").await, is_reused, "{moment:?}");
        let second = bench.ask("1", None).await.unwrap().0;
        assert_eq!(first == second, is_reused, "{moment:?}");
    }
}

#[tokio::test]
async fn reports_that_say_nothing_leave_no_record_to_reuse() {
    let long = format!("https://h/{}", "a".repeat(2048));
    let many: Vec<String> = (0..65).map(|n| format!("https://h/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, expected) in [
        (&["nonsense"][..], r#""nonsense" is no dependency: begin it with"#),
        (&[long.as_str()], "it has 2058 bytes; it may have 2048"),
        (&many, "With these the invocation would have reported 65 dependencies; it may report 64"),
    ] {
        let bench = Bench::new(json!({"mode": "dependencies"}));
        bench.world.reports(names);
        let (_, Execution::Ran { record: Some(id) }) = bench.ask("1", None).await.unwrap() else { panic!() };
        let error = bench.world.reported().unwrap_err();
        assert!(error.contains(expected), "{error}");
        let why = bench.executions.why(&Default::default(), id.0).await.unwrap().unwrap();
        assert_eq!(
            (why.is_reusable, why.because.as_str()),
            (false, "a report of dependencies by its code was refused")
        );
        assert!(!bench.is_reused("1").await);
    }
    let bench = Bench::new(json!({"mode": "dependencies"}));
    bench.world.reports(&many[..64]);
    bench.ask("1", None).await.unwrap();
    assert_eq!(bench.world.reported(), Ok(Reported::Noted(vec![])));
    assert!(bench.is_reused("1").await);
}

#[tokio::test]
async fn what_is_reported_and_cannot_be_looked_at_means_run() {
    for name in ["https://h/silent", "rows:others/SELECT 1"] {
        let bench = Bench::new(json!({"mode": "dependencies"}));
        bench.world.set("https://h/silent", None);
        bench.world.reports(&[name]);
        bench.ask("1", None).await.unwrap();
        let Ok(Reported::Noted(unchecked)) = bench.world.reported() else { panic!() };
        assert_eq!(unchecked.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [name]);
        assert!(!bench.is_reused("1").await);
    }
    // What its code may not reach the node does not reach for it; what is declared is its owner's affair.
    let bench = Bench::new(json!({"mode": "dependencies", "on": ["https://h/a"]}));
    let offline = FunctionVersion {
        network: Network::None,
        ..FunctionVersion::clone(&bench.world.resolved.lock().unwrap().version)
    };
    let online = FunctionVersion { network: Network::Internet, ..offline.clone() };
    for (version, reports, looks) in [
        (&offline, "https://h/b", 1),
        (&offline, "s3://b/k", 1),
        (&offline, "file:///f", 4),
        (&online, "https://h/b", 4),
    ] {
        bench.world.resolved.lock().unwrap().version = Arc::new(version.clone());
        bench.world.reports(&[reports]);
        let before = bench.world.looks();
        bench.ask(reports, None).await.unwrap();
        assert_eq!(bench.world.looks() - before, looks, "{reports}");
        assert_eq!(bench.is_reused(reports).await, looks == 4, "{reports}");
    }
}

#[tokio::test]
async fn reports_of_runs_that_keep_no_dependencies_are_ignored() {
    for (setting, ask) in [(json!({"mode": "off"}), None), (json!({"mode": "key"}), by_key("a"))] {
        let bench = Bench::new(setting);
        bench.world.reports(&["https://h/a"]);
        bench.ask("1", ask).await.unwrap();
        assert_eq!((bench.world.reported(), bench.world.looks()), (Ok(Reported::Ignored), 0));
        bench.world.reports(&["nonsense"]);
        bench.ask("2", by_key("b")).await.unwrap();
        assert!(bench.world.reported().is_err(), "code is told of its mistakes whatever the mode");
    }
}

#[tokio::test]
async fn a_run_that_ends_before_a_look_does_is_not_reused_and_runs_keep_their_reports_apart() {
    let bench = Arc::new(Bench::new(json!({"mode": "dependencies"})));
    bench.world.gate.forget_permits(1000);
    // Their code does not wait: the test reports for them.
    let ask = |payload: &'static str| {
        let resolved = bench.world.resolved.lock().unwrap().clone();
        let invocation = invocation(&resolved, payload, None);
        let (id, theirs) = (invocation.request_id, bench.clone());
        (id, tokio::spawn(async move { theirs.executions.invoke(theirs.world.clone(), resolved, invocation).await }))
    };
    let ((first, one), (second, two)) = (ask("1"), ask("2"));
    until(|| bench.world.runs() == 2).await;
    let report = |id, name: &'static str| {
        let theirs = bench.clone();
        tokio::spawn(async move { theirs.executions.report(id, &[name.to_owned()]).await.unwrap() })
    };
    assert_eq!(report(first, "https://h/1").await.unwrap(), Reported::Noted(vec![]));
    bench.world.sight.forget_permits(1000);
    let slow = report(second, "https://h/2");
    until(|| bench.world.looks() == 2).await;
    bench.world.gate.add_permits(1000);
    two.await.unwrap().unwrap();
    bench.world.sight.add_permits(1000);
    one.await.unwrap().unwrap();
    slow.await.unwrap();
    assert_eq!(report(first, "https://h/3").await.unwrap(), Reported::Ignored, "it is over");
    assert!(bench.is_reused("1").await);
    assert!(!bench.is_reused("2").await);
    bench.world.set("https://h/2", Some("1"));
    assert!(bench.is_reused("1").await, "the other's");
    bench.world.set("https://h/1", Some("1"));
    assert!(!bench.is_reused("1").await);
}

#[tokio::test]
async fn a_payload_that_is_never_the_same_says_what_of_it_is_the_input() {
    for mode in [json!({"mode": "dependencies"}), json!({"mode": "key", "key": "$.key"})] {
        let bench = Bench::new(mode);
        let input = |text: &'static str| Some(Ask { input: Some(text.into()), ..Ask::default() });
        let first = bench.ask(r#"{"key": 1, "time": 1}"#, input("a")).await.unwrap().0;
        assert_eq!(bench.ask(r#"{"key": 1, "time": 2}"#, input("a")).await.unwrap().0, first);
        let other = bench.ask(r#"{"key": 1, "time": 2}"#, input("b")).await;
        assert!(other.is_err() || other.is_ok_and(|(answer, _)| answer != first));
    }
    let bench = Bench::new(json!({"mode": "dependencies", "input": ["$.a"]}));
    let input = |text: &'static str| Some(Ask { input: Some(text.into()), ..Ask::default() });
    let first = bench.ask(r#"{"a": 1}"#, input("a")).await.unwrap().0;
    assert_eq!(bench.ask(r#"{"a": 1}"#, input("b")).await.unwrap().0, first, "the setting is more exact");
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Ask(u8),
    /// While something changes.
    AskDuring(u8, Moment, u8, Option<u8>),
    Change(u8, Option<u8>),
    Deploy,
    Pass(u16),
    Restart,
}

/// Declared, declared, reported, reported.
const THINGS: [&str; 4] = [
    "https://h/0",
    r#"rows:shop/SELECT a FROM t WHERE b = {"0"}"#,
    "https://h/1",
    r#"rows:shop/SELECT a FROM t WHERE b = {"1"}"#,
];

fn step() -> impl Strategy<Value = Step> {
    let moment = prop_oneof![Just(Moment::Begun), Just(Moment::Reported), Just(Moment::Read)];
    let state = || proptest::option::weighted(0.8, 0..3u8);
    prop_oneof![
        6 => (0..3u8).prop_map(Step::Ask),
        2 => (0..3u8, moment, 0..4u8, state()).prop_map(|(payload, moment, thing, etag)| Step::AskDuring(payload, moment, thing, etag)),
        4 => (0..4u8, state()).prop_map(|(thing, etag)| Step::Change(thing, etag)),
        1 => Just(Step::Deploy),
        3 => (1..700u16).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens: an answer is what a run would have seen at some time within the freshness bound, whether it depends on what is
    /// declared or on what its code reports.
    #[test]
    fn no_answer_is_older_than_the_freshness_bound(fresh in prop_oneof![Just(0i64), 1..1000i64], memory in prop_oneof![Just(0usize), Just(1 << 20)], steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let setting = json!({"mode": "dependencies", "on": &THINGS[..2], "fresh_ms": fresh});
            let mut bench = Bench::holding(setting, memory);
            bench.world.reports(&THINGS[2..]);
            bench.world.remember();
            for step in steps {
                let payload = match step {
                    Step::Change(thing, etag) => {
                        bench.world.set(THINGS[usize::from(thing)], etag.map(|etag| etag.to_string()).as_deref());
                        continue;
                    }
                    Step::Deploy => {
                        bench.world.deploy();
                        // Own code and configuration are never taken on trust.
                        bench.world.past.lock().unwrap().clear();
                        bench.world.remember();
                        continue;
                    }
                    Step::Pass(time) => {
                        bench.world.pass(time.into());
                        continue;
                    }
                    Step::Restart => {
                        bench.restart();
                        continue;
                    }
                    Step::AskDuring(payload, moment, thing, etag) => {
                        let change = (moment, THINGS[usize::from(thing)].to_owned(), etag.map(|etag| etag.to_string()));
                        *bench.world.during.lock().unwrap() = Some(change);
                        payload
                    }
                    Step::Ask(payload) => payload,
                };
                let (asked, before) = (bench.world.now(), bench.world.past.lock().unwrap().len());
                let (answer, _) = bench.ask(&payload.to_string(), None).await.unwrap();
                // It did not run.
                bench.world.during.lock().unwrap().take();
                let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
                let sight = answer["sight"].as_str().unwrap();
                let since = asked.checked_sub(SignedDuration::from_millis(fresh)).unwrap();
                let past = bench.world.past.lock().unwrap();
                // What became of the world counts until the next change, so the last one before `since` does; what changes meanwhile does too.
                let first = past[..before].iter().rposition(|(at, ..)| *at <= since).unwrap_or(0);
                let seen = |(_, outside, generation): &Past| sighted(outside, *generation, payload.to_string().as_bytes());
                assert!(past[first..].iter().any(|then| seen(then) == sight), "{sight} was so too long ago");
            }
        });
    }
}

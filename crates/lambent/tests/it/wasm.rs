//! WebAssembly functions through a fleet whose host processes are this very binary. The sandbox is the simulated one: what real cells
//! keep in is shown by the sandbox's own tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambent_fleet::{
    Body, Call, Fleet, FleetConfig, FunctionResponse, LogTail, PrepareError, Report, ResponseMode, Running, StartKind,
};
use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Runtime, TracingMode};
use lambent_model::{FunctionArn, FunctionVersion, Region, SystemClock, Version};
use lambent_sandbox::sim::Sim;
use lambent_store::Embedded;
use serde_json::{Value, json};
use uuid::Uuid;

const PROBE: &[u8] = include_bytes!("../../../../tests/functions/wasm/probe.wasm");
const HELLO: &[u8] = include_bytes!("../../../../examples/wasm-rust/function.wasm");

/// A node's fleet on a directory.
struct World {
    fleet: Arc<Fleet>,
    store: Embedded,
}

/// What came of a call.
struct Outcome {
    failed: bool,
    body: Value,
    report: Report,
}

impl World {
    async fn on(directory: &Path) -> Self {
        let store = Embedded::open(&directory.join("store")).unwrap();
        let mut config = FleetConfig::new(directory.join("fleet"));
        config.wasm.program = Some(env!("CARGO_BIN_EXE_lambent").into());
        let sandbox = Arc::new(Sim::new(directory.join("cells")));
        let (blobs, logs) = (Arc::clone(&store.blobs), Arc::clone(&store.logs));
        let fleet = Fleet::new(config, sandbox, blobs, logs, Arc::new(SystemClock)).await.unwrap();
        Self { fleet, store }
    }

    async fn function(&self, account: &str, code: &'static [u8]) -> FunctionVersion {
        let digest = self.store.blobs.put(Bytes::from_static(code)).await.unwrap();
        let version = FunctionVersion {
            arn: FunctionArn {
                region: Region::default(),
                account: account.parse().unwrap(),
                name: "thing".parse().unwrap(),
            },
            version: Version::Latest,
            generation: Uuid::new_v4(),
            runtime: Runtime::Wasm,
            handler: Some("function".to_owned()),
            code: CodeRef { digest, zipped_bytes: code.len() as u64 },
            layers: Vec::new(),
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(20),
            memory_mib: 128,
            ephemeral_mib: 512,
            network: Network::Internet,
            logging: Logging {
                group: "/aws/lambda/thing".to_owned(),
                format: LogFormat::Text,
                application_level: None,
                system_level: None,
            },
            tracing: TracingMode::PassThrough,
            snap_start: false,
            per_tenant: false,
        };
        self.fleet.prepare(&version).await.unwrap();
        version
    }

    async fn start(&self, function: &FunctionVersion, payload: Value, mode: ResponseMode) -> Running {
        let call = Call {
            request_id: Uuid::new_v4().into(),
            invoked_arn: function.arn.to_string(),
            payload: payload.to_string().into(),
            client_context: None,
            cognito_identity: None,
            tenant: None,
            affinity: None,
            trace: None,
            received_at: Instant::now(),
            mode,
            log_tail: LogTail::Tail,
            permit: None,
        };
        self.fleet.invoke(Arc::new(function.clone()), call).await.unwrap()
    }

    async fn call(&self, function: &FunctionVersion, payload: Value) -> Outcome {
        let running = self.start(function, payload, ResponseMode::Buffered).await;
        let (failed, body) = match running.response.await.unwrap().unwrap() {
            FunctionResponse::Success { body: Body::Buffered(body), .. } => (false, body),
            FunctionResponse::Success { body: Body::Stream(_), .. } => panic!("a stream"),
            FunctionResponse::FunctionError { payload, .. } => (true, payload),
        };
        let report = running.finished.await.unwrap();
        Outcome { failed, body: serde_json::from_slice(&body).unwrap(), report }
    }

    /// Host processes that are accounts', by account.
    fn hosts(&self) -> BTreeMap<String, String> {
        let hosts = self.fleet.status().wasm_hosts;
        hosts.into_iter().filter_map(|host| Some((host.account?.to_string(), host.id.to_string()))).collect()
    }

    async fn end(self) {
        self.fleet.shutdown(Duration::from_secs(10)).await;
    }
}

const ONE: &str = "111111111111";
const OTHER: &str = "222222222222";

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_logged_and_reported_as_others_are() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let function = world.function(ONE, PROBE).await;
    let first = world.call(&function, json!({"do": "print", "lines": 1, "text": "hello"})).await;
    assert_eq!((first.failed, first.body), (false, json!("printed")));
    assert_eq!(first.report.start, StartKind::Cold);
    assert!(first.report.init.is_some() && first.report.max_memory_mib >= 1);
    let tail = String::from_utf8(first.report.log_tail.unwrap().to_vec()).unwrap();
    for part in
        ["INIT_START", "START RequestId: ", "0 hello\n", "to standard error\n", "END RequestId: ", "Init Duration: "]
    {
        assert!(tail.contains(part), "{part} is not in {tail}");
    }
    let second = world.call(&function, json!({"do": "env"})).await;
    assert_eq!((second.report.start, second.report.init), (StartKind::Warm, None));
    assert_eq!(second.body["AWS_LAMBDA_FUNCTION_NAME"], "thing");
    let died = world.call(&function, json!({"do": "exit", "code": 3})).await;
    assert!(died.failed);
    assert_eq!(died.body["errorType"], "Runtime.ExitError");
    let tail = String::from_utf8(died.report.log_tail.unwrap().to_vec()).unwrap();
    assert!(tail.contains("Error: Runtime exited with error: exit status") && tail.contains("Status: error"), "{tail}");
    let mut short = function.clone();
    (short.timeout, short.generation) = (Duration::from_millis(300), Uuid::new_v4());
    let late = world.call(&short, json!({"do": "loop"})).await;
    assert_eq!(late.body["errorType"], "Sandbox.Timedout");
    let tail = String::from_utf8(late.report.log_tail.unwrap().to_vec()).unwrap();
    assert!(tail.contains("Task timed out after 0.30 seconds") && tail.contains("Status: timeout"), "{tail}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_components_answer_events_and_plain_invokes() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let function = world.function(ONE, HELLO).await;
    let event = json!({"version": "2.0", "rawPath": "/a", "rawQueryString": "b=1", "requestContext": {"http": {"method": "GET"}}});
    let answered = world.call(&function, event).await;
    assert_eq!((answered.failed, &answered.body["statusCode"]), (false, &json!(200)));
    assert_eq!(answered.body["body"], "Hello from /a?b=1\n");
    assert_eq!(world.call(&function, json!({"any": "event"})).await.body["body"], "Hello from /\n");
    let running = world.start(&function, json!({}), ResponseMode::Streaming).await;
    let FunctionResponse::Success { body: Body::Stream(mut pieces), content_type, .. } =
        running.response.await.unwrap().unwrap()
    else {
        panic!("no stream")
    };
    assert_eq!(content_type, "application/vnd.awslambda.http-integration-response");
    let mut streamed = Vec::new();
    while let Some(piece) = pieces.recv().await {
        streamed.extend_from_slice(&piece.unwrap());
    }
    let end = streamed.windows(8).position(|window| window == [0; 8]).unwrap();
    let head: Value = serde_json::from_slice(&streamed[..end]).unwrap();
    assert_eq!((&head["statusCode"], &streamed[end + 8..]), (&json!(200), &b"Hello from /\n"[..]));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_never_share_a_host_process() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let (mine, theirs) = (world.function(ONE, PROBE).await, world.function(OTHER, PROBE).await);
    for function in [&mine, &theirs, &mine, &theirs] {
        assert_eq!(world.call(function, json!({"do": "count"})).await.body, 1);
    }
    let hosts = world.hosts();
    assert_eq!(hosts.len(), 2);
    assert_ne!(hosts[ONE], hosts[OTHER]);
    // A second function of an account comes to the same one.
    let second = world.function(ONE, HELLO).await;
    world.call(&second, json!({})).await;
    assert_eq!(world.hosts(), hosts);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_runs_as_it_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let old = world.function(ONE, PROBE).await;
    assert_eq!(world.call(&old, json!({"do": "count"})).await.body, 1);
    let mut new = FunctionVersion { generation: Uuid::new_v4(), ..old.clone() };
    new.environment.insert("LAMBENT_WASM_REUSE".to_owned(), "true".to_owned());
    world.fleet.prepare(&new).await.unwrap();
    world.fleet.retire(old.generation);
    for expected in 1..=3 {
        assert_eq!(world.call(&new, json!({"do": "count"})).await.body, expected);
    }
    // A call that was already on its way to the old one still finds it.
    assert_eq!(world.call(&old, json!({"do": "count"})).await.body, 1);
    world.end().await;
}

/// Host processes of the simulated cells below a directory.
fn processes(directory: &Path) -> Vec<i32> {
    let named = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("__wasm-host") && line.contains(directory.to_str().unwrap())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_in_a_new_host_process_after_the_old_one_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let world = Arc::new(World::on(directory.path()).await);
    let function = world.function(ONE, PROBE).await;
    assert_eq!(world.call(&function, json!({"do": "count"})).await.body, 1);
    let before = world.hosts();
    let running = {
        let (world, function) = (Arc::clone(&world), function.clone());
        tokio::spawn(async move { world.call(&function, json!({"do": "sleep", "ms": 60_000})).await })
    };
    while world.fleet.status().wasm_hosts.iter().all(|host| host.running == 0) {
        tokio::task::yield_now().await;
    }
    for pid in processes(directory.path()) {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    let lost = running.await.unwrap();
    assert!(lost.failed);
    assert_eq!(lost.body["errorType"], "Runtime.ExitError");
    assert_eq!(world.call(&function, json!({"do": "count"})).await.body, 1);
    assert_ne!(world.hosts(), before);
    world.fleet.shutdown(Duration::from_secs(10)).await;
    assert_eq!(processes(directory.path()), Vec::<i32>::new(), "none is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_anew_compiles_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let function = world.function(ONE, PROBE).await;
    // Without the package nothing can be compiled.
    world.store.blobs.delete(function.code.digest).await.unwrap();
    world.end().await;
    let world = World::on(directory.path()).await;
    assert_eq!(world.call(&function, json!({"do": "count"})).await.body, 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compiled_is_said_when_it_is_deployed() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    let good = world.function(ONE, PROBE).await;
    let cut = world.store.blobs.put(Bytes::from_static(PROBE.get(..PROBE.len() / 2).unwrap())).await.unwrap();
    let bad =
        FunctionVersion { code: CodeRef { digest: cut, zipped_bytes: 1 }, generation: Uuid::new_v4(), ..good.clone() };
    match world.fleet.prepare(&bad).await {
        Err(PrepareError::Component { reason, .. }) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.call(&good, json!({"do": "count"})).await.body, 1, "nobody is the worse");
    world.end().await;
}

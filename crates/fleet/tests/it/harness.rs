//! A fleet on a directory of its own, functions in a line or two, and eyes on what they log.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambent_fleet::{Body, Call, Fleet, FleetConfig, FunctionResponse, LogTail, Report, ResponseMode, Running};
use lambent_model::function::{CodeRef, LayerRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::{FunctionArn, FunctionVersion, Region, SystemClock, Version};
use lambent_sandbox::Sandbox;
use lambent_sandbox::sim::Sim;
use lambent_store::Embedded;
use lambent_store::port::LogQuery;
use uuid::Uuid;

pub struct Harness {
    pub fleet: Arc<Fleet>,
    store: Embedded,
    directory: tempfile::TempDir,
}

/// What came of a call.
#[derive(Debug)]
pub struct Outcome {
    pub failed: bool,
    pub body: String,
    pub report: Report,
}

impl Outcome {
    pub fn tail(&self) -> String {
        String::from_utf8_lossy(self.report.log_tail.as_deref().unwrap_or_default()).into_owned()
    }
}

impl Harness {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut FleetConfig)) -> Self {
        Self::over(sandbox, change).await
    }

    /// Over another back end, made for this directory.
    pub async fn over(back_end: impl FnOnce(&Path) -> Arc<dyn Sandbox>, change: impl FnOnce(&mut FleetConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store")).unwrap();
        let mut config = FleetConfig::new(directory.path().join("fleet"));
        change(&mut config);
        let sandbox = back_end(&directory.path().join("cells"));
        let (blobs, logs) = (Arc::clone(&store.blobs), Arc::clone(&store.logs));
        let fleet = Fleet::new(config, sandbox, blobs, logs, Arc::new(SystemClock)).await.unwrap();
        fleet.ready().await;
        Self { fleet, store, directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub async fn code(&self, files: &[(&str, &str)]) -> CodeRef {
        let zip = zip(files);
        CodeRef { zipped_bytes: zip.len() as u64, digest: self.store.blobs.put(zip).await.unwrap() }
    }

    pub async fn function(&self, runtime: Runtime, files: &[(&str, &str)]) -> FunctionVersion {
        FunctionVersion {
            arn: FunctionArn { region: Region::default(), account: Default::default(), name: "thing".parse().unwrap() },
            version: Version::Latest,
            generation: Uuid::new_v4(),
            runtime,
            handler: Some("app.handler".to_owned()),
            code: self.code(files).await,
            layers: Vec::new(),
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(20),
            memory_mib: 256,
            ephemeral_mib: 512,
            network: Network::None,
            logging: Logging {
                group: "/aws/lambda/thing".to_owned(),
                format: LogFormat::Text,
                application_level: None,
                system_level: None,
            },
            tracing: TracingMode::PassThrough,
            snap_start: false,
            per_tenant: false,
        }
    }

    /// A function on the newest Python there is; none (and a line that says so) where there is none.
    pub async fn python(&self, source: &str) -> Option<FunctionVersion> {
        let newest =
            self.fleet.runtimes().into_iter().rfind(|runtime| matches!(runtime, Runtime::Python { minor: 9.. }));
        if newest.is_none() {
            eprintln!("SKIPPED: this machine has no Python");
        }
        Some(self.function(newest?, &[("app.py", source)]).await)
    }

    /// A function whose `bootstrap` is this shell script; `$API` is the Runtime API. None where there is no curl.
    pub async fn shell(&self, script: &str) -> Option<FunctionVersion> {
        if std::process::Command::new("curl").arg("--version").output().is_err() {
            eprintln!("SKIPPED: this machine has no curl");
            return None;
        }
        Some(self.function(Runtime::Provided(Provided::Al2023), &[("bootstrap", &bootstrap(script))]).await)
    }

    pub async fn layer(&self, files: &[(&str, &str)]) -> LayerRef {
        LayerRef { arn: "arn:aws:lambda:us-east-1:000000000000:layer:l:1".to_owned(), code: self.code(files).await }
    }

    pub async fn start(&self, function: &FunctionVersion, payload: &str) -> Result<Running, lambent_fleet::Error> {
        self.fleet.invoke(Arc::new(function.clone()), call(function, payload, ResponseMode::Buffered)).await
    }

    pub async fn call(&self, function: &FunctionVersion, payload: &str) -> Outcome {
        finish(self.start(function, payload).await.unwrap()).await
    }

    /// All log messages so far, in order, once the last of them is `until`'s.
    pub async fn log_until(&self, until: impl Fn(&[String]) -> bool) -> Vec<String> {
        let query = LogQuery { group: "/aws/lambda/thing".to_owned(), limit: 100_000, ..LogQuery::default() };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let events = self.store.logs.query(query.clone()).await.unwrap();
            let mut events: Vec<_> =
                events.into_iter().map(|event| (event.id, event.message.trim_end_matches('\n').to_owned())).collect();
            events.sort_unstable();
            let messages: Vec<String> = events.into_iter().map(|(_, message)| message).collect();
            if until(&messages) {
                return messages;
            }
            assert!(Instant::now() < deadline, "the log never became what it should: {messages:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until there are this many containers in this state.
    pub async fn settled(&self, state: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.fleet.status();
            if status.containers.iter().filter(|container| container.state == state).count() == count {
                return;
            }
            assert!(Instant::now() < deadline, "never {count} {state}: {status:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until there is no container.
    pub async fn empty(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.fleet.status().containers.is_empty() {
            assert!(Instant::now() < deadline, "{:?}", self.fleet.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Shuts down, and shows that nothing is left.
    pub async fn end(self) -> tempfile::TempDir {
        self.fleet.shutdown(Duration::from_secs(10)).await;
        assert!(self.fleet.status().containers.is_empty());
        let cells = std::fs::read_dir(self.path().join("cells")).map_or(0, Iterator::count);
        assert!(cells == 0 || isolated(), "directories of cells are left");
        let mark = self.path().to_string_lossy().into_owned();
        // A cell that was given up half-made is destroyed by its drop, which does not wait for its processes.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !processes_with(&mark).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let left: Vec<String> = processes_with(&mark).into_iter().map(described).collect();
        assert!(left.is_empty(), "processes are left: {left:#?}");
        self.directory
    }
}

/// Simulated cells; real ones where `LAMBENT_TEST_AGENT` names their agent (`target/debug/cell-agent`) and the host can give them.
pub fn sandbox(directory: &Path) -> Arc<dyn Sandbox> {
    let Some(agent) = std::env::var_os("LAMBENT_TEST_AGENT") else { return Arc::new(Sim::new(directory)) };
    let mut config = lambent_sandbox::cell::Config::new(directory);
    config.agent = agent.into();
    Arc::new(lambent_sandbox::cell::Cells::new(config).unwrap())
}

/// Whether containers are real cells, so that they see none of the host's files.
pub fn isolated() -> bool {
    std::env::var_os("LAMBENT_TEST_AGENT").is_some()
}

pub fn call(function: &FunctionVersion, payload: &str, mode: ResponseMode) -> Call {
    Call {
        request_id: Uuid::new_v4().into(),
        invoked_arn: function.arn.to_string(),
        payload: Bytes::from(payload.to_owned()),
        client_context: None,
        cognito_identity: None,
        tenant: None,
        affinity: None,
        trace: None,
        received_at: Instant::now(),
        mode,
        log_tail: LogTail::Tail,
        permit: None,
    }
}

pub async fn finish(running: Running) -> Outcome {
    let response = tokio::time::timeout(Duration::from_secs(60), running.response).await.expect("an answer in time");
    let (failed, body) = match response.unwrap().unwrap() {
        FunctionResponse::Success { body: Body::Buffered(body), .. } => (false, body),
        FunctionResponse::Success { body: Body::Stream(_), .. } => panic!("a stream was not asked for"),
        FunctionResponse::FunctionError { payload, .. } => (true, payload),
    };
    let report = tokio::time::timeout(Duration::from_secs(60), running.finished).await.expect("a report in time");
    Outcome { failed, body: String::from_utf8_lossy(&body).into_owned(), report: report.unwrap() }
}

pub fn bootstrap(script: &str) -> String {
    let api = "API=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime";
    // Gives the event in $EVENT and its id in $ID; answers with what it is given.
    let next = "next() { EVENT=$(curl -sS -D /${TMPDIR:-tmp}/headers $API/invocation/next); \
                ID=$(tr -d '\\r' </${TMPDIR:-tmp}/headers | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p'); }";
    let answer = "answer() { curl -sS -o /dev/null -d \"$1\" $API/invocation/$ID/response; }";
    format!("#!/bin/bash\n{api}\n{next}\n{answer}\n{script}\n")
}

pub fn zip(files: &[(&str, &str)]) -> Bytes {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

/// What a process is, and what it does.
fn described(pid: u32) -> String {
    let read = |name: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    format!("{pid}: {}; {}; in {}", read("cmdline"), read("stat"), read("wchan"))
}

/// Processes with this text in their environment.
pub fn processes_with(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let environment = |pid: &u32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&environment(pid)).contains(text)).collect()
}

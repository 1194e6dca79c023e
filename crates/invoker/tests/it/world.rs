//! An invoker over a fleet, and a directory with one function that tests change at will.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lambent_fleet::{Fleet, FleetConfig};
use lambent_invoker::deadlines::{Deadlines, learned::Options};
use lambent_invoker::{BusyPoll, Concurrency, Directory, Invocation, Invoker, LogTail, Mode};
use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::{FunctionArn, FunctionVersion, Qualifier, Region, SystemClock, Version, limits};
use lambent_registry::{EventSettings, Resolved, State};
use lambent_sandbox::sim::Sim;
use lambent_store::Embedded;
use uuid::Uuid;

pub struct World {
    pub invoker: Arc<Invoker>,
    pub fleet: Arc<Fleet>,
    one: Arc<One>,
    _directory: tempfile::TempDir,
}

struct One {
    resolved: Mutex<Resolved>,
    events: Mutex<EventSettings>,
    reserved: AtomicU32,
}

impl Directory for One {
    fn resolve(&self, _: &FunctionArn, _: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error> {
        Ok(self.resolved.lock().unwrap().clone())
    }

    fn reserved_total(&self) -> u32 {
        self.reserved.load(Ordering::Relaxed)
    }

    fn event_settings(&self, _: &FunctionArn, _: Option<&Qualifier>) -> Result<EventSettings, lambent_registry::Error> {
        Ok(self.events.lock().unwrap().clone())
    }
}

impl World {
    /// One function, whose bootstrap is this shell script; none where there is no curl.
    pub async fn new(script: &str) -> Option<Self> {
        if std::process::Command::new("curl").arg("--version").output().is_err() {
            eprintln!("SKIPPED: this machine has no curl");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store")).unwrap();
        let zip = zip(script);
        let code = CodeRef { zipped_bytes: zip.len() as u64, digest: store.blobs.put(zip.into()).await.unwrap() };
        let config = FleetConfig::new(directory.path().join("fleet"));
        let sandbox = Arc::new(Sim::new(directory.path().join("cells")));
        let fleet =
            Fleet::new(config, sandbox, store.blobs.clone(), store.logs.clone(), Arc::new(SystemClock)).await.unwrap();
        let version = Arc::new(version(code));
        let resolved = Resolved {
            invoked_arn: version.arn.to_string(),
            version,
            additional: None,
            state: State::Active,
            state_reason: None,
            reserved_concurrency: None,
            policy: None,
            idempotency: None,
            affinity: None,
        };
        let events = EventSettings {
            maximum_age: limits::EVENT_AGE,
            retries: limits::EVENT_RETRIES,
            on_success: None,
            on_failure: None,
            dead_letter: None,
            allows_loops: false,
            reserved_concurrency: None,
        };
        let one =
            Arc::new(One { resolved: Mutex::new(resolved), events: Mutex::new(events), reserved: AtomicU32::new(0) });
        let deadlines = Deadlines::open(store.catalog.clone(), one.as_ref(), Options::default()).await.unwrap();
        let clock = Arc::new(SystemClock);
        let invoker =
            Invoker::new(one.clone(), fleet.clone(), Concurrency::default(), BusyPoll::off(), clock, deadlines, 7);
        Some(Self { invoker, fleet, one, _directory: directory })
    }

    pub fn change(&self, change: impl FnOnce(&mut Resolved)) {
        change(&mut self.one.resolved.lock().unwrap());
    }

    pub fn reserve(&self, total: u32) {
        self.one.reserved.store(total, Ordering::Relaxed);
    }

    pub fn version(&self) -> FunctionVersion {
        FunctionVersion::clone(&self.one.resolved.lock().unwrap().version)
    }

    pub fn invocation(&self, payload: &str) -> Invocation {
        Invocation {
            function: self.version().arn,
            qualifier: None,
            request_id: Uuid::new_v4().into(),
            payload: payload.to_owned().into(),
            client_context: None,
            cognito_identity: None,
            tenant: None,
            affinity: None,
            trace: None,
            mode: Mode::Buffered { log_tail: LogTail::None },
            received_at: Instant::now(),
            idempotency: None,
            turn: None,
        }
    }

    pub async fn end(self) {
        self.fleet.shutdown(Duration::from_secs(10)).await;
    }
}

fn version(code: CodeRef) -> FunctionVersion {
    FunctionVersion {
        arn: FunctionArn { region: Region::default(), account: Default::default(), name: "one".parse().unwrap() },
        version: Version::Latest,
        generation: Uuid::new_v4(),
        runtime: Runtime::Provided(Provided::Al2023),
        handler: None,
        code,
        layers: Vec::new(),
        environment: Default::default(),
        timeout: Duration::from_secs(20),
        memory_mib: 128,
        ephemeral_mib: 512,
        network: Network::None,
        logging: Logging {
            group: "/aws/lambda/one".to_owned(),
            format: LogFormat::Text,
            application_level: None,
            system_level: None,
        },
        tracing: TracingMode::PassThrough,
        snap_start: false,
        per_tenant: false,
    }
}

fn zip(script: &str) -> Vec<u8> {
    let bootstrap = format!(
        "#!/bin/bash\nAPI=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime\n\
         next() {{ EVENT=$(curl -sS -D $TMPDIR/headers $API/invocation/next); \
         ID=$(tr -d '\\r' <$TMPDIR/headers | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p'); }}\n\
         answer() {{ curl -sS -o /dev/null -d \"$1\" $API/invocation/$ID/response; }}\n{script}\n"
    );
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bootstrap", zip::write::SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
    zip.write_all(bootstrap.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

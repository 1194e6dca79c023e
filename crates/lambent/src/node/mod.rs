//! A node: all parts, built and joined.
//!
//! Start: store, access keys, sandbox, listening sockets, fleet (ends what an earlier process left behind), registry, invoker,
//! servers. Whatever fails on the way ends the start with an error, and nothing stays behind.
//!
//! Stop, in this order: (1) the sockets close, no more events are leased, and what runs may end within the grace period; (2) the invoker
//! refuses what is new; (3) the control plane's background work ends; (4) every container ends; (5) logs and traces are written out.

mod deployer;
mod home;
pub mod sandbox;
mod signals;
mod status;
mod telemetry;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lambent_fleet::{Fleet, FleetConfig, PoolConfig};
use lambent_invoker::calls::{Calls, Holding};
use lambent_invoker::deadlines::{Deadlines, learned};
use lambent_invoker::events::{Aws, Delays, Events, LocalUrls, Options, Retention};
use lambent_invoker::executions::{self, Executions, Inspector};
use lambent_invoker::schedules::Schedules;
use lambent_invoker::{BusyPoll, Concurrency, Invoker};
use lambent_model::{Clock, SystemClock, limits};
use lambent_policy::keys::Keys;
use lambent_policy::sessions::Sessions;
use lambent_policy::sigv4::Verifier;
use lambent_registry::{Registry, S3, Settings};
use lambent_store::queue::Bounds;
use lambent_store::records;
use lambent_store::{Embedded, Logs};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config, Env};
use deployer::FleetDeployer;
pub use home::Home;
pub use signals::Signals;
pub use telemetry::Telemetry;

/// How long another process may still have the data directory open.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running node.
pub struct Node {
    /// Base URL of the Lambda API.
    pub endpoint: String,
    /// What client commands are told about it.
    pub home: Home,
    fleet: Arc<Fleet>,
    invoker: Arc<Invoker>,
    calls: Calls,
    deadlines: Arc<Deadlines>,
    events: Arc<Events>,
    executions: Arc<Executions>,
    registry: Arc<Registry>,
    stop: CancellationToken,
    servers: TaskTracker,
    background: TaskTracker,
    // Last, so that the data directory is free only when everything else is gone.
    _store: Embedded,
}

impl Node {
    /// Builds and joins all parts; returns when the sockets answer.
    pub async fn start(config: &Config, env: &dyn Env, telemetry: &Telemetry) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = open_store_bounded(&config.data_dir, event_bounds(config), record_bounds(config)).await?;
        let keys = Keys::open(store.catalog.clone()).await.context("cannot read the access keys")?;
        let sessions = Sessions::open(store.catalog.as_ref()).await.context("cannot read the key of sessions")?;
        let sessions = Arc::new(sessions);
        let root = keys.root(&config.account, clock.now()).await.context("cannot make an access key")?;
        let chosen = sandbox::choose(config)?;
        let api = listen("api.listen", config.api.listen).await?;
        let urls = listen("urls.listen", config.urls.listen).await?;
        let endpoint = format!("http://{}", reachable(api.local_addr()?));
        let fleet_config = fleet_config(config, chosen.aws_endpoint_url);
        let fleet = Fleet::new(fleet_config, chosen.sandbox, store.blobs.clone(), store.logs.clone(), clock.clone());
        let fleet = fleet.await.context("cannot make the fleet")?;
        let registry = Registry::open(
            settings(config, &endpoint, urls.local_addr()?.port()),
            store.catalog.clone(),
            store.blobs.clone(),
            Arc::new(code_source(config, env)),
            Arc::new(FleetDeployer(fleet.clone())),
            clock.clone(),
        );
        let registry = registry.await.context("cannot open the control plane")?;
        let limits = Concurrency { account: config.fleet.concurrency };
        let busy_poll = busy_poll(config);
        let learning = learned::Options { margin: config.calls.margin, ..learned::Options::default() };
        let deadlines = Deadlines::open(store.catalog.clone(), registry.as_ref(), learning).await;
        let deadlines = deadlines.context("cannot read what was learned of calls")?;
        let (directory, doing) = (registry.clone(), busy_poll.clone());
        let invoker = Invoker::new(directory, fleet.clone(), limits, doing, clock.clone(), deadlines.clone(), seed());
        let holding = Holding { from: config.calls.hold_back_from };
        let calls = Calls::start_with(invoker.clone(), clock.clone(), holding);
        let inspector = Inspector::new(execution_options(config), code_source(config, env));
        let executions = Executions::start(
            store.records.clone(),
            registry.clone(),
            Arc::new(inspector.context("cannot start what looks at dependencies")?),
            clock.clone(),
            execution_options(config).memory_bytes,
        );
        // Before events or requests can reach a function of the same name.
        let swept = executions.sweep().await.context("cannot sweep execution records")?;
        if swept > 0 {
            tracing::info!(records = swept, "deleted execution records of functions that are no more");
        }
        invoker.keep_executions(executions.clone());
        let (catalog, queue) = (store.catalog.clone(), store.events.clone());
        let schedules = Schedules::open(catalog, queue, clock.clone(), config.region.clone());
        let schedules = schedules.await.context("cannot read the schedules")?;
        let events = Events::start(
            store.events.clone(),
            registry.clone(),
            invoker.clone(),
            schedules.clone(),
            clock.clone(),
            event_options(config, env),
        );
        let events = events.context("cannot start what runs events")?;
        let home = Home {
            endpoint: Some(endpoint.clone()),
            region: Some(config.region.to_string()),
            account: config.account.clone(),
            access_key_id: root.id.clone(),
            secret_access_key: root.secret.clone(),
        };
        home.write(&config.data_dir)?;
        let (stop, servers, background) = (CancellationToken::new(), TaskTracker::new(), TaskTracker::new());
        let ready = Arc::new(AtomicBool::new(true));
        let verifier = Verifier::new(keys, config.region.clone(), clock.clone()).with_sessions(sessions.clone());
        let verifier = Arc::new(verifier);
        let parts = lambent_frontend::Parts {
            region: config.region.clone(),
            account: config.account.clone(),
            functions_manage: config.calls.manage,
            verifier: verifier.clone(),
            registry: registry.clone(),
            invoker: invoker.clone(),
            calls: calls.clone(),
            events: events.clone(),
            executions: executions.clone(),
            schedules,
            logs: store.logs.clone(),
            clock: clock.clone(),
            status: Arc::new({
                let (fleet, invoker, begun) = (fleet.clone(), invoker.clone(), Instant::now());
                move || Box::pin(status::document(fleet.clone(), invoker.clone(), begun))
            }),
            metrics: Arc::new(telemetry.metrics()),
            ready: Arc::new({
                let stop = stop.clone();
                move || ready.load(Ordering::Acquire) && !stop.is_cancelled()
            }),
        };
        let grace = config.shutdown.grace;
        let (router, inside) = lambent_frontend::routers(parts);
        fleet.serve_inside(Arc::new(lambent_frontend::Inside::new(inside, sessions, clock.clone())));
        servers.spawn(lambent_frontend::serve(api, router, stop.clone().cancelled_owned(), grace));
        let gateway = lambent_gateway::Parts {
            settings: lambent_gateway::Settings {
                region: config.region.clone(),
                ..lambent_gateway::Settings::default()
            },
            directory: registry.clone(),
            invoker: invoker.clone(),
            verifier,
            clock: clock.clone(),
        };
        servers.spawn(lambent_frontend::serve(
            urls,
            lambent_gateway::router(gateway),
            stop.clone().cancelled_owned(),
            grace,
        ));
        background.spawn(until(stop.clone(), busy_poll.run()));
        background.spawn(until(stop.clone(), expire_logs(store.logs.clone(), config.logs.expire_every, clock)));
        background.spawn(until(stop.clone(), Telemetry::upkeep(telemetry.recorder())));
        // Not in the way of the start; a function that needs an interpreter waits for this.
        let looking = fleet.clone();
        background.spawn(until(stop.clone(), async move { looking.ready().await }));
        Ok(Self {
            endpoint,
            home,
            fleet,
            invoker,
            calls,
            deadlines,
            events,
            executions,
            registry,
            stop,
            servers,
            background,
            _store: store,
        })
    }

    /// What the fleet is doing.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Ends everything in the order of the module's description.
    pub async fn stop(self, grace: Duration) {
        let begun = Instant::now();
        let left = || grace.saturating_sub(begun.elapsed());
        self.stop.cancel();
        self.servers.close();
        // The servers watch the grace period themselves.
        tokio::join!(self.servers.wait(), self.events.stop(grace), self.invoker.drain(grace));
        self.calls.stop().await;
        self.executions.stop(left()).await;
        self.deadlines.stop().await;
        self.registry.shutdown().await;
        self.fleet.shutdown(left()).await;
        self.background.close();
        self.background.wait().await;
    }
}

/// The store in a data directory, made where there is none. Whoever has it open for a moment (`lambent credentials`, a node that is
/// ending) is waited for.
pub async fn open_store(dir: &Path) -> Result<Embedded> {
    open_store_bounded(dir, Bounds::default(), records::Bounds::default()).await
}

fn event_bounds(config: &Config) -> Bounds {
    Bounds { events: config.events.most, bytes: config.events.most_mib.saturating_mul(limits::MIB) }
}

async fn open_store_bounded(dir: &Path, events: Bounds, records: records::Bounds) -> Result<Embedded> {
    let begun = Instant::now();
    loop {
        match Embedded::open_bounded(dir, events, records) {
            Err(lambent_store::Error::Locked { .. }) if begun.elapsed() < UNLOCKED_WITHIN => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            opened => {
                return opened.with_context(|| {
                    format!("cannot use {} as data directory; name another one with --data-dir", dir.display())
                });
            }
        }
    }
}

/// Looking for messages helps where one thread does all of the node's work; with more of them it would keep a processor and see nothing.
fn busy_poll(config: &Config) -> Arc<BusyPoll> {
    let alone = tokio::runtime::Handle::current().metrics().num_workers() == 1;
    if !alone { BusyPoll::off() } else { BusyPoll::new(config.fleet.busy_poll, 1) }
}

fn fleet_config(config: &Config, aws_endpoint_url: Option<String>) -> FleetConfig {
    let defaults = FleetConfig::new(config.data_dir.join("fleet"));
    let config::Pool { floor, ceiling, memory_mib, idle } = config.pool;
    let config::Fleet { idle: idle_timeout, containers, memory_mib: promised_mib, scaling, patience, .. } =
        config.fleet;
    FleetConfig {
        pool: PoolConfig { floor, ceiling, memory_mib, idle, ..PoolConfig::default() },
        report_stages: config.logs.report_stages,
        idle_timeout,
        max_containers: containers,
        memory_mib: promised_mib,
        scaling,
        room_patience: patience,
        affinity_wait: config.fleet.affinity_wait,
        affinity_keep: config.fleet.affinity_keep,
        aws_endpoint_url,
        ..defaults
    }
}

fn record_bounds(config: &Config) -> records::Bounds {
    let executions = &config.executions;
    records::Bounds { records: executions.most, bytes: executions.most_mib.saturating_mul(limits::MIB) }
}

fn execution_options(config: &Config) -> executions::Options {
    let executions = &config.executions;
    executions::Options {
        memory_bytes: usize::try_from(executions.memory_mib.saturating_mul(limits::MIB)).unwrap_or(usize::MAX),
        look_within: executions.look_within,
        files: executions.files.clone(),
        hosts: executions.hosts.clone(),
        ..executions::Options::default()
    }
}

/// The key for other AWS services: the configured one, else the environment's; none: requests are not signed.
fn aws_credentials(config: &Config, env: &dyn Env) -> Option<(String, String)> {
    let configured = config.aws.access_key_id.clone().zip(config.aws.secret_access_key.clone());
    configured.or_else(|| env.get("AWS_ACCESS_KEY_ID").zip(env.get("AWS_SECRET_ACCESS_KEY")))
}

/// Code in buckets.
fn code_source(config: &Config, env: &dyn Env) -> S3 {
    let credentials = aws_credentials(config, env);
    S3 { endpoint: config.aws.endpoint.clone(), region: config.region.to_string(), credentials }
}

fn event_options(config: &Config, env: &dyn Env) -> Options {
    let events = &config.events;
    Options {
        delays: Delays { retry: events.retry_delay, ..Delays::default() },
        places: events.places,
        holding: Holding { from: config.calls.hold_back_from },
        aws: Aws { endpoint: config.aws.endpoint.clone(), credentials: aws_credentials(config, env) },
        buried: Retention { age: events.keep_buried, most: events.keep_buried_most },
        local_urls: if events.local_urls { LocalUrls::Allow } else { LocalUrls::Deny },
    }
}

fn settings(config: &Config, endpoint: &str, urls_port: u16) -> Settings {
    Settings {
        account: config.account.clone(),
        region: config.region.clone(),
        endpoint: endpoint.to_owned(),
        function_url: format!("http://{{id}}.lambda-url.{{region}}.localhost:{urls_port}/"),
        concurrency: config.fleet.concurrency,
    }
}

async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another {key}, port 0 picks a free one"))
}

/// The address by which this machine reaches a socket that listens on all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// Chance for alias weights; nothing secret hangs on it.
fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    stop.run_until_cancelled(task).await;
}

/// Deletes, now and then, the log events that retention no longer keeps.
async fn expire_logs(logs: Arc<dyn Logs>, every: Duration, clock: Arc<dyn Clock>) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        match logs.expire(clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "deleted log events beyond their retention"),
            Err(error) => tracing::warn!(%error, "cannot delete old log events"),
        }
    }
}

//! The sections and their keys.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use lambent_fleet::FleetConfig;
use lambent_invoker::events::Retention;
use lambent_model::service::ServiceName;
use lambent_model::{AccountId, Region, limits};
use serde::{Deserialize, Serialize};

use super::Use;
use super::reader::{Error, Reader};
use super::services::{self, Service};

/// Where the Lambda API answers.
pub const DEFAULT_API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9400);
/// Where function URLs answer.
pub const DEFAULT_URLS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9401);
/// State of a node that stays.
pub const DEFAULT_SERVE_DIR: &str = "/var/lib/lambent";
/// State of a node to play with.
pub const DEFAULT_DEMO_DIR: &str = "./.lambent";
/// How long running calls may go on once the node was told to stop.
const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(200);
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// How often log events beyond their retention are deleted.
const DEFAULT_EXPIRE_EVERY: Duration = Duration::from_secs(600);
/// How long after a failure an event runs again.
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Events that run at once.
const DEFAULT_PLACES: usize = 256;
/// Events that are kept.
const DEFAULT_EVENTS: u64 = 4_000_000;
/// MiB of them.
const DEFAULT_EVENTS_MIB: u64 = 16_384;
/// Execution records that are kept.
const DEFAULT_RECORDS: u64 = 1_000_000;
/// MiB of them.
const DEFAULT_RECORDS_MIB: u64 = 2048;
/// MiB of them in memory.
const DEFAULT_RECORDS_MEMORY_MIB: u64 = 64;
/// A look at a dependency.
const DEFAULT_LOOK_WITHIN: Duration = Duration::from_secs(2);
/// How long an unused container is kept.
const DEFAULT_IDLE: Duration = Duration::from_secs(600);

/// Everything a node is told. All of it is fixed at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// `account`: the account that owns what is created here. Default 000000000000. Since 0.1.
    pub account: AccountId,
    /// `region`: the region this node answers for; requests must be signed for it. Default us-east-1. Since 0.1.
    pub region: Region,
    /// `data_dir`: where all state is kept. Default /var/lib/lambent, for the demo ./.lambent. Since 0.1.
    pub data_dir: PathBuf,
    /// The Lambda API.
    pub api: Api,
    /// Function URLs.
    pub urls: Urls,
    /// What functions are kept in.
    pub sandbox: Sandbox,
    /// Containers.
    pub fleet: Fleet,
    /// Instances made ahead.
    pub pool: Pool,
    /// Other AWS services.
    pub aws: Aws,
    /// Asynchronous invocations.
    pub events: Events,
    /// What executions returned.
    pub executions: Executions,
    /// Databases outside.
    pub services: BTreeMap<ServiceName, Service>,
    /// What functions ask of their account.
    pub calls: Calls,
    /// What functions logged.
    pub logs: Logs,
    /// What the node itself logs.
    pub log: Log,
    /// Traces.
    pub otlp: Otlp,
    /// How the node ends.
    pub shutdown: Shutdown,
}

/// `[api]`: the Lambda API. Every call is signed, wherever it comes from; nothing turns that off.
#[derive(Debug, Clone)]
pub struct Api {
    /// `listen`: address and port; port 0 picks a free one. Default 127.0.0.1:9400. Since 0.1.
    pub listen: SocketAddr,
}

/// `[urls]`: function URLs.
#[derive(Debug, Clone)]
pub struct Urls {
    /// `listen`: address and port; port 0 picks a free one. Default 127.0.0.1:9401, and a free port where the API has one. Since 0.1.
    pub listen: SocketAddr,
}

/// `[sandbox]`: what functions are kept in.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// `kind`: `cell` isolates; `sim` does not and is for tests. Default `cell`. Since 0.1.
    pub kind: SandboxKind,
}

/// Sandbox back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxKind {
    /// Namespaces, cgroup, seccomp.
    Cell,
    /// Ordinary child processes; no isolation.
    Sim,
}

/// `[fleet]`: containers.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// `concurrency`: calls of the account at once; beyond it callers are throttled. Default 1000. Since 0.1.
    pub concurrency: u32,
    /// `idle`: how long an unused container is kept. Short saves memory, long saves cold starts. Default 10m. Since 0.1.
    pub idle: Duration,
    /// `containers`: at once, whatever they do; at the bound idle ones of other versions make place. Default 1000. Since 0.2.
    pub containers: usize,
    /// `memory_mib`: what containers may be promised together. Most use far less than they are promised: more than the machine has is
    /// possible, and a risk. Default: the machine's memory. Since 0.2.
    pub memory_mib: u64,
    /// `scaling`: containers of one function version that calls may begin within ten seconds. Default 1000. Since 0.2.
    pub scaling: u32,
    /// `patience`: how long a call waits on a node that is full before its caller is throttled. Default 5s. Since 0.2.
    pub patience: Duration,
    /// `affinity_wait`: how long a call waits at most for the container that has its affinity value. Default 1s. Since 0.2.
    pub affinity_wait: Duration,
    /// `affinity_keep`: how long an unused container is kept at most that has such values; `idle` where that is longer. Default 1h. Since 0.2.
    pub affinity_keep: Duration,
    /// `busy_poll`: how long the node looks for the next message of a call that runs alone before it sleeps. 0s saves processor time,
    /// at 20 to 60 microseconds a call. Only on nodes with one thread of their own (two or three processors). Default 200us. Since 0.2.
    pub busy_poll: Duration,
}

/// `[pool]`: instances made ahead of calls. A kind is an interpreter (for Node.js: with a memory size), or `provided`.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// `floor`: instances of a kind that wait at least, where functions use it. 0 leaves all to the forecast. Default 1. Since 0.2.
    pub floor: usize,
    /// `ceiling`: instances of a kind that wait at most. 0 makes none ahead: cold starts build their own. Default 16. Since 0.2.
    pub ceiling: usize,
    /// `memory_mib`: memory of all waiting instances together, by what one of each kind takes. Default 256. Since 0.2.
    pub memory_mib: u64,
    /// `idle`: how long an instance waits that the forecast does not ask for. Default 1m. Since 0.2.
    pub idle: Duration,
}

/// `[aws]`: where other AWS services are.
#[derive(Debug, Clone)]
pub struct Aws {
    /// `endpoint`: an S3-compatible endpoint for code packages; functions see it as `AWS_ENDPOINT_URL`. Default none. Since 0.1.
    pub endpoint: Option<String>,
    /// `access_key_id`: the key this node signs with there. Default none: `AWS_ACCESS_KEY_ID` of the environment. Since 0.1.
    pub access_key_id: Option<String>,
    /// `secret_access_key`: its secret. Default none: `AWS_SECRET_ACCESS_KEY` of the environment. Since 0.1.
    pub secret_access_key: Option<String>,
}

/// `[events]`: asynchronous invocations.
#[derive(Debug, Clone)]
pub struct Events {
    /// `retry_delay`: how long after a function failed an event it runs again; the second time twice as long. Default 1m, as AWS. Since 0.2.
    pub retry_delay: Duration,
    /// `places`: events that run, or are delivered, at once; one function gets half of them at most. Default 256. Since 0.2.
    pub places: usize,
    /// `most`: events that are kept, dead letters included; beyond it callers are throttled, one function at half of it. Default 4000000. Since 0.2.
    pub most: u64,
    /// `most_mib`: bytes of them. Default 16384. Since 0.2.
    pub most_mib: u64,
    /// `keep_buried`: how long dead letters and messages of built-in queues are kept. Default 336h, two weeks. Since 0.2.
    pub keep_buried: Duration,
    /// `keep_buried_most`: how many of them in each of an account's queues; the oldest go first. Default 100000. Since 0.2.
    pub keep_buried_most: u64,
    /// `local_urls`: whether HTTP destinations may be on this machine. Then whoever may configure a function reaches what listens only
    /// here. Default false. Since 0.2.
    pub local_urls: bool,
}

/// `[executions]`: answers that are kept, so that what need not run again does not.
#[derive(Debug, Clone)]
pub struct Executions {
    /// `most`: records that are kept; beyond it the oldest of mode `dependencies` go, and requests with new keys are throttled. Default 1000000. Since 0.2.
    pub most: u64,
    /// `most_mib`: bytes of them. Default 2048. Since 0.2.
    pub most_mib: u64,
    /// `memory_mib`: bytes of them that are in memory as well. Default 64. Since 0.2.
    pub memory_mib: u64,
    /// `look_within`: how long a look at a dependency may take; then the function runs. Default 2s. Since 0.2.
    pub look_within: Duration,
    /// `files`: directories whose files may be dependencies; whoever may configure a function can then tell whether a file there is one that
    /// they know. Default none. Since 0.2.
    pub files: Vec<PathBuf>,
    /// `hosts`: `HOST` or `HOST:PORT` on this machine or its links that may be HTTP dependencies all the same. Default none. Since 0.2.
    pub hosts: Vec<String>,
}

/// `[calls]`: what functions ask of their account.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// `manage`: whether the credentials that functions find may do with the account what its own keys may; else they invoke, and no more.
    /// Default false. Since 0.2.
    pub manage: bool,
    /// `freeze_after`: how long code waits for calls that it has started, with nothing else going on, before its container is frozen. Default 20ms.
    /// Since 0.2.
    pub freeze_after: Duration,
    /// `most_frozen`: frozen containers that `fleet.containers` and `fleet.memory_mib` leave out; those beyond count like others. Default 1000.
    /// Since 0.2.
    pub most_frozen: usize,
    /// `hold_back_from`: invocations at once on this node from which on calls of functions, and events, wait that can, until their latest start at most. 0: they
    /// always do. Default: twice the processors. Since 0.2.
    pub hold_back_from: u32,
    /// `margin`: how much earlier than it had to a call starts, for what a start takes. Default 10ms. Since 0.2.
    pub margin: Duration,
}

/// `[logs]`: what functions logged.
#[derive(Debug, Clone)]
pub struct Logs {
    /// `expire_every`: how often events beyond their retention are deleted. Default 10m. Since 0.1.
    pub expire_every: Duration,
    /// `report_stages`: whether `REPORT` lines say, after what AWS has there, what each stage of a call took. Default false. Since 0.1.
    pub report_stages: bool,
}

/// `[log]`: what the node itself logs, on standard error.
#[derive(Debug, Clone)]
pub struct Log {
    /// `format`: `text` or `json`. Default `text`. Since 0.1.
    pub format: LogFormat,
    /// `filter`: least level, or directives of tracing's `EnvFilter`. Default `info`, for the demo `warn`. Since 0.1.
    pub filter: String,
}

/// Forms of the node's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One object a line.
    Json,
}

/// `[otlp]`: OpenTelemetry traces.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// `endpoint`: the base URL of an OTLP/HTTP collector, e.g. `http://127.0.0.1:4318`. Default none: no traces. Since 0.1.
    pub endpoint: Option<String>,
}

/// `[shutdown]`: how the node ends.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// `grace`: how long running calls may go on after the first signal; a second one ends at once. Default 30s. Since 0.1.
    pub grace: Duration,
}

impl Config {
    /// Reads every key. The order here is the order of `lambent config`.
    pub(super) fn read(reader: &mut Reader<'_>, purpose: Use) -> Result<Self, Error> {
        let (data_dir, log_filter) = match purpose {
            Use::Serve => (DEFAULT_SERVE_DIR, "info"),
            Use::Demo => (DEFAULT_DEMO_DIR, "warn"),
        };
        let listen = reader.value("api.listen", DEFAULT_API)?;
        let fleet = FleetConfig::new(data_dir);
        // Whoever wants any free port for the API surely has no use for a fixed one here.
        let urls = if listen.port() == 0 { SocketAddr::new(DEFAULT_URLS.ip(), 0) } else { DEFAULT_URLS };
        Ok(Self {
            account: reader.value("account", AccountId::default())?,
            region: reader.value("region", Region::default())?,
            data_dir: reader.value("data_dir", PathBuf::from(data_dir))?,
            api: Api { listen },
            urls: Urls { listen: reader.value("urls.listen", urls)? },
            sandbox: Sandbox { kind: reader.value("sandbox.kind", SandboxKind::Cell)? },
            fleet: Fleet {
                concurrency: reader.value("fleet.concurrency", limits::ACCOUNT_CONCURRENCY)?,
                idle: duration(reader, "fleet.idle", DEFAULT_IDLE)?,
                containers: reader.value("fleet.containers", fleet.max_containers)?,
                memory_mib: reader.value("fleet.memory_mib", fleet.memory_mib)?,
                scaling: reader.value("fleet.scaling", fleet.scaling)?,
                patience: duration(reader, "fleet.patience", fleet.room_patience)?,
                affinity_wait: duration(reader, "fleet.affinity_wait", fleet.affinity_wait)?,
                affinity_keep: duration(reader, "fleet.affinity_keep", fleet.affinity_keep)?,
                busy_poll: duration(reader, "fleet.busy_poll", DEFAULT_BUSY_POLL)?,
            },
            pool: {
                let defaults = fleet.pool;
                Pool {
                    floor: reader.value("pool.floor", defaults.floor)?,
                    ceiling: reader.value("pool.ceiling", defaults.ceiling)?,
                    memory_mib: reader.value("pool.memory_mib", defaults.memory_mib)?,
                    idle: duration(reader, "pool.idle", defaults.idle)?,
                }
            },
            aws: Aws {
                endpoint: reader.optional("aws.endpoint")?,
                access_key_id: reader.optional("aws.access_key_id")?,
                secret_access_key: reader.optional::<Secret>("aws.secret_access_key")?.map(|secret| secret.0),
            },
            events: Events {
                retry_delay: duration(reader, "events.retry_delay", DEFAULT_RETRY_DELAY)?,
                places: reader.value("events.places", DEFAULT_PLACES)?,
                most: reader.value("events.most", DEFAULT_EVENTS)?,
                most_mib: reader.value("events.most_mib", DEFAULT_EVENTS_MIB)?,
                keep_buried: duration(reader, "events.keep_buried", Retention::default().age)?,
                keep_buried_most: reader.value("events.keep_buried_most", Retention::default().most)?,
                local_urls: reader.value("events.local_urls", false)?,
            },
            executions: Executions {
                most: reader.value("executions.most", DEFAULT_RECORDS)?,
                most_mib: reader.value("executions.most_mib", DEFAULT_RECORDS_MIB)?,
                memory_mib: reader.value("executions.memory_mib", DEFAULT_RECORDS_MEMORY_MIB)?,
                look_within: duration(reader, "executions.look_within", DEFAULT_LOOK_WITHIN)?,
                files: reader.value("executions.files", Vec::new())?,
                hosts: reader.value("executions.hosts", Vec::new())?,
            },
            services: services::read(reader)?,
            calls: Calls {
                manage: reader.value("calls.manage", false)?,
                freeze_after: duration(reader, "calls.freeze_after", fleet.freeze_after)?,
                most_frozen: reader.value("calls.most_frozen", fleet.most_frozen)?,
                hold_back_from: reader.value("calls.hold_back_from", twice_the_processors())?,
                margin: duration(
                    reader,
                    "calls.margin",
                    lambent_invoker::deadlines::learned::Options::default().margin,
                )?,
            },
            logs: Logs {
                expire_every: duration(reader, "logs.expire_every", DEFAULT_EXPIRE_EVERY)?,
                report_stages: reader.value("logs.report_stages", false)?,
            },
            log: Log {
                format: reader.value("log.format", LogFormat::Text)?,
                filter: reader.value("log.filter", log_filter.to_owned())?,
            },
            otlp: Otlp { endpoint: reader.optional("otlp.endpoint")? },
            shutdown: Shutdown { grace: duration(reader, "shutdown.grace", DEFAULT_GRACE)? },
        })
    }

    /// What no single key can see.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::Contradiction(text));
        if self.api.listen == self.urls.listen && self.api.listen.port() != 0 {
            return refuse(format!("api.listen and urls.listen are both {}: give one another port", self.api.listen));
        }
        if self.fleet.concurrency == 0 {
            return refuse("fleet.concurrency = 0 would throttle every call: give at least 1".to_owned());
        }
        if self.fleet.containers == 0 {
            return refuse("fleet.containers = 0 would refuse every call: give at least 1".to_owned());
        }
        let Pool { floor, ceiling, .. } = self.pool;
        if floor > ceiling {
            return refuse(format!("pool.floor = {floor} is more than pool.ceiling = {ceiling}"));
        }
        if self.events.places < 2 {
            return refuse(format!("events.places = {} would run no event: give at least 2", self.events.places));
        }
        if let Some(path) = self.executions.files.iter().find(|path| !path.is_absolute()) {
            return refuse(format!("executions.files has {path:?}: give whole paths"));
        }
        if self.logs.expire_every.is_zero() {
            return refuse("logs.expire_every = 0s would never rest: give at least 1s".to_owned());
        }
        if self.aws.access_key_id.is_some() != self.aws.secret_access_key.is_some() {
            return refuse(
                "aws.access_key_id and aws.secret_access_key belong together: set both or neither".to_owned(),
            );
        }
        let urls = [("aws.endpoint", &self.aws.endpoint), ("otlp.endpoint", &self.otlp.endpoint)];
        for (key, url) in urls {
            if let Some(url) = url.as_ref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
                return refuse(format!("{key} = {url:?} is no URL: begin it with http:// or https://"));
            }
        }
        Ok(())
    }
}

fn twice_the_processors() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// Durations are text such as `30s`, `10m`, `1h 30m`.
fn duration(reader: &mut Reader<'_>, key: &'static str, default: Duration) -> Result<Duration, Error> {
    let default = SignedDuration::try_from(default).unwrap_or_default();
    let value = reader.value(key, FriendlyDuration(default))?.0;
    Duration::try_from(value).map_err(|_| Error::Contradiction(format!("{key} = {value:#} is negative")))
}

struct FriendlyDuration(SignedDuration);

impl Serialize for FriendlyDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#}", self.0))
    }
}

impl<'de> Deserialize<'de> for FriendlyDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |_| serde::de::Error::custom("a duration is written like 30s, 10m or 1h 30m");
        text.parse().map(Self).map_err(wrong)
    }
}

/// A value that is never printed.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(pub String);

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("********")
    }
}

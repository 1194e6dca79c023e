//! What a fleet is told at start.

use std::path::PathBuf;
use std::time::Duration;

use crate::warming::pressure::PressureProbe;

/// How long a container may stay idle when nothing else was said.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How many containers a node keeps at once when nothing else was said.
pub const DEFAULT_MAX_CONTAINERS: usize = 1_000;
/// How long a call waits on a full node when nothing else was said: long enough for calls under way to end, short enough for its caller.
pub const DEFAULT_ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// How long a call waits at most for the container that has its value when nothing else was said.
pub const DEFAULT_AFFINITY_WAIT: Duration = Duration::from_secs(1);
/// How long idle containers that hold values are kept at most when nothing else was said.
pub const DEFAULT_AFFINITY_KEEP: Duration = Duration::from_secs(3_600);
/// Bytes of unpacked code kept when nothing else was said.
pub const DEFAULT_CODE_CACHE_BYTES: u64 = 20 * 1024 * 1024 * 1024;

/// Memory of one wasm host process when nothing else was said, in MiB.
pub const DEFAULT_WASM_HOST_MEMORY_MIB: u32 = 2_048;
/// How many wasm host processes a node keeps at once when nothing else was said.
pub const DEFAULT_WASM_HOSTS: usize = 32;

/// How WebAssembly functions run.
#[derive(Debug, Clone)]
pub struct WasmConfig {
    /// The program of host processes and of the compiler, which calls `lambent_sandbox::wasm::main_if_asked`; none is the running one.
    pub program: Option<PathBuf>,
    /// Memory that all running instances of one account may have together, in MiB; what would go beyond is refused to the instance.
    pub host_memory_mib: u32,
    /// Host processes at once, one an account; at the bound one that runs nothing makes place, else calls are refused.
    pub hosts: usize,
}

impl Default for WasmConfig {
    fn default() -> Self {
        Self { program: None, host_memory_mib: DEFAULT_WASM_HOST_MEMORY_MIB, hosts: DEFAULT_WASM_HOSTS }
    }
}

/// Instances of a kind that wait at least, where functions use it, when nothing else was said.
pub const DEFAULT_POOL_FLOOR: usize = 1;
/// Instances of a kind that wait at most when nothing else was said.
pub const DEFAULT_POOL_CEILING: usize = 16;
/// Memory of all waiting instances together when nothing else was said.
pub const DEFAULT_POOL_MEMORY_MIB: u64 = 256;
/// How long an instance waits beyond the forecast when nothing else was said.
pub const DEFAULT_POOL_IDLE: Duration = Duration::from_secs(60);

/// The warming pool: instances that wait for whoever needs one. A kind is an interpreter (for Node.js: with a memory size), or `provided`.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Instances of a kind that wait at least, where functions use it.
    pub floor: usize,
    /// Instances of a kind that wait at most; 0 makes none ahead, and every cold start builds its own.
    pub ceiling: usize,
    /// Memory of all waiting instances together, in MiB, by what one of each kind takes.
    pub memory_mib: u64,
    /// An instance that the forecast does not ask for is ended after this long.
    pub idle: Duration,
    /// Tells whether the host is short of memory.
    pub pressure: PressureProbe,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            floor: DEFAULT_POOL_FLOOR,
            ceiling: DEFAULT_POOL_CEILING,
            memory_mib: DEFAULT_POOL_MEMORY_MIB,
            idle: DEFAULT_POOL_IDLE,
            pressure: PressureProbe::MACHINE,
        }
    }
}

/// How long code is blocked before its container is frozen when nothing else was said: some hundred times what freezing and thawing take, and
/// far less than a person notices when a full node has to make room that way.
pub const DEFAULT_FREEZE_AFTER: Duration = Duration::from_millis(20);
/// How long a container is frozen before its memory is reclaimed when nothing else was said: what is dropped has to be read again.
pub const DEFAULT_RECLAIM_AFTER: Duration = Duration::from_secs(1);
/// Frozen containers beside the bounds of the node when nothing else was said.
pub const DEFAULT_MOST_FROZEN: usize = 1_000;

/// Settings of a [`crate::Fleet`], fixed at start.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Where unpacked code and bootstraps are kept (`code/`, `opt/`, `runtime/` below it).
    pub data_dir: PathBuf,
    /// An idle container is ended after this long.
    pub idle_timeout: Duration,
    /// Containers at once, whatever they do; at the bound the least recently used idle one makes place, else calls wait, and are refused.
    pub max_containers: usize,
    /// Memory that containers may be promised together, in MiB; at the bound as with `max_containers`.
    pub memory_mib: u64,
    /// Containers of one function version that calls may begin within ten seconds; calls beyond wait as on a full node.
    pub scaling: u32,
    /// How long a call waits on a node that is full before it is refused.
    pub room_patience: Duration,
    /// How long the code of a container waits for calls of its own, with nothing else going on, before the container is frozen.
    pub freeze_after: Duration,
    /// How long it is frozen before what the kernel can give back of its memory is reclaimed.
    pub reclaim_after: Duration,
    /// Frozen containers that `max_containers` and `memory_mib` leave out; what they use together is bounded by `memory_mib` as well. Those beyond
    /// count like others.
    pub most_frozen: usize,
    /// How long a call waits at most for the container that has its value.
    pub affinity_wait: Duration,
    /// How long idle containers that hold values are kept at most; never shorter than the others.
    pub affinity_keep: Duration,
    /// Bytes of unpacked code and layers kept; what no container uses is removed, least recently used first.
    pub code_cache_bytes: u64,
    /// Whether `REPORT` lines say, after what AWS has there, what each stage of the call took.
    pub report_stages: bool,
    /// Where functions reach AWS services (`AWS_ENDPOINT_URL`); none leaves the SDKs' own addresses.
    pub aws_endpoint_url: Option<String>,
    /// WebAssembly functions.
    pub wasm: WasmConfig,
    /// The interpreters to look for beside those on `PATH`; for tests and unusual machines.
    pub interpreter_dirs: Vec<PathBuf>,
    /// Instances made ahead.
    pub pool: PoolConfig,
}

impl FleetConfig {
    /// Defaults for a node that keeps its data in `data_dir` and may use the whole machine's memory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_containers: DEFAULT_MAX_CONTAINERS,
            memory_mib: machine_memory_mib(),
            scaling: lambent_model::limits::SCALING_STARTS,
            room_patience: DEFAULT_ROOM_PATIENCE,
            freeze_after: DEFAULT_FREEZE_AFTER,
            reclaim_after: DEFAULT_RECLAIM_AFTER,
            most_frozen: DEFAULT_MOST_FROZEN,
            affinity_wait: DEFAULT_AFFINITY_WAIT,
            affinity_keep: DEFAULT_AFFINITY_KEEP,
            code_cache_bytes: DEFAULT_CODE_CACHE_BYTES,
            report_stages: false,
            aws_endpoint_url: None,
            wasm: WasmConfig::default(),
            interpreter_dirs: Vec::new(),
            pool: PoolConfig::default(),
        }
    }
}

/// The machine's memory as the kernel tells it; 4 GiB where it does not.
fn machine_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(4 * 1024 * 1024) / 1024
}

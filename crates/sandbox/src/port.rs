//! What a sandbox promises.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lambent_model::InstanceId;
use lambent_model::function::Network;
use tokio::sync::oneshot;

use crate::Error;

/// The port of the Runtime API inside every cell: `AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001`.
pub const RUNTIME_API_PORT: u16 = 9001;

/// Names the descriptor of the log pipe to the runtime inside.
pub const LOG_PIPE_VARIABLE: &str = "_LAMBDA_TELEMETRY_LOG_FD";
/// The log pipe's descriptor inside; the number Lambda itself uses.
pub const LOG_PIPE_FD: i32 = 62;

/// Names the descriptor of the order pipe to a waiting runtime.
pub const ORDER_PIPE_VARIABLE: &str = "_LAMBENT_ORDER_FD";
/// The order pipe's descriptor inside.
pub const ORDER_PIPE_FD: i32 = 63;

/// A directory or file of the host, visible read-only inside a cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// On the host, absolute.
    pub source: PathBuf,
    /// Inside the cell, absolute. Missing parents are made.
    pub target: PathBuf,
}

/// What a cell is made of. The host's runtime directories (`/usr`, `/lib*`, `/bin`, certificates, time zones) are there without
/// being named; `/tmp`, `/dev`, `/proc` are the cell's own.
#[derive(Debug, Clone)]
pub struct CellSpec {
    /// Its id.
    pub id: InstanceId,
    /// Read-only mounts, e.g. at `/var/task`, `/opt`, `/var/runtime`, and the interpreter's own prefix.
    pub mounts: Vec<Mount>,
    /// Memory limit; what goes beyond is killed.
    pub memory_mib: u32,
    /// CPU share in thousandths of one CPU.
    pub milli_cpus: u32,
    /// Size of `/tmp`.
    pub ephemeral_mib: u32,
    /// Processes and threads at once.
    pub processes: u32,
    /// What it may reach.
    pub network: Network,
}

/// What a blank cell is made of: all that can be known before it is known for whom it is.
///
/// A blank cell belongs to nobody. Only waiting runtimes ([`ProcessSpec::order_pipe`]) are started in it, nothing of a function is
/// visible in it, and its limits are the back end's own, until [`Cell::specialise`].
#[derive(Debug, Clone)]
pub struct BlankSpec {
    /// Its id.
    pub id: InstanceId,
    /// Read-only mounts that every function may see, e.g. at `/var/runtime` and the interpreter's own prefix.
    pub mounts: Vec<Mount>,
    /// The memory that a runtime started here takes the machine to have until it has an order. Node.js makes its heap accordingly, once, so a
    /// waiting one should serve functions of this size only.
    pub memory_mib: u32,
}

/// What a blank cell becomes: the part of a [`CellSpec`] that is a function's.
#[derive(Debug, Clone)]
pub struct Specialisation {
    /// Read-only mounts, e.g. at `/var/task` and `/opt`.
    pub mounts: Vec<Mount>,
    /// As in [`CellSpec`].
    pub memory_mib: u32,
    /// As in [`CellSpec`].
    pub milli_cpus: u32,
    /// As in [`CellSpec`].
    pub ephemeral_mib: u32,
    /// As in [`CellSpec`].
    pub processes: u32,
    /// As in [`CellSpec`].
    pub network: Network,
}

/// What a waiting runtime is told when it is known whom it serves: the rest of its [`ProcessSpec`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Order {
    /// The whole environment; what it was started with is forgotten.
    #[serde(serialize_with = "as_object")]
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// A snapshot, as seen inside, to become a clone of: one that was taken in a fork of the same template. None: an ordinary start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<PathBuf>,
}

fn as_object<S: serde::Serializer>(env: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(env.iter().map(|(name, value)| (name, value)))
}

/// A program to start in a cell. Paths are as seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Program and arguments; the program is a path.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whether to open the log pipe that `_LAMBDA_TELEMETRY_LOG_FD` names (the agent adds that variable with the descriptor's number).
    pub log_pipe: bool,
    /// Whether it is a runtime of ours that loads itself and then waits for its [`Order`] on the pipe that `_LAMBENT_ORDER_FD` names. Nothing
    /// else is started in a blank cell.
    pub order_pipe: bool,
}

/// A process of the back end that has loaded a runtime of ours, to be forked into cells: the program and its environment as of one
/// that waits ([`ProcessSpec::order_pipe`]).
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    /// Program and arguments; the program is a path as seen inside.
    pub argv: Vec<String>,
    /// The whole environment; nothing of any function, and nothing of the node's.
    pub env: Vec<(String, String)>,
    /// As in [`BlankSpec`].
    pub mounts: Vec<Mount>,
}

/// A process that was started in a cell.
#[derive(Debug)]
pub struct Process {
    /// Its id inside the cell.
    pub pid: u32,
    /// Read end of its standard output.
    pub stdout: OwnedFd,
    /// Read end of its standard error.
    pub stderr: OwnedFd,
    /// Read end of the framed log pipe, where one was asked for.
    pub log_pipe: Option<OwnedFd>,
    /// Write end of the order pipe, where one was asked for; for [`Cell::order`].
    pub order_pipe: Option<OwnedFd>,
    /// How it ended, once it has. An error of the receiver means the whole cell is gone.
    pub exit: oneshot::Receiver<ExitStatus>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed by the kernel because the cell was out of memory.
    OutOfMemory,
}

/// What a cell has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of memory in use.
    pub memory_bytes: u64,
    /// Most bytes of memory ever in use.
    pub memory_peak_bytes: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// Processes and threads alive.
    pub processes: u64,
}

/// How much memory the processes of a cell map, by whom else maps the same pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mapped {
    /// Bytes that no process but one of the cell maps: what its end would give back.
    pub private_bytes: u64,
    /// Their share of what others map too (a template's pages, the files of an interpreter); private and shared together are the PSS.
    pub shared_bytes: u64,
}

/// One thing that keeps a cell in, and whether this host can give it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Barrier {
    /// Short name, e.g. `user namespace`.
    pub name: &'static str,
    /// What it stops.
    pub stops: &'static str,
    /// None where the host gives it; else why not.
    pub missing: Option<String>,
    /// What an operator can do where it is missing.
    pub advice: Option<String>,
    /// Whether no cell is made without it.
    pub required: bool,
}

/// Makes cells.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// `cell` or `sim`.
    fn name(&self) -> &'static str;

    /// Makes a cell. When this returns, everything in the specification is in force and no user code has run.
    async fn create(&self, spec: CellSpec) -> Result<Arc<dyn Cell>, Error>;

    /// Makes a cell that belongs to nobody yet. No process runs in it but the back end's own.
    async fn blank(&self, spec: BlankSpec) -> Result<Arc<dyn Cell>, Error>;

    /// Starts a template. An error may be the interpreter's fault (it must be able to call the kernel: `ctypes`); runtimes that wait can then
    /// be started all the same.
    async fn template(&self, spec: TemplateSpec) -> Result<Arc<dyn Template>, Error>;

    /// Whether its cells can be frozen, as found when it was made.
    fn freezes(&self) -> bool;

    /// Ends whatever an earlier process of this node left behind (processes, cgroups, mounts, directories) and returns how many cells that were.
    async fn recover(&self) -> Result<usize, Error>;

    /// Each barrier, tried for real on this host.
    fn barriers(&self) -> Vec<Barrier>;
}

/// A runtime that can be forked. No code of any function ever runs in it. It ends when the last handle is dropped and all its forks
/// have ended.
pub trait Template: Any + Send + Sync {
    /// Whether more forks should be made from it. Forks of one template share what it drew at random at its start (the seed of Python's string
    /// hashes), so each makes a bounded number of them; and it may have died.
    fn usable(&self) -> bool;
}

/// A live cell. Dropping the last handle destroys it, too; [`Cell::destroy`] also waits.
#[async_trait]
pub trait Cell: Send + Sync + 'static {
    /// Its id.
    fn id(&self) -> InstanceId;

    /// Where the inside reaches the Runtime API, `127.0.0.1:9001` unless the back end shares the host's network.
    fn runtime_api_address(&self) -> String;

    /// The listening socket of the Runtime API, made inside the cell's network namespace. Given out once; none afterwards.
    fn take_runtime_api(&self) -> Option<std::net::TcpListener>;

    /// Rewrites a path of the inside to what processes of the cell must use (only `sim` changes anything).
    fn inside_path(&self, path: &str) -> String;

    /// Makes a blank cell a function's. When this returns, the cell is as [`Sandbox::create`] would have made it, and what waits in it may
    /// be given its order. Works once; refused for cells that are not blank. After an error the cell is of no use but to be destroyed.
    async fn specialise(&self, what: Specialisation) -> Result<(), Error>;

    /// Starts a program, as the unprivileged user of the cell, under its seccomp filter.
    async fn spawn(&self, process: ProcessSpec) -> Result<Process, Error>;

    /// Forks a template into this cell: as if its program had been started with an order pipe and a log pipe, but loaded already. The cell may
    /// be blank. The template must be of the same back end.
    async fn fork_from(&self, template: &Arc<dyn Template>) -> Result<Process, Error>;

    /// Gives a waiting runtime its order. The cell must have been specialised.
    async fn order(&self, pipe: OwnedFd, order: Order) -> Result<(), Error>;

    /// Sends a signal to one process started by [`Cell::spawn`] and to its process group; if the process has ended, to what is left of
    /// the group.
    async fn signal(&self, pid: u32, signal: i32) -> Result<(), Error>;

    /// A connection to a port that something inside listens on at its loopback (telemetry subscribers).
    async fn connect(&self, port: u16) -> Result<std::net::TcpStream, Error>;

    /// What it has used so far.
    async fn usage(&self) -> Result<Usage, Error>;

    /// What its processes, the agent included, map now. The kernel walks their page tables for it: for people who look, not for the way
    /// of a call.
    async fn mapped(&self) -> Result<Mapped, Error>;

    /// Changes the CPU share. Lambda gives an initialising function more than its share; so may the fleet. A back end without CPU
    /// limits does nothing.
    async fn set_milli_cpus(&self, milli_cpus: u32) -> Result<(), Error>;

    /// Does ahead what freezing takes more than a moment for, the first time; everything inside runs on. [`Cell::freeze`] does it otherwise.
    async fn prepare_to_freeze(&self) -> Result<(), Error>;

    /// Stops everything inside, wherever it is, until it is thawed. Nothing is lost: what is sent to it waits, and so does what is asked of the
    /// cell that takes a process inside ([`Cell::spawn`], [`Cell::connect`]); signals arrive afterwards. An error says that it runs on: in the
    /// midst of such a question, or where the host cannot, or a process does not stop. Frozen cells can be destroyed like any other.
    async fn freeze(&self) -> Result<(), Error>;

    /// Lets everything go on; nothing where it was not frozen. It also ends a [`Cell::freeze`] that nobody waits for any more.
    async fn thaw(&self) -> Result<(), Error>;

    /// Has the kernel give back memory of a frozen cell, as much as it can without swap; ends early when the cell is thawed. How many bytes
    /// were given back.
    async fn reclaim(&self) -> Result<u64, Error>;

    /// Kills everything inside and waits until processes, cgroup, mounts and namespaces are gone.
    async fn destroy(&self);
}

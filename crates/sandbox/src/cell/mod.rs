//! The isolating back end: namespaces, cgroups, a filter of system calls.
//!
//! ```text
//! Cells ── nursery ─► agent in its cell ◄── socket ──► LiveCell
//!   ├─ cgroup    limits and counts                 ├─ one task that receives
//!   ├─ ids       a host user of its own            ├─ egress, the way out
//!   └─ watch     memory without /tmp               └─ Remains: what to clear away, in which order
//! ```
//!
//! Making a cell, node's side: a cgroup, ids, an agent from the nursery; then one message with the whole order and one
//! answer when everything is in force ([`crate::agent`] has the other side). A blank cell gets what is a function's in a second message. Nothing of a cell is on the host's file system, so nothing
//! of it can be left there; its cgroups go when it is destroyed, or by [`Sandbox::recover`] after `kill -9` of the node.
//!
//! What the host cannot give fails the creation, with one exception that is said by `barriers()`: where no cgroup can be had (an
//! ordinary user on version 1), memory is limited by watching, processes by a resource limit, CPU not at all.

mod barriers;
mod cgroup;
mod channel;
mod ids;
mod live;
mod memory;
mod nursery;
mod recover;
mod remains;
mod template;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lambent_model::InstanceId;
use lambent_model::function::Network;

use crate::error::step;
use crate::lowered::{Lowered, Without};
use crate::owner::Owner;
use crate::pidfd::PidFd;
use crate::port::{
    Barrier, BlankSpec, Cell, CellSpec, Mount, RUNTIME_API_PORT, Sandbox, Specialisation, Template, TemplateSpec,
};
use crate::wire::{self, Build, Device, FromAgent, Special, ToAgent};
use crate::{Error, egress};
pub use cgroup::freezer::Version as FreezerVersion;
use channel::Channel;
pub(crate) use ids::map_cell;
use ids::{GID_INSIDE, Ids, UID_INSIDE};
use live::{Blank, LiveCell, Phase, Shared};
use memory::{Memory, Watch};
use nursery::Nursery;
use recover::Cgroups;
use remains::Remains;
use template::CellTemplate;

/// Room for the agent and for what the kernel keeps for a cell, beside what the function was promised.
const OVERHEAD_MIB: u32 = 8;
/// Size of `/dev/shm`, on top of memory. Lambda has none at all; Python's and Node's libraries use a little.
const SHARED_MIB: u32 = 16;
/// What a blank cell may use, for a runtime that loads itself and waits, whatever memory it is told there is.
const BLANK: Specialisation = Specialisation {
    mounts: Vec::new(),
    memory_mib: 512,
    milli_cpus: 2000,
    ephemeral_mib: 1,
    processes: 64,
    network: Network::None,
};
/// How long making a cell, or one answer of its agent, may take; milliseconds are usual, and whatever takes this long never ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// The host name inside.
const HOSTNAME: &str = "sandbox";

/// What the back end needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it remembers which cgroups are its own.
    pub directory: PathBuf,
    /// The program that serves as the agent: it must call [`crate::agent::main_if_asked`]. By default the running one.
    pub agent: PathBuf,
    /// How cells reach the world.
    pub egress: Arc<egress::Config>,
    /// How long the nursery or an agent may take for what it is asked to do; then it is given up, and what it made with it.
    pub patience: Duration,
    /// No other freezer than this version's; none: the better of those that the host has.
    pub freezer: Option<FreezerVersion>,
}

impl Config {
    /// With everything but the directory as usual.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        // The link and not what it points to: it stays right when the file is replaced by an upgrade.
        let (directory, agent) = (directory.into(), "/proc/self/exe".into());
        Self { directory, agent, egress: Arc::default(), patience: PATIENCE, freezer: None }
    }
}

/// Makes cells.
pub struct Cells {
    config: Config,
    ids: Result<Ids, String>,
    cgroups: Result<Arc<Cgroups>, String>,
    nursery: tokio::sync::Mutex<Option<Arc<Nursery>>>,
    watch: std::sync::OnceLock<Arc<Watch>>,
    without: Without,
}

impl Cells {
    /// A back end for this host. What the host lacks shows when a cell is made, and in [`Sandbox::barriers`].
    pub fn new(config: Config) -> Result<Self, Error> {
        raise_descriptors();
        let owner = Owner::me();
        std::fs::create_dir_all(&config.directory).map_err(step("make the sandbox's directory"))?;
        let hierarchies = cgroup::Hierarchies::of_this_host().map_err(step("find the cgroup file systems"))?;
        let cgroups = match cgroup::Tree::open(&hierarchies, owner) {
            Ok(tree) => {
                let freezer = cgroup::freezer::Tree::open(&hierarchies, &tree, &cgroup::name(owner), config.freezer);
                let cgroups = Cgroups::remember(tree, freezer, &config.directory, owner);
                Ok(Arc::new(cgroups.map_err(step("remember the cgroups"))?))
            }
            Err(reason) => Err(reason),
        };
        let (nursery, watch) = (tokio::sync::Mutex::default(), std::sync::OnceLock::new());
        Ok(Self { config, ids: Ids::claim(), cgroups, nursery, watch, without: Without::default() })
    }

    /// A back end whose cells lack one barrier, to show what that barrier stops.
    #[cfg(feature = "lower-barriers")]
    pub fn without(config: Config, barrier: Lowered) -> Result<Self, Error> {
        let mut cells = Self::new(config)?;
        cells.without = Without::barrier(barrier);
        if barrier == Lowered::User {
            cells.ids = Ok(Ids::Own);
        }
        Ok(cells)
    }

    /// The nursery, started when there is none. It may die at any time.
    async fn nursery(&self) -> Result<Arc<Nursery>, Error> {
        let mut current = self.nursery.lock().await;
        if let Some(nursery) = current.as_ref().filter(|nursery| nursery.alive()) {
            return Ok(nursery.clone());
        }
        Ok(current.insert(Nursery::start(&self.config.agent).await?).clone())
    }

    /// An agent that waits for its order. The nursery is started when there is none, or when it has died.
    async fn bear(&self, ids: (u32, u32)) -> Result<(Arc<Nursery>, Channel), Error> {
        let mut current = self.nursery.lock().await;
        let mut last = io::Error::from(io::ErrorKind::BrokenPipe);
        for _ in 0..2 {
            let nursery = match current.as_ref() {
                Some(nursery) => nursery.clone(),
                None => Nursery::start(&self.config.agent).await?,
            };
            let (ours, theirs) = wire::pair().map_err(step("socketpair"))?;
            match nursery.bear(&theirs, ids, self.without).await {
                Ok(()) => {
                    *current = Some(nursery.clone());
                    return Ok((nursery, Channel::new(ours).map_err(step("register the cell's socket"))?));
                }
                Err(error) => (*current, last) = (None, error),
            }
        }
        Err(step("ask the nursery for an agent")(last))
    }

    fn order(&self, mounts: &[Mount], whose: &Whose, remains: &Remains) -> Build {
        let (device, memory_mib, special) = match whose {
            Whose::Nobodys { memory_mib } => (Device::IfPossible, *memory_mib, None),
            Whose::Somebodys(what) => {
                let device = if what.network == Network::Internet { Device::Yes } else { Device::No };
                (device, what.memory_mib, Some(special(what)))
            }
        };
        Build {
            join: remains.group.as_ref().map(cgroup::Group::join_files).unwrap_or_default(),
            uid: UID_INSIDE,
            gid: GID_INSIDE,
            mounts: mounts.iter().map(|mount| (mount.source.clone(), mount.target.clone())).collect(),
            hostname: HOSTNAME.to_owned(),
            shared_mib: SHARED_MIB,
            // On the node's own network the usual port may be taken.
            port: if self.without.keeps(Lowered::Network) { RUNTIME_API_PORT } else { 0 },
            device,
            memory_mib,
            special,
            without: self.without,
        }
    }

    /// The cgroup of a cell; none where the host has none to give.
    fn group(&self, id: InstanceId, limits: cgroup::Limits) -> Result<Option<cgroup::Group>, Error> {
        let Ok(cgroups) = &self.cgroups else { return Ok(None) };
        cgroups.tree.make(&id.to_string(), limits).map(Some).map_err(step("make the cgroup"))
    }

    /// Where cells are frozen, or why they cannot be.
    fn freezer(&self) -> Result<&cgroup::freezer::Tree, &str> {
        let cgroups = self.cgroups.as_ref().map_err(String::as_str)?;
        cgroups.freezer.as_ref().map_err(String::as_str)
    }

    /// Makes a cell: somebody's, or blank.
    async fn make(&self, id: InstanceId, mounts: &[Mount], whose: Whose) -> Result<Arc<dyn Cell>, Error> {
        let ids = self
            .ids
            .as_ref()
            .map_err(|reason| Error::BarrierUnavailable { barrier: barriers::USER, advice: reason.clone() })?;
        let mut remains = Remains::default();
        let (limits, blank) = match &whose {
            Whose::Nobodys { .. } => (&BLANK, true),
            Whose::Somebodys(what) => (what, false),
        };
        let lease = ids.lease().map_err(step("lease user ids"))?;
        let user = lease.ids();
        remains.ids = Some(lease);
        remains.cgroups = self.cgroups.as_ref().ok().cloned();
        remains.group = self.group(id, live::limits(limits))?;
        remains.freezer = self.freezer().map(|freezers| Arc::new(freezers.of(&id.to_string()))).ok();
        let (nursery, channel) = self.bear(user).await?;
        let (pid, agent) = born(&channel).await?;
        remains.agent = Some(agent);
        let order = ToAgent::Build(Box::new(self.order(mounts, &whose, &remains)));
        channel.send(&order, &[]).await.map_err(step("send the order"))?;
        let Ready { listener, scratch, device } = ready(&channel).await?;
        let mut parts = Blank { device, egress: self.config.egress.clone(), without: self.without };
        if !blank {
            remains.egress = parts.serve_device()?;
        }
        let memory = Memory::new(remains.group.clone(), pid, scratch, limits.memory_mib);
        let memory = memory.map_err(step("open the memory gauge"))?;
        let shared = Shared::new(id, channel, memory, remains.freezer.clone(), self.config.patience);
        let shared = Arc::new(shared);
        self.watch.get_or_init(Watch::start).add(&shared);
        tokio::spawn(shared.clone().receive());
        let listener = std::sync::Mutex::new(Some(listener.into()));
        let remains = tokio::sync::Mutex::new(Some(remains));
        let phase =
            if blank { Phase::Blank(parts) } else { Phase::Somebodys { processes: u64::from(limits.processes) } };
        Ok(Arc::new(LiveCell { id, listener, shared, phase: std::sync::Mutex::new(phase), remains, nursery }))
    }

    /// The same within reason.
    async fn make_soon(&self, id: InstanceId, mounts: &[Mount], whose: Whose) -> Result<Arc<dyn Cell>, Error> {
        let begin = Instant::now();
        let cgroups = self.cgroups.as_ref().map_or("none", |cgroups| cgroups.tree.version());
        let Ok(cell) = tokio::time::timeout(self.config.patience, self.make(id, mounts, whose)).await else {
            // Whether it was the nursery's fault nobody can tell; a new one costs little, and the cells of this one live on.
            self.nursery.lock().await.take();
            return Err(step("make the cell")(io::ErrorKind::TimedOut.into()));
        };
        let cell = cell?;
        tracing::trace!(cell = %id, cgroups, took = ?begin.elapsed(), "made a cell");
        Ok(cell)
    }
}

/// Whose a cell is to be from the beginning.
enum Whose {
    Nobodys { memory_mib: u32 },
    Somebodys(Specialisation),
}

/// What the agent must know of whose the cell is; the mounts come along.
fn special(whose: &Specialisation) -> Special {
    Special {
        targets: whose.mounts.iter().map(|mount| mount.target.clone()).collect(),
        memory_mib: whose.memory_mib,
        ephemeral_mib: whose.ephemeral_mib,
        processes: whose.processes,
        internet: whose.network == Network::Internet,
    }
}

#[async_trait]
impl Sandbox for Cells {
    fn name(&self) -> &'static str {
        "cell"
    }

    async fn create(&self, spec: CellSpec) -> Result<Arc<dyn Cell>, Error> {
        let CellSpec { id, mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network } = spec;
        // Its mounts are known at once and go in with all others.
        let whose = Specialisation { mounts: Vec::new(), memory_mib, milli_cpus, ephemeral_mib, processes, network };
        self.make_soon(id, &mounts, Whose::Somebodys(whose)).await
    }

    async fn blank(&self, spec: BlankSpec) -> Result<Arc<dyn Cell>, Error> {
        self.make_soon(spec.id, &spec.mounts, Whose::Nobodys { memory_mib: spec.memory_mib }).await
    }

    async fn template(&self, spec: TemplateSpec) -> Result<Arc<dyn Template>, Error> {
        let patience = self.config.patience;
        let start = async {
            let nursery = self.nursery().await?;
            CellTemplate::start(nursery, spec, patience, self.without).await
        };
        let late = |_| step("start the template")(io::ErrorKind::TimedOut.into());
        Ok(tokio::time::timeout(patience, start).await.map_err(late)??)
    }

    async fn recover(&self) -> Result<usize, Error> {
        let directory = self.config.directory.clone();
        tokio::task::spawn_blocking(move || recover::recover(&directory)).await.map_err(|_| Error::Ended)
    }

    fn freezes(&self) -> bool {
        self.freezer().is_ok()
    }

    fn barriers(&self) -> Vec<Barrier> {
        barriers::of_this_host(self)
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // A process that ends right after this must leave nothing of cells that were dropped before.
        remains::wait_for_undertakers();
    }
}

/// A cell costs the node about six descriptors, and what is usual as a soft limit, 1,024, is there for programs that use `select`.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files; it bounds the number of cells");
    }
}

/// The first message: the agent's number and descriptor.
async fn born(channel: &Channel) -> Result<(u32, PidFd), Error> {
    match channel.receive().await.map_err(step("receive from the nursery"))? {
        Some((FromAgent::Born { pid }, fds)) => match fds.into_iter().next() {
            Some(pidfd) => Ok((pid, pidfd.into())),
            None => Err(Error::Ended),
        },
        Some((FromAgent::Failed { step, path, errno }, _)) => Err(barriers::explain(step, path, errno)),
        _ => Err(Error::Ended),
    }
}

/// A cell that is made.
struct Ready {
    listener: OwnedFd,
    scratch: OwnedFd,
    /// The device that leads out; or why there is none, where it was tried.
    device: Result<Option<OwnedFd>, i32>,
}

/// The answer to the order.
async fn ready(channel: &Channel) -> Result<Ready, Error> {
    match channel.receive().await.map_err(step("receive from the agent"))? {
        Some((FromAgent::Ready { took, no_device }, fds)) => {
            tracing::trace!(?took, "built a cell; microseconds a step");
            let mut fds = fds.into_iter();
            let (Some(listener), Some(scratch)) = (fds.next(), fds.next()) else { return Err(Error::Ended) };
            Ok(Ready { listener, scratch, device: no_device.map_or_else(|| Ok(fds.next()), Err) })
        }
        Some((FromAgent::Failed { step, path, errno }, _)) => Err(barriers::explain(step, path, errno)),
        _ => Err(step("build the cell")(io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
}

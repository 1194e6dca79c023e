//! Snapshots of initialised versions, from which clones are made (AWS's `SnapStart`).
//!
//! ```text
//! (none) ── published, or started cold without one ──► Making ──► Ready ── its template is gone, evicted ──► (none)
//!                                                         └──► Off: there can be none, and why
//! ```
//!
//! A snapshot is a file that the function's own runtime wrote through its Runtime API, opaque to the node: memory, `/tmp`, what else the
//! process had. Only cells of the same version get to see it, read-only. It serves forks of the template it was taken in alone, because only those
//! have their memory at the same places; when that template is spent another snapshot is taken. None outlives the node's process. Together they
//! take [`TOTAL_BYTES`] of disk at most (and of page cache, as far as the host has use for it); the oldest goes first. So a node that starts
//! has none: it takes them again ahead of any call, in the background, of [`AHEAD`] versions at most, as long as there is memory and disk for it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;
use lambent_sandbox::Template;
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::fleet::Inner;
use crate::placement::{Lane, Purpose};
use crate::warming::pressure::Pressure;
use crate::{Error, container};

/// Disk that all snapshots take together.
const TOTAL_BYTES: u64 = 4 << 30;

/// Versions whose snapshots are taken again when the node starts; others get theirs with their next cold start.
const AHEAD: usize = 64;

/// What is said of a version whose environment keeps it from being forked, or of an interpreter that cannot be.
pub(crate) const NO_FORK: &str =
    "its runtime cannot be forked: see its environment variables, or the interpreter lacks ctypes";

/// One that was taken.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Removed with the last container that is made from it.
    path: TempPath,
    template: Weak<dyn Template>,
    bytes: u64,
}

impl Snapshot {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a fork of this template can become what it was taken of.
    pub(crate) fn serves(&self, template: &Weak<dyn Template>) -> bool {
        self.template.ptr_eq(template)
    }
}

/// What became of a version's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapStart {
    /// Containers are made from it.
    On,
    /// It is being taken, or will be with the next cold start.
    Pending,
    /// There can be none, for this reason; containers are started ordinarily.
    Off(String),
}

/// A version's snapshot, for people.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SnapshotStatus {
    /// The function's ARN, with version.
    pub function: String,
    /// What became of it.
    pub state: SnapStart,
    /// Its size.
    pub bytes: u64,
}

enum State {
    Making,
    Ready(Arc<Snapshot>),
    Off(String),
}

struct Entry {
    function: String,
    state: State,
}

/// All there are.
pub(crate) struct Snapshots {
    directory: PathBuf,
    known: Mutex<HashMap<Uuid, Entry>>,
    /// Those that are ready, oldest first.
    order: Mutex<VecDeque<Uuid>>,
    /// One at a time: each takes a processor for a while.
    making: tokio::sync::Mutex<()>,
}

impl Snapshots {
    /// Those of an earlier process are of templates that are gone.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let directory = data.join("snapshots");
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&directory)?;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        let (known, order, making) = Default::default();
        Ok(Self { directory, known, order, making })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<Uuid>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one to make containers of this version from.
    pub(crate) fn of(&self, generation: Uuid) -> Option<Arc<Snapshot>> {
        match &self.known().get(&generation)?.state {
            State::Ready(snapshot) => Some(Arc::clone(snapshot)),
            State::Making | State::Off(_) => None,
        }
    }

    /// Disk that all take.
    fn bytes(&self) -> u64 {
        self.known().values().map(Entry::bytes).sum()
    }

    /// What became of a version's.
    pub(crate) fn what_of(&self, generation: Uuid) -> SnapStart {
        self.known().get(&generation).map_or(SnapStart::Pending, |entry| entry.state.shown())
    }

    /// Each.
    pub(crate) fn status(&self) -> Vec<SnapshotStatus> {
        let shown = |entry: &Entry| SnapshotStatus {
            function: entry.function.clone(),
            state: entry.state.shown(),
            bytes: entry.bytes(),
        };
        self.known().values().map(shown).collect()
    }

    /// A new file, which the users of cells can read once it is mounted for them.
    pub(crate) fn file(&self) -> io::Result<NamedTempFile> {
        let file = NamedTempFile::new_in(&self.directory)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// Marks one as being taken; false where it is, or was, or cannot be.
    fn begin(&self, version: &FunctionVersion) -> bool {
        let mut known = self.known();
        if known.contains_key(&version.generation) {
            return false;
        }
        known.insert(version.generation, Entry { function: version.qualified_arn(), state: State::Making });
        true
    }

    /// Keeps one that was taken, unless its version has been deleted meanwhile.
    pub(crate) fn keep(&self, generation: Uuid, file: TempPath, template: Weak<dyn Template>, bytes: u64) {
        let mut known = self.known();
        let Some(entry) = known.get_mut(&generation) else { return };
        entry.state = State::Ready(Arc::new(Snapshot { path: file, template, bytes }));
        let mut order = self.order();
        order.push_back(generation);
        while order.len() > 1 && known.values().map(Entry::bytes).sum::<u64>() > TOTAL_BYTES {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }

    /// There can be none, or it turned out to be of no use.
    pub(crate) fn refuse(&self, generation: Uuid, reason: String) {
        if let Some(entry) = self.known().get_mut(&generation) {
            tracing::info!(function = entry.function, reason, "SnapStart is off for a version");
            entry.state = State::Off(reason);
        }
        self.order().retain(|known| *known != generation);
    }

    /// Forgets a version's; the next cold start asks for another.
    pub(crate) fn forget(&self, generation: Uuid) {
        self.known().remove(&generation);
        self.order().retain(|known| *known != generation);
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        match &self.state {
            State::Ready(snapshot) => snapshot.bytes,
            State::Making | State::Off(_) => 0,
        }
    }
}

impl State {
    fn shown(&self) -> SnapStart {
        match self {
            Self::Making => SnapStart::Pending,
            Self::Ready(_) => SnapStart::On,
            Self::Off(reason) => SnapStart::Off(reason.clone()),
        }
    }
}

impl Inner {
    /// Takes a version's snapshot, unless there is one, or it is being taken. An error is the function's init failing.
    pub(crate) async fn snapshot(self: &Arc<Self>, version: &FunctionVersion) -> Result<(), String> {
        if !version.snap_start || !matches!(version.runtime, Runtime::Python { .. }) || !self.snapshots.begin(version) {
            return Ok(());
        }
        let _one_at_a_time = self.snapshots.making.lock().await;
        let taken = self.take_snapshot(Arc::new(version.clone())).await;
        match taken {
            Ok(()) => Ok(()),
            Err(Untaken::Init(reason)) => {
                self.snapshots.forget(version.generation);
                Err(reason)
            }
            Err(Untaken::Refused(reason)) => {
                self.snapshots.refuse(version.generation, reason);
                Ok(())
            }
            Err(Untaken::Node(reason)) => {
                tracing::warn!(function = version.qualified_arn(), reason, "a snapshot could not be taken");
                self.snapshots.forget(version.generation);
                Ok(())
            }
        }
    }

    /// Has a container initialised for its snapshot. It takes no turn of those that calls start containers by: there is one at a time.
    async fn take_snapshot(self: &Arc<Self>, version: Arc<FunctionVersion>) -> Result<(), Untaken> {
        self.interpreters.ready().await;
        if self.interpreters.of(&version.runtime).is_none() {
            return Err(Untaken::Node("its runtime is not on this machine".to_owned()));
        }
        let place = self.pool().begin(&version, &Lane::of(&version, None), Purpose::Snapshot);
        let Some((id, commands)) = place else { return Err(Untaken::Node("this node has no room for it".to_owned())) };
        let (outcome, taken) = oneshot::channel();
        self.tasks.spawn(container::run_for_snapshot(Arc::clone(self), id, version, commands, outcome));
        taken.await.unwrap_or_else(|_| Err(Untaken::Node(Error::Lost.to_string())))
    }

    /// [`Self::snapshot`] of several, before anybody calls them; how many were asked for. What fails is tried again by the next cold start.
    pub(crate) fn snapshot_ahead(self: &Arc<Self>, versions: Vec<Arc<FunctionVersion>>) -> JoinHandle<usize> {
        let fleet = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut asked = 0;
            let stopped = fleet.closing.clone();
            let each = async {
                for version in versions.iter().take(AHEAD) {
                    if fleet.warming.pressure() == Pressure::High || fleet.snapshots.bytes() >= TOTAL_BYTES {
                        let left = versions.len() - asked;
                        tracing::info!(
                            left,
                            "no more snapshots are taken ahead: memory is short, or their disk is full"
                        );
                        return;
                    }
                    asked += 1;
                    if let Err(reason) = fleet.snapshot(version).await {
                        tracing::warn!(function = version.qualified_arn(), reason, "no snapshot: its init failed");
                    }
                }
            };
            stopped.run_until_cancelled(each).await;
            asked
        })
    }

    /// [`Self::snapshot`] behind everybody's back: after a start that would have been a clone's.
    pub(crate) fn snapshot_later(self: &Arc<Self>, version: &Arc<FunctionVersion>) {
        let (fleet, version) = (Arc::clone(self), Arc::clone(version));
        self.tasks.spawn(async move {
            let stopped = fleet.closing.clone();
            // What fails here failed, or will fail, for a call as well.
            let _ = stopped.run_until_cancelled(fleet.snapshot(&version)).await;
        });
    }
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(crate) enum Untaken {
    /// The function's init failed.
    Init(String),
    /// Its process is none that another can be made from.
    Refused(String),
    /// This node's fault, for now.
    Node(String),
}

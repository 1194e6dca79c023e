//! Resources of cells: one tree of cgroups a node process, one group a cell in it.
//!
//! Version 1 has a tree for each controller, version 2 one for all; [`Group`] hides which. Both are plain files, written with plain
//! writes; the roots are found in `/proc/self/mountinfo` and `/proc/self/cgroup`, so a node in a container or a delegated subtree
//! stays inside what it was given.
//!
//! The limit the kernel enforces is memory plus `/tmp`, because pages of `/tmp` are charged to the cell like any others and nothing
//! tells the kernel to count them apart. What a function may use without `/tmp` is enforced by `super::watch` within that limit.

mod discover;
pub(super) mod freezer;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use discover::Hierarchies;

use crate::owner::Owner;

/// Period of the CPU quota. Lambda's own: a function at its smallest share then waits at most 19 ms, not 93, for its next turn.
pub(super) const CPU_PERIOD_US: u64 = 20_000;
/// The kernel refuses a quota below this.
const LEAST_QUOTA_US: u64 = 1_000;
/// Attempts at removing a group whose last process is just leaving it, and the pause between two.
const REMOVE_ATTEMPTS: u32 = 400;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// Groups of one node: this and its [`Owner`].
pub(super) const PREFIX: &str = "lambent-";

/// What a cell may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub memory_bytes: u64,
    pub processes: u64,
    pub milli_cpus: u32,
}

impl Limits {
    fn quota_us(milli_cpus: u32) -> u64 {
        (u64::from(milli_cpus) * CPU_PERIOD_US / 1000).max(LEAST_QUOTA_US)
    }
}

/// What the kernel has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Memory charged, all kinds.
    pub charged_bytes: u64,
    /// Of it, pages of files on disk, which go when room is needed.
    pub file_bytes: u64,
    pub oom_kills: u64,
    pub cpu: Duration,
    pub processes: u64,
}

/// The name of a node's directories.
pub(super) fn name(owner: Owner) -> String {
    format!("{PREFIX}{owner}")
}

/// The tree of this node process.
#[derive(Debug)]
pub(super) enum Tree {
    V1(v1::Tree),
    V2(v2::Tree),
}

impl Tree {
    /// Makes the node's directories in the first hierarchy that can be used. The error says what is missing.
    pub(super) fn open(hierarchies: &Hierarchies, owner: Owner) -> Result<Self, String> {
        let name = name(owner);
        if hierarchies.v1.contains_key("memory") {
            return v1::Tree::open(hierarchies, &name).map(Self::V1);
        }
        v2::Tree::open(hierarchies, &name).map(Self::V2)
    }

    /// `v1` or `v2`, for people.
    pub(super) fn version(&self) -> &'static str {
        match self {
            Self::V1(_) => "v1",
            Self::V2(_) => "v2",
        }
    }

    /// Makes a group with its limits in force.
    pub(super) fn make(&self, id: &str, limits: Limits) -> io::Result<Group> {
        let group = match self {
            Self::V1(tree) => Group::V1(tree.group(id)),
            Self::V2(tree) => Group::V2(tree.group(id)),
        };
        let made = match &group {
            Group::V1(group) => group.make(limits),
            Group::V2(group) => group.make(limits),
        };
        if let Err(error) = made {
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// The node's directories, each of which holds one a cell.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(tree) => tree.directories(),
            Self::V2(tree) => tree.directories(),
        }
    }
}

/// The group of one cell.
#[derive(Debug, Clone)]
pub(super) enum Group {
    V1(v1::Group),
    V2(v2::Group),
}

impl Group {
    /// Files to write a process's number to, to put it in.
    pub(super) fn join_files(&self) -> Vec<PathBuf> {
        self.directories().into_iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    fn directories(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(group) => group.directories(),
            Self::V2(group) => group.directories(),
        }
    }

    /// Puts other limits in force.
    pub(super) fn limit(&self, limits: Limits) -> io::Result<()> {
        match self {
            Self::V1(group) => group.limit(limits),
            Self::V2(group) => group.limit(limits),
        }
    }

    pub(super) fn set_milli_cpus(&self, milli_cpus: u32) -> io::Result<()> {
        let quota = Limits::quota_us(milli_cpus);
        match self {
            Self::V1(group) => group.set_quota(quota),
            Self::V2(group) => group.set_quota(quota),
        }
    }

    /// Memory charged, and nothing else, kept open: cheap enough to ask often.
    pub(super) fn gauge(&self) -> io::Result<Gauge> {
        let file = match self {
            Self::V1(group) => group.charged_file(),
            Self::V2(group) => group.charged_file(),
        };
        Ok(Gauge { file: fs::File::open(file?)? })
    }

    pub(super) fn counts(&self) -> io::Result<Counts> {
        match self {
            Self::V1(group) => group.counts(),
            Self::V2(group) => group.counts(),
        }
    }

    pub(super) fn oom_kills(&self) -> io::Result<u64> {
        match self {
            Self::V1(group) => group.oom_kills(),
            Self::V2(group) => group.oom_kills(),
        }
    }

    /// Has the kernel give back what memory of it can be had again: pages of files, as cells have no swap. For as long as `go_on` says, and
    /// no more than is charged now. Milliseconds; how many bytes went.
    pub(super) fn reclaim(&self, go_on: impl Fn() -> bool) -> io::Result<u64> {
        let before = self.counts()?.charged_bytes;
        match self {
            Self::V1(group) => group.reclaim()?,
            Self::V2(group) => group.reclaim(before, go_on)?,
        }
        Ok(before.saturating_sub(self.counts()?.charged_bytes))
    }

    /// Host numbers of its processes.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        self.join_files().first().map_or(Ok(Vec::new()), |file| pids(file))
    }

    /// Ends what may still be in it and removes it; blocking.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.directories().iter().try_for_each(|directory| remove(directory))
    }
}

/// One number of a group.
#[derive(Debug)]
pub(super) struct Gauge {
    file: fs::File,
}

impl Gauge {
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut text = [0; 24];
        let length = self.file.read_at(&mut text, 0)?;
        let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| text.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
    }
}

/// Kills what is in a cell's directory and removes it; blocking, bounded.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => result = Err(error),
        }
        if !directory.join("cgroup.procs").exists() {
            // Not a cgroup at all, so nothing will make it removable.
            return result;
        }
        kill_all(directory);
        freezer::let_die(directory);
        #[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when this is done")]
        std::thread::sleep(REMOVE_PAUSE);
    }
    result
}

/// Kills what is in a group.
fn kill_all(directory: &Path) {
    for pid in pids(&directory.join("cgroup.procs")).unwrap_or_default() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL);
    }
}

fn pids(file: &Path) -> io::Result<Vec<u32>> {
    // 0 stands for a process of a pid namespace one cannot see.
    Ok(fs::read_to_string(file)?.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
}

/// Writes a control file, naming it in the error.
fn write(directory: &Path, file: &str, value: impl std::fmt::Display) -> io::Result<()> {
    let path = directory.join(file);
    // Not `fs::write`: these files exist or do not, and must never be made.
    let mut open = fs::OpenOptions::new();
    let result =
        open.write(true).open(&path).and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()));
    result.map_err(|error| io::Error::new(error.kind(), format!("{} = {value}: {error}", path.display())))
}

/// A file that holds one number.
fn number(directory: &Path, file: &str) -> io::Result<u64> {
    let text = fs::read_to_string(directory.join(file))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{file} holds {text:?}")))
}

/// The values of these names in a file of `name value` lines; 0 for what is not there.
fn fields<const N: usize>(directory: &Path, file: &str, names: [&str; N]) -> io::Result<[u64; N]> {
    let text = fs::read_to_string(directory.join(file))?;
    Ok(names.map(|name| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(found, _)| *found == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    }))
}

#[cfg(test)]
mod tests;

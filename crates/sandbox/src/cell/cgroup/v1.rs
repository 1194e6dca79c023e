//! Version 1: a tree for each controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CPU_PERIOD_US, Counts, Hierarchies, Limits, fields, number, write};

/// Without these, no cell is made on version 1.
const REQUIRED: [&str; 3] = ["memory", "pids", "cpu"];
/// CPU time is read from it. No more than what is used: joining a group waits for all CPUs, once for each controller.
const OPTIONAL: [&str; 1] = ["cpuacct"];

/// The node's directory in each controller's tree.
#[derive(Debug)]
pub(crate) struct Tree {
    controllers: Vec<(&'static str, PathBuf)>,
}

impl Tree {
    pub(super) fn open(hierarchies: &Hierarchies, name: &str) -> Result<Self, String> {
        let mut tree = Self { controllers: Vec::new() };
        for controller in REQUIRED {
            let directory = make(hierarchies, controller, name)?;
            tree.controllers.push((controller, directory));
        }
        for controller in OPTIONAL {
            if let Ok(directory) = make(hierarchies, controller, name) {
                tree.controllers.push((controller, directory));
            }
        }
        Ok(tree)
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        distinct(self.controllers.iter().map(|(_, directory)| directory.clone()))
    }

    pub(super) fn group(&self, id: &str) -> Group {
        Group { controllers: self.controllers.iter().map(|(name, directory)| (*name, directory.join(id))).collect() }
    }
}

/// Controllers mounted together share directories.
fn distinct(directories: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for directory in directories {
        if !all.contains(&directory) {
            all.push(directory);
        }
    }
    all
}

/// The node's directory in the tree of one controller.
pub(super) fn make(hierarchies: &Hierarchies, controller: &str, name: &str) -> Result<PathBuf, String> {
    let mut reason = format!("the {controller} controller is not mounted");
    for parent in hierarchies.v1.get(controller).into_iter().flatten() {
        let directory = parent.join(name);
        match fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(directory),
            Err(error) => reason = format!("cannot make {}: {error}", directory.display()),
        }
    }
    Err(reason)
}

/// A cell's directory in each controller's tree.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    controllers: Vec<(&'static str, PathBuf)>,
}

impl Group {
    fn of(&self, controller: &str) -> io::Result<&Path> {
        let found = self.controllers.iter().find(|(name, _)| *name == controller);
        found.map(|(_, directory)| directory.as_path()).ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        distinct(self.controllers.iter().map(|(_, directory)| directory.clone()))
    }

    pub(super) fn make(&self, limits: Limits) -> io::Result<()> {
        self.directories().iter().try_for_each(fs::create_dir)?;
        write(self.of("memory")?, "memory.swappiness", 0)?;
        self.limit(limits)
    }

    pub(super) fn limit(&self, limits: Limits) -> io::Result<()> {
        let memory = self.of("memory")?;
        // Swap off: the same limit for both together. Absent where the kernel does not count swap; then nothing is swapped either, as
        // far as the swappiness can see to it.
        let mut files = vec!["memory.limit_in_bytes"];
        if memory.join("memory.memsw.limit_in_bytes").exists() {
            files.push("memory.memsw.limit_in_bytes");
        }
        // The second must never be below the first, on the way neither.
        if number(memory, "memory.limit_in_bytes")? < limits.memory_bytes {
            files.reverse();
        }
        files.iter().try_for_each(|file| write(memory, file, limits.memory_bytes))?;
        // Buffers of TCP sockets are counted apart in version 1, and only once they are limited.
        if memory.join("memory.kmem.tcp.limit_in_bytes").exists() {
            write(memory, "memory.kmem.tcp.limit_in_bytes", limits.memory_bytes)?;
        }
        write(self.of("pids")?, "pids.max", limits.processes)?;
        self.set_quota(Limits::quota_us(limits.milli_cpus))
    }

    pub(super) fn set_quota(&self, quota_us: u64) -> io::Result<()> {
        let cpu = self.of("cpu")?;
        write(cpu, "cpu.cfs_period_us", CPU_PERIOD_US)?;
        write(cpu, "cpu.cfs_quota_us", quota_us)
    }

    /// The file that holds what is charged.
    pub(super) fn charged_file(&self) -> io::Result<PathBuf> {
        Ok(self.of("memory")?.join("memory.usage_in_bytes"))
    }

    /// All that can be had without waiting for a disk: pages of files. Where the kernel has no such file, nothing.
    pub(super) fn reclaim(&self) -> io::Result<()> {
        match write(self.of("memory")?, "memory.force_empty", 0) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => Ok(()),
            other => other,
        }
    }

    pub(super) fn oom_kills(&self) -> io::Result<u64> {
        fields(self.of("memory")?, "memory.oom_control", ["oom_kill"]).map(|[kills]| kills)
    }

    pub(super) fn counts(&self) -> io::Result<Counts> {
        let [cache, shared] = fields(self.of("memory")?, "memory.stat", ["total_cache", "total_shmem"])?;
        Ok(Counts {
            charged_bytes: number(self.of("memory")?, "memory.usage_in_bytes")?,
            file_bytes: cache.saturating_sub(shared),
            oom_kills: self.oom_kills()?,
            cpu: self
                .of("cpuacct")
                .and_then(|cpu| number(cpu, "cpuacct.usage"))
                .map(Duration::from_nanos)
                .unwrap_or_default(),
            processes: number(self.of("pids")?, "pids.current")?,
        })
    }
}

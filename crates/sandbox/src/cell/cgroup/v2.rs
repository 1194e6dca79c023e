//! Version 2: one tree, controllers enabled from the top down.
//!
//! A group other than the top one may either hold processes or hand controllers to groups below, not both. So where the node sits in
//! the group it was delegated, it first moves itself into a leaf of its own beside the cells. Whatever that process starts or opens
//! later finds itself in the leaf, and takes the group above for its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CPU_PERIOD_US, Counts, Hierarchies, Limits, fields, number, pids, write};

/// Without these, no cell is made on version 2.
const REQUIRED: [&str; 3] = ["cpu", "memory", "pids"];
/// What is reclaimed at once: less than a millisecond's work.
const RECLAIM_PIECE: u64 = 4 * 1024 * 1024;
/// Where the node goes when it sits in the way.
const LEAF: &str = "node";

/// The node's directory.
#[derive(Debug)]
pub(crate) struct Tree {
    directory: PathBuf,
}

impl Tree {
    pub(super) fn open(hierarchies: &Hierarchies, name: &str) -> Result<Self, String> {
        let mut reason = "no cgroup file system is mounted".to_owned();
        for parent in candidates(&hierarchies.v2) {
            match open_in(parent, name) {
                Ok(directory) => return Ok(Self { directory }),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        vec![self.directory.clone()]
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn group(&self, id: &str) -> Group {
        Group { directory: self.directory.join(id) }
    }
}

/// Where to try, best first: from inside the leaf what it is a leaf of.
fn candidates(directories: &[PathBuf]) -> Vec<&Path> {
    let mut found: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
    for directory in &mut found {
        if let Some(above) = directory.parent().filter(|_| directory.ends_with(LEAF)) {
            *directory = above;
        }
    }
    found
}

fn open_in(parent: &Path, name: &str) -> Result<PathBuf, String> {
    let available = fs::read_to_string(parent.join("cgroup.controllers")).map_err(|error| describe(parent, &error))?;
    if let Some(missing) = REQUIRED.iter().find(|name| !available.split_ascii_whitespace().any(|found| found == **name))
    {
        return Err(format!("the {missing} controller is not delegated to {}", parent.display()));
    }
    let directory = parent.join(name);
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(describe(&directory, &error)),
        _ => {}
    }
    let enabled = enable(parent).or_else(|error| {
        // EBUSY: processes are in it. If that is only us, make way.
        if error.raw_os_error() == Some(libc::EBUSY) || error.kind() == io::ErrorKind::ResourceBusy {
            make_way(parent).and_then(|()| enable(parent))
        } else {
            Err(error)
        }
    });
    match enabled.and_then(|()| enable(&directory)) {
        Ok(()) => Ok(directory),
        Err(error) => {
            let _ = fs::remove_dir(&directory);
            Err(describe(parent, &error))
        }
    }
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("cannot use {}: {error}", path.display())
}

/// Hands the controllers down, unless they are already.
fn enable(directory: &Path) -> io::Result<()> {
    let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let missing = REQUIRED.iter().filter(|name| !enabled.split_ascii_whitespace().any(|found| found == **name));
    let wanted = missing.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if wanted.is_empty() { Ok(()) } else { write(directory, "cgroup.subtree_control", wanted) }
}

/// Moves this process out of `directory` into a leaf below, if it is alone there.
fn make_way(directory: &Path) -> io::Result<()> {
    let inside = pids(&directory.join("cgroup.procs"))?;
    if inside.is_empty() {
        // Another back end of this process has made way in this moment.
        return Ok(());
    }
    if inside != [std::process::id()] {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes are in this group"));
    }
    let leaf = directory.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    write(&leaf, "cgroup.procs", std::process::id())
}

/// A cell's directory.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    directory: PathBuf,
}

impl Group {
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        vec![self.directory.clone()]
    }

    pub(super) fn make(&self, limits: Limits) -> io::Result<()> {
        fs::create_dir(&self.directory)?;
        self.limit(limits)
    }

    pub(super) fn limit(&self, limits: Limits) -> io::Result<()> {
        write(&self.directory, "memory.max", limits.memory_bytes)?;
        // Absent where the kernel has no swap.
        if self.directory.join("memory.swap.max").exists() {
            write(&self.directory, "memory.swap.max", 0)?;
        }
        write(&self.directory, "pids.max", limits.processes)?;
        self.set_quota(Limits::quota_us(limits.milli_cpus))
    }

    pub(super) fn set_quota(&self, quota_us: u64) -> io::Result<()> {
        write(&self.directory, "cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))
    }

    /// The file that holds what is charged.
    pub(super) fn charged_file(&self) -> io::Result<PathBuf> {
        Ok(self.directory.join("memory.current"))
    }

    /// As much as can be had of `bytes`, piece by piece while `go_on`. Nothing where the kernel has no such file (before Linux 5.19).
    pub(super) fn reclaim(&self, mut bytes: u64, go_on: impl Fn() -> bool) -> io::Result<()> {
        while bytes > 0 && go_on() {
            let piece = bytes.min(RECLAIM_PIECE);
            match write(&self.directory, "memory.reclaim", piece) {
                Ok(()) => bytes -= piece,
                // There is no more of it.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn oom_kills(&self) -> io::Result<u64> {
        fields(&self.directory, "memory.events", ["oom_kill"]).map(|[kills]| kills)
    }

    pub(super) fn counts(&self) -> io::Result<Counts> {
        let [file, shared] = fields(&self.directory, "memory.stat", ["file", "shmem"])?;
        let [cpu] = fields(&self.directory, "cpu.stat", ["usage_usec"])?;
        Ok(Counts {
            charged_bytes: number(&self.directory, "memory.current")?,
            file_bytes: file.saturating_sub(shared),
            oom_kills: self.oom_kills()?,
            cpu: Duration::from_micros(cpu),
            processes: number(&self.directory, "pids.current")?,
        })
    }
}

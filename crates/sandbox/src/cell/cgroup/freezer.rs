//! The freezer: stops all processes of a cell wherever they are, and lets them go on.
//!
//! | | |
//! | --- | --- |
//! | version 2 | a file of every group, whatever its controllers. Who is frozen can be killed |
//! | version 1 | a hierarchy of its own. Who is frozen does not even die of SIGKILL before it is thawed: [`Freezer::release`] |
//!
//! Where the limits are version 2's, so is the freezer, and the group is the same. Where they are version 1's, version 2 is usually mounted
//! beside it without controllers, and its freezer is taken; else version 1's. In such a tree of its own a cell gets a group when it is to be
//! frozen for the first time: joining a group waits for all CPUs, which no cold start should do for what may never be needed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Group, Hierarchies, kill_all, pids, v1, write};

/// How long freezing may take; tens of microseconds are usual. A process in the midst of a disk's answer takes as long as the disk.
const WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether that is still wanted, and on version 1, where nobody tells, whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often processes that have come since are moved in before it is given up: they fork faster than we read.
const ROUNDS: u32 = 64;
/// Version 1's file, by which its groups are known.
const STATE: &str = "freezer.state";
/// Version 2's.
const FREEZE: &str = "cgroup.freeze";

/// Whose freezer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Version 1's.
    V1,
    /// Version 2's.
    V2,
}

/// Where the freezers of a node's cells are.
#[derive(Debug)]
pub(in crate::cell) struct Tree {
    version: Version,
    directory: PathBuf,
    /// Whether the groups are none of those that hold the limits.
    apart: bool,
}

impl Tree {
    /// Finds the freezer beside the groups of `limits`; makes the node's directory where it has one of its own. `only`: no other than this
    /// version's. The error says what is missing.
    pub(in crate::cell) fn open(
        hierarchies: &Hierarchies,
        limits: &super::Tree,
        name: &str,
        only: Option<Version>,
    ) -> Result<Self, String> {
        if let super::Tree::V2(tree) = limits {
            let directory = tree.directory().to_owned();
            return match directory.join(FREEZE).exists() && only != Some(Version::V1) {
                true => Ok(Self { version: Version::V2, directory, apart: false }),
                false => Err(format!("{} has no {FREEZE}: it takes Linux 5.2", directory.display())),
            };
        }
        let mut reason = "no freezer is mounted".to_owned();
        for parent in hierarchies.v2.iter().filter(|_| only != Some(Version::V1)) {
            match beside(parent, name) {
                Ok(directory) => return Ok(Self { version: Version::V2, directory, apart: true }),
                Err(error) => reason = format!("cannot use {}: {error}", parent.display()),
            }
        }
        if only == Some(Version::V2) {
            return Err(reason);
        }
        let directory = v1::make(hierarchies, "freezer", name)?;
        Ok(Self { version: Version::V1, directory, apart: true })
    }

    /// The node's directory, where it is one of its own.
    pub(in crate::cell) fn directory(&self) -> Option<PathBuf> {
        self.apart.then(|| self.directory.clone())
    }

    /// Of one cell.
    pub(in crate::cell) fn of(&self, id: &str) -> Freezer {
        Freezer {
            version: self.version,
            directory: self.directory.join(id),
            apart: self.apart,
            wanted: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }
}

/// The node's directory below a group of version 2 that hands out no controllers.
fn beside(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let directory = parent.join(name);
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if directory.join(FREEZE).exists() {
        return Ok(directory);
    }
    let _ = fs::remove_dir(&directory);
    Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup.freeze: it takes Linux 5.2"))
}

/// The freezer of one cell. Its methods block for as long as they say.
#[derive(Debug)]
pub(in crate::cell) struct Freezer {
    version: Version,
    directory: PathBuf,
    apart: bool,
    /// Whether the cell is to be frozen. Set at once, while the work may still have to be done: who freezes gives up when it is no more.
    wanted: AtomicBool,
    /// One at a time.
    writing: Mutex<()>,
}

impl Freezer {
    /// Puts all processes of the cell in, where they are not by themselves. They run on. Milliseconds, the first time.
    pub(in crate::cell) fn admit(&self, group: &Group) -> io::Result<()> {
        if !self.apart {
            return Ok(());
        }
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for _ in 0..ROUNDS {
            let inside: HashSet<u32> = pids(&self.directory.join("cgroup.procs"))?.into_iter().collect();
            let mut outside = group.pids()?;
            outside.retain(|pid| !inside.contains(pid));
            if outside.is_empty() {
                // What they start from now on is in from its birth.
                return Ok(());
            }
            for pid in outside {
                match write(&self.directory, "cgroup.procs", pid) {
                    // It has ended.
                    Err(_) if crate::procfs::runs(pid).is_none() => {}
                    other => other?,
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "new processes come faster than they can be put in"))
    }

    /// Says that the cell is to be frozen, or is not any more.
    pub(in crate::cell) fn want(&self, frozen: bool) {
        self.wanted.store(frozen, Ordering::Release);
    }

    /// Whether it is to be.
    pub(in crate::cell) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Stops them all, within [`WITHIN`] and for as long as that is wanted; else they run on. Microseconds.
    pub(in crate::cell) fn freeze(&self) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + WITHIN;
        let frozen = match self.version {
            Version::V1 => self.freeze_v1(until),
            Version::V2 => self.freeze_v2(until),
        };
        if frozen.is_err() {
            self.write_thawed()?;
        }
        frozen
    }

    /// Lets them go on.
    pub(in crate::cell) fn thaw(&self) -> io::Result<()> {
        self.want(false);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_thawed()
    }

    fn check(&self, until: Instant) -> io::Result<()> {
        match self.wanted() {
            true if Instant::now() < until => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "a process does not stop")),
            false => Err(io::Error::new(io::ErrorKind::Interrupted, "it is not wanted any more")),
        }
    }

    fn freeze_v1(&self, until: Instant) -> io::Result<()> {
        loop {
            self.check(until)?;
            // Said again each time, for those that were forked in between.
            write(&self.directory, STATE, "FROZEN")?;
            if fs::read_to_string(self.directory.join(STATE))?.trim() == "FROZEN" {
                return Ok(());
            }
            #[expect(clippy::disallowed_methods, reason = "version 1 tells nobody when it is done")]
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn freeze_v2(&self, until: Instant) -> io::Result<()> {
        let events = fs::File::open(self.directory.join("cgroup.events"))?;
        self.check(until)?;
        write(&self.directory, FREEZE, 1)?;
        loop {
            let mut text = [0; 256];
            let length = events.read_at(&mut text, 0)?;
            if text.get(..length).is_some_and(|text| text.split(|byte| *byte == b'\n').any(|line| line == b"frozen 1"))
            {
                return Ok(());
            }
            self.check(until)?;
            // The file says so when it changes; between two looks nobody has to.
            let look = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], look);
        }
    }

    fn write_thawed(&self) -> io::Result<()> {
        let written = match self.version {
            Version::V1 => write(&self.directory, STATE, "THAWED"),
            Version::V2 => write(&self.directory, FREEZE, 0),
        };
        match written {
            // Nobody was put in yet.
            Err(error) if self.apart && error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Before the end of a cell: whoever is in is killed, and then may go.
    pub(in crate::cell) fn release(&self) {
        self.want(false);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.version == Version::V1 && self.directory.exists() {
            kill_all(&self.directory);
            let _ = self.write_thawed();
        }
    }

    /// Removes the group, where it is one of its own; bounded.
    pub(in crate::cell) fn remove(&self) -> io::Result<()> {
        if self.apart { super::remove(&self.directory) } else { Ok(()) }
    }
}

/// Thaws a directory of version 1 whose processes have been killed, so that they can die; of a node that is no more, say.
pub(super) fn let_die(directory: &Path) {
    if directory.join(STATE).exists() {
        let _ = write(directory, STATE, "THAWED");
    }
}

#[cfg(test)]
mod tests;

//! Making a blank cell somebody's: what is a function's is put in place, and the agent gives up every privilege, for good.
//!
//! Until then the agent has every capability over the cell's namespaces, and nothing but runtimes of ours that wait for their order has
//! been started in the cell, each of them without any privilege and under the filter from its first instruction
//! ([`super::exec`]). User code is handed to such a runtime, or started, only after the node has been told that this is done.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::steps::{Fault, Steps};
use super::sys::move_mount;
use super::{etc, privileges, root, seccomp};
use crate::egress::net::RESOLV_CONF;
use crate::lowered::{Lowered, Without};
use crate::wire::{Build, Special};

/// What an agent holds while its cell is blank.
pub(super) struct Blank {
    /// The root's file system, through which it can be written to although it is sealed for everybody else. None where a test took the
    /// root away.
    root: Option<OwnedFd>,
    /// Whether [`root::SEARCHED`] are there.
    searched: bool,
    without: Without,
}

impl Blank {
    pub(super) fn new(root: Option<OwnedFd>, order: &Build) -> Self {
        Self { root, searched: order.special.is_none(), without: order.without }
    }

    /// Makes it somebody's. `waiting` are the runtimes that were started before. What comes back puts the filter in force, which must be
    /// done before anything else is started.
    pub(super) fn specialise(
        self,
        order: &Special,
        trees: &[OwnedFd],
        waiting: &[i32],
        steps: &mut Steps,
    ) -> Result<Unfiltered, Fault> {
        if let Some(root) = &self.root {
            if self.searched {
                steps.step("attach mounts", || attach(root, &order.targets, trees))?;
            }
            steps.step("write files of the function", || {
                write(root, root::MEMINFO, &etc::meminfo(order.memory_mib))?;
                write(root, "etc/resolv.conf", if order.internet { RESOLV_CONF } else { "" })
            })?;
            steps.step("size the scratch directory", || size_scratch(order.ephemeral_mib))?;
        }
        // Last: nothing above would work afterwards.
        steps.step("limit processes", || privileges::limit_processes(order.processes, waiting))?;
        if self.without.keeps(Lowered::Capabilities) {
            steps.step("drop capabilities", privileges::drop_all)?;
        }
        Ok(Unfiltered { without: self.without })
    }
}

/// An agent that has given up its privileges, and not yet the system calls that a cell has no use for.
#[must_use]
pub(super) struct Unfiltered {
    without: Without,
}

impl Unfiltered {
    pub(super) fn filter(self, filters: &seccomp::Filters, steps: &mut Steps) -> Result<(), Fault> {
        match self.without.keeps(Lowered::Filter) {
            true => steps.step("filter system calls", || filters.install()),
            false => Ok(()),
        }
    }
}

/// Puts mounts where they belong; where none does, nothing is, as in a cell that never was blank.
fn attach(root: &OwnedFd, targets: &[impl AsRef<Path>], trees: &[OwnedFd]) -> io::Result<()> {
    for directory in root::SEARCHED {
        match unlinkat(root, Path::new(directory), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (target, tree) in targets.iter().zip(trees) {
        let target = target.as_ref();
        let is_directory = SFlag::from_bits_truncate(fstat(tree)?.st_mode).contains(SFlag::S_IFDIR);
        make_place(root, target, is_directory).map_err(|error| root::at(target, error))?;
        move_mount(tree, target).map_err(|error| root::at(target, error))?;
    }
    Ok(())
}

/// Makes what a mount covers, unless it is there.
fn make_place(root: &OwnedFd, target: &Path, is_directory: bool) -> io::Result<()> {
    if target.symlink_metadata().is_ok() {
        return Ok(());
    }
    let names = target.components().filter(|part| matches!(part, Component::Normal(_)));
    let inside: std::path::PathBuf = names.collect();
    for directory in inside.ancestors().skip(usize::from(!is_directory)).collect::<Vec<_>>().into_iter().rev().skip(1) {
        match mkdirat(root, directory, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !is_directory {
        openat(root, &inside, OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?;
    }
    Ok(())
}

/// Replaces the content of a file of the root's own file system.
fn write(root: &OwnedFd, file: &str, text: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = openat(root, file, flags, Mode::empty())?;
    io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
}

/// One inode a page at the most: tiny files must not cost more memory than large ones.
fn size_scratch(mib: u32) -> io::Result<()> {
    let options = format!("size={mib}m,nr_inodes={}", u64::from(mib) * 256);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(None::<&str>, "/tmp", None::<&str>, flags, Some(options.as_str()))?)
}

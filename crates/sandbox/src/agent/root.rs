//! The cell's file system: a read-only tree of the host's runtime directories, and what must be the cell's own.
//!
//! | path | is |
//! | --- | --- |
//! | `/usr`, `/bin`, `/sbin`, `/lib*` | the host's, read-only, no set-user-id, no devices (what is a link on the host is the same link) |
//! | `/etc` | made up ([`etc`]), with the host's certificates and loader cache |
//! | `/dev` | six harmless devices, the descriptor links, `/dev/shm`; no terminal |
//! | `/proc` | of the cell's own process ids; only the entries in [`PROC_ALLOWED`], `/proc/sys` read-only, memory as the cell's |
//! | `/sys`, `/run`, ... | empty |
//! | `/tmp` | memory-backed, of the size asked for |
//! | mounts of the specification | the host's, read-only |
//!
//! Host trees are taken with `open_tree` while the agent still has the node's identity, so that the node's private directories can
//! be given without opening their parents to the cell's user; they are attached later, from the descriptors.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::etc;
use super::sys::{Below, move_mount, new_filesystem, open_tree, restrict};
use crate::lowered::{Lowered, Without};
use crate::wire::Build;

/// Where the new root is put together: a directory that every host has, and that nothing below needs from the host.
const STAGE: &str = "/tmp";
/// For everything that is the host's.
const READ_ONLY: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
/// Room for the made-up files; their pages are few.
const ROOT_SIZE: &str = "1m";
const ROOT_INODES: &str = "2048";

/// Programs and libraries.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Devices that hold no state of the host and control nothing.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Directories that are there even where nothing is mounted.
const DIRECTORIES: [&str; 9] = ["var/task", "var/runtime", "var/tmp", "opt", "run", "mnt", "home", "srv", "media"];
/// Directories that are there while a cell is blank: the C library, which remembers for the life of a process which directories of
/// `LD_LIBRARY_PATH` there are, must find those that code and layers may turn out to have.
pub(super) const SEARCHED: [&str; 2] = ["var/task/lib", "opt/lib"];
/// What `/proc/meminfo` shows, in the root's own file system.
pub(super) const MEMINFO: &str = "etc/.meminfo";
/// Size of `/tmp` until it is known how large it is to be.
const SCRATCH_SIZE: &str = "1m";

/// Entries of `/proc` beside the processes; all others are covered. Each is read by a language runtime or by its users' tools, and
/// tells no more of the host than its size, age and load.
const PROC_ALLOWED: [&str; 13] = [
    "self",        // a link to the reader's own entry: descriptors, maps, limits
    "thread-self", // the same for a thread
    "mounts",      // a link into self
    "net",         // a link into self: the cell's own network
    "cpuinfo",     // Node's os.cpus(), numerical libraries choosing instructions
    "stat",        // Node's os.cpus(), psutil
    "uptime",      // os.uptime()
    "loadavg",     // os.getloadavg()
    "version",     // platform detection
    "filesystems", // C libraries and coreutils, to skip pseudo file systems
    "cgroups",     // the JVM's container detection
    "meminfo",     // covered by one of the cell's own size
    "sys", // mounted read-only: kernel.*, vm.overcommit_memory, ... are read at start by Go, the JVM and jemalloc
];

/// Whose processes a root shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Processes {
    /// Those of a cell.
    Own,
    /// None: there is no `/proc`.
    Nobodys,
}

/// A part of the host, held before it is attached.
enum Part {
    Tree { tree: OwnedFd, directory: bool },
    Link(PathBuf),
}

/// Everything that is taken from the host.
pub(super) struct Parts {
    parts: Vec<(PathBuf, Part)>,
}

impl Parts {
    /// Takes the trees, with the node's identity.
    pub(super) fn collect(order: &Build) -> io::Result<Self> {
        // Mounts made later on the host, and ours there, must not find each other.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let mut parts = Vec::new();
        for path in SYSTEM.iter().chain(etc::OF_THE_HOST) {
            if let Some(part) = Part::of_the_host(Path::new(path))? {
                parts.push((PathBuf::from(path), part));
            }
        }
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            let tree = open_tree(&path, Below::Left)?;
            restrict(&tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, Below::Left)?;
            parts.push((path, Part::Tree { tree, directory: false }));
        }
        for (source, target) in &order.mounts {
            parts.push((target.clone(), Part::tree(source, attributes(order.without))?));
        }
        Ok(Self { parts })
    }

    /// Puts the new root together at [`STAGE`], as the cell's user. What comes back leads to its own file system, beneath all mounts.
    pub(super) fn assemble(self, order: &Build, processes: Processes) -> io::Result<OwnedFd> {
        let root = filesystem(&[("mode", "0755"), ("size", ROOT_SIZE), ("nr_inodes", ROOT_INODES)])?;
        move_mount(&root, Path::new(STAGE))?;
        let searched = if order.special.is_none() { SEARCHED.as_slice() } else { &[] };
        for directory in DIRECTORIES.iter().chain(searched) {
            std::fs::create_dir_all(staged(directory))?;
        }
        etc::write(&staged("etc"), order)?;
        std::fs::write(staged(MEMINFO), etc::meminfo(order.memory_mib))?;
        for (target, part) in &self.parts {
            part.attach(&staged(target)).map_err(|error| at(target, error))?;
        }
        devices(order)?;
        empty_sys()?;
        if processes == Processes::Own {
            own_proc(order)?;
        }
        attach_new(&filesystem(&[("mode", "1777"), ("size", SCRATCH_SIZE), ("nr_inodes", "256")])?, "tmp")?;
        open_tree(Path::new(STAGE), Below::Left)
    }
}

/// Takes a directory or file of the host, with the node's identity, for a cell to mount.
pub(super) fn take(source: &Path, without: Without) -> io::Result<OwnedFd> {
    let tree = open_tree(source, Below::Included)?;
    restrict(&tree, attributes(without), Below::Included)?;
    Ok(tree)
}

/// What holds for mounts that a specification names.
fn attributes(without: Without) -> u64 {
    if without.keeps(Lowered::ReadOnly) { READ_ONLY } else { READ_ONLY & !MOUNT_ATTR_RDONLY }
}

impl Part {
    /// A tree or link of the host, if it has it.
    fn of_the_host(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => Ok(Some(Self::Link(std::fs::read_link(path)?))),
            Ok(_) => Self::tree(path, READ_ONLY).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(path, error)),
        }
    }

    fn tree(path: &Path, attributes: u64) -> io::Result<Self> {
        let directory = std::fs::metadata(path).map_err(|error| at(path, error))?.is_dir();
        let tree = open_tree(path, Below::Included).map_err(|error| at(path, error))?;
        restrict(&tree, attributes, Below::Included)?;
        Ok(Self::Tree { tree, directory })
    }

    fn attach(&self, target: &Path) -> io::Result<()> {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match self {
            Self::Link(to) => std::os::unix::fs::symlink(to, target),
            Self::Tree { tree, directory: true } => {
                std::fs::create_dir_all(target)?;
                move_mount(tree, target)
            }
            Self::Tree { tree, directory: false } => {
                if !target.exists() {
                    std::fs::write(target, "")?;
                }
                move_mount(tree, target)
            }
        }
    }
}

/// `/dev` beside the devices themselves.
fn devices(order: &Build) -> io::Result<()> {
    for (name, to) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        std::os::unix::fs::symlink(to, staged("dev").join(name))?;
    }
    let size = format!("{}m", order.shared_mib);
    attach_new(&filesystem(&[("mode", "1777"), ("size", &size), ("nr_inodes", "1024")])?, "dev/shm")
}

/// `/sys`, which is empty.
fn empty_sys() -> io::Result<()> {
    let empty = filesystem(&[("mode", "0555"), ("size", "4k"), ("nr_inodes", "2")])?;
    restrict(&empty, READ_ONLY | MOUNT_ATTR_NOEXEC, Below::Left)?;
    attach_new(&empty, "sys")
}

/// `/proc`, with everything covered that is not on the list; `/sys` serves as the cover of directories.
fn own_proc(order: &Build) -> io::Result<()> {
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if !order.without.keeps(Lowered::Processes) {
        // A new one belongs to the process ids it shows, and those are not the cell's to mount.
        return attach_new(&open_tree(Path::new("/proc"), Below::Included)?, "proc");
    }
    // Processes that one may not trace, the agent first of all, do not show.
    let hidden = if order.without.keeps(Lowered::Agent) { "invisible" } else { "off" };
    let proc = new_filesystem(c"proc", &[("hidepid", hidden)], attributes)?;
    attach_new(&proc, "proc")?;
    if !order.without.keeps(Lowered::Proc) {
        return Ok(());
    }
    for entry in std::fs::read_dir(staged("proc"))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let a_process = name.bytes().all(|byte| byte.is_ascii_digit());
        if a_process || PROC_ALLOWED.contains(&name) || entry.file_type()?.is_symlink() {
            continue;
        }
        let cover = if entry.file_type()?.is_dir() { "sys" } else { "dev/null" };
        move_mount(&open_tree(&staged(cover), Below::Left)?, &entry.path())
            .map_err(|error| at(&entry.path(), error))?;
    }
    let sys = open_tree(&staged("proc/sys"), Below::Included)?;
    restrict(&sys, attributes | MOUNT_ATTR_RDONLY, Below::Included)?;
    move_mount(&sys, &staged("proc/sys"))?;

    // A runtime sizes its heap by this file: what it sees must be the cell's memory, not the host's.
    let meminfo = open_tree(&staged(MEMINFO), Below::Left)?;
    restrict(&meminfo, READ_ONLY | MOUNT_ATTR_NOEXEC, Below::Left)?;
    move_mount(&meminfo, &staged("proc/meminfo"))
}

/// Makes the staged tree the root, lets go of the host's, and seals it.
pub(super) fn enter() -> io::Result<()> {
    nix::unistd::chdir(STAGE)?;
    // Both arguments the same: the old root lands on top of the new one, and is taken off there without needing a directory.
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let root = nix::fcntl::open("/", flags, nix::sys::stat::Mode::empty())?;
    restrict(&root, READ_ONLY, Below::Left)
}

/// The cell's `/tmp`, for the node to see how full it is. A path only: it reads and writes nothing.
pub(super) fn open_scratch() -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open("/tmp", flags, nix::sys::stat::Mode::empty())?)
}

/// A memory-backed file system of the cell's own.
fn filesystem(options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    new_filesystem(c"tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
}

/// Makes a directory of the new root and mounts there.
fn attach_new(tree: &OwnedFd, directory: &str) -> io::Result<()> {
    let target = staged(directory);
    std::fs::create_dir_all(&target)?;
    move_mount(tree, &target).map_err(|error| at(&target, error))
}

/// Where a path of the inside is while the root is put together.
fn staged(inside: impl AsRef<Path>) -> PathBuf {
    let inside = inside.as_ref();
    Path::new(STAGE).join(inside.strip_prefix("/").unwrap_or(inside))
}

/// An error and the path it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub(super) struct At {
    pub(super) path: PathBuf,
    #[source]
    pub(super) cause: io::Error,
}

pub(super) fn at(path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), At { path: path.to_owned(), cause })
}

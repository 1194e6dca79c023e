//! The nursery: bears agents, and takes directories of the host for them, with the node's identity.
//!
//! It lives in a user namespace that is the parent of all cells'. There it has every capability, an ordinary user's node as well as
//! root's, and hence over every cell; outside it has none. For the kernel to grant it what this promises (looking into processes to
//! enter their namespaces goes by the namespace in which a program was *started*), it starts itself once more inside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

use super::{AGAIN, ARGUMENT, build, root, seccomp, serve, sys, template};
use crate::cell::map_cell;
use crate::lowered::Without;
use crate::wire::{self, FromAgent, ToNursery};

/// The first life: into a user namespace, and out again as a new program.
pub(super) fn begin() -> io::Result<()> {
    let socket = sys::begin_nursery()?;
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER) {
        return fail(socket, super::CLONE, &error.into());
    }
    wire::send(socket, &FromAgent::Unshared, &[])?;
    match wire::receive::<ToNursery>(socket)? {
        Some((ToNursery::Mapped, _)) => Err(Command::new("/proc/self/exe").args([ARGUMENT, AGAIN]).exec()),
        _ => Ok(()),
    }
}

/// Serves until the node is gone.
pub(super) fn serve() -> io::Result<()> {
    let socket = sys::enter_nursery()?;
    if let Err(error) = own_mounts() {
        return fail(socket.as_fd(), super::UNSHARE, &error);
    }
    // Forks of a template that has died are reaped here, as the kernel does for a parent that ignores its children's ends.
    nix::sys::prctl::set_child_subreaper(true)?;
    // Compiled once: every agent inherits the page it lies in.
    let filters = seccomp::Filters::compile()?;
    wire::send(socket.as_fd(), &FromAgent::Awake, &[])?;
    loop {
        let Some((message, fds)) = wire::receive::<ToNursery>(socket.as_fd())? else { return Ok(()) };
        let mut fds = fds.into_iter();
        let Some(other) = fds.next() else { continue };
        match message {
            ToNursery::Template { root, argv, env } => {
                if let Some(output) = fds.next() {
                    template::start(socket.as_fd(), &other, &output, &root, &argv, &env);
                }
            }
            ToNursery::Mapped => {}
            ToNursery::Bear { uid, gid, without } => bear(socket.as_fd(), &other, (uid, gid), &filters, without),
            ToNursery::Collect { sources, without } => collect(other.as_fd(), &sources, without),
        }
    }
}

/// Mounts of its own, of which it can take copies whoever the node is. What the host mounts later appears here, too.
fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?)
}

fn fail(socket: BorrowedFd<'_>, step: &'static str, error: &io::Error) -> io::Result<()> {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    wire::send(socket, &FromAgent::Failed { step: step.into(), path: None, errno }, &[])
}

/// Forks an agent into new user and pid namespaces, maps its user and tells the node its number. Should telling fail, the node sees
/// the end of the cell's socket.
fn bear(nursery: BorrowedFd<'_>, cell: &OwnedFd, ids: (u32, u32), filters: &seccomp::Filters, without: Without) {
    let (pid, pidfd) = match sys::clone_into_cell(without) {
        Err(error) => {
            let _ = fail(cell.as_fd(), super::CLONE, &error);
            return;
        }
        Ok(sys::Cloned::Child) => {
            sys::forget(nursery);
            let code = build::build(cell, filters).map_or(1, |blank| serve::serve(cell, filters, blank, without));
            std::process::exit(code);
        }
        Ok(sys::Cloned::Parent { pid, pidfd }) => (pid, pidfd),
    };
    let _ = match map_cell(pid, ids.0, ids.1) {
        Ok(()) => wire::send(cell.as_fd(), &FromAgent::Born { pid }, &[pidfd.as_fd()]),
        // The agent ends with the cell's socket, which the node closes.
        Err(error) => fail(cell.as_fd(), "map user ids", &error),
    };
}

/// Takes directories, and answers.
fn collect(answer: BorrowedFd<'_>, sources: &[PathBuf], without: Without) {
    let mut trees = Vec::with_capacity(sources.len());
    for source in sources {
        match root::take(source, without) {
            Ok(tree) => trees.push(tree),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let path = Some(Path::to_owned(source));
                let _ = wire::send(answer, &FromAgent::Failed { step: super::COLLECT.into(), path, errno }, &[]);
                return;
            }
        }
    }
    let fds: Vec<_> = trees.iter().map(AsFd::as_fd).collect();
    let _ = wire::send(answer, &FromAgent::Collected, &fds);
}

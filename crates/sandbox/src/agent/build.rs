//! Making a cell, from inside, top to bottom. The order matters and is explained step by step.
//!
//! A fresh agent is pid 1 of new user and pid namespaces, still with the kernel identity of the node (root, or an ordinary user)
//! and every capability over its own namespaces. What needs the node's identity (joining cgroups, reading files only the node may
//! read, opening the network device) comes first; then it becomes the cell's user for good.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};

use super::{network, privileges, root, seccomp};
use crate::lowered::{Lowered, Without};
use crate::wire::{self, Build, FromAgent, ToAgent};

/// A step that failed, named for people.
struct Fault {
    step: Cow<'static, str>,
    cause: io::Error,
}

/// Runs steps, remembering how long each took.
struct Steps {
    took: Vec<(Cow<'static, str>, u64)>,
}

impl Steps {
    fn step<T>(&mut self, name: &'static str, result: impl FnOnce() -> io::Result<T>) -> Result<T, Fault> {
        let begin = Instant::now();
        let value = result().map_err(|cause| Fault { step: Cow::Borrowed(name), cause })?;
        self.took.push((Cow::Borrowed(name), begin.elapsed().as_micros().try_into().unwrap_or(u64::MAX)));
        Ok(value)
    }
}

/// Takes the order, makes the cell and reports. None: the agent has nothing to live for.
pub(super) fn build(socket: &OwnedFd, filters: &seccomp::Filters) -> Option<()> {
    let order = match wire::receive::<ToAgent>(socket.as_fd()) {
        Ok(Some((ToAgent::Build(order), _))) => order,
        _ => return None,
    };
    let mut steps = Steps { took: Vec::new() };
    match make(&order, filters, &mut steps) {
        Ok(fds) => {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            wire::send(socket.as_fd(), &FromAgent::Ready { took: steps.took }, &fds).ok()
        }
        Err(Fault { step, cause }) => {
            let about = cause.get_ref().and_then(|inner| inner.downcast_ref::<root::At>());
            let errno = about.map_or(&cause, |about| &about.cause).raw_os_error().unwrap_or(libc::EIO);
            let path = about.map(|about| about.path.clone());
            let _ = wire::send(socket.as_fd(), &FromAgent::Failed { step, path, errno }, &[]);
            None
        }
    }
}

fn make(order: &Build, filters: &seccomp::Filters, steps: &mut Steps) -> Result<Vec<OwnedFd>, Fault> {
    // Before anything that costs memory, so that all of it is charged to the cell; and before the cgroup namespace, whose root is
    // wherever the process is when it is made.
    steps.step("join cgroups", || order.join.iter().try_for_each(|file| std::fs::write(file, "0")))?;
    steps.step("unshare namespaces", || Ok(unshare(namespaces(order.without))?))?;

    // With the node's identity: what only the node may open.
    let parts = steps.step("collect host directories", || root::Parts::collect(order))?;
    let mut fds = vec![steps.step("listen on loopback", || network::listen(order.port, order.without))?];
    if order.internet {
        fds.push(steps.step("make the network device", crate::egress::net::open)?);
    }

    // From here on with the identity of the cell's user. It still has every capability inside, so that it can mount; files that it
    // makes belong to a user that exists inside.
    steps.step("become the cell's user", || privileges::become_user(order.uid, order.gid, order.without))?;
    if order.without.keeps(Lowered::Root) {
        steps.step("build the root", || parts.assemble(order))?;
        steps.step("enter the root", root::enter)?;
    }
    fds.insert(1, steps.step("open the scratch directory", root::open_scratch)?);
    if order.without.keeps(Lowered::Hostname) {
        steps.step("set the host name", || Ok(nix::unistd::sethostname(&order.hostname)?))?;
    }

    // Last: nothing above would work afterwards.
    steps.step("limit resources", || privileges::limit(order.processes))?;
    if order.without.keeps(Lowered::Capabilities) {
        steps.step("drop capabilities", privileges::drop_all)?;
    }
    if order.without.keeps(Lowered::Filter) {
        steps.step("filter system calls", || filters.install())?;
    }
    Ok(fds)
}

/// Those that the agent makes for itself; user and process ids it was born into.
fn namespaces(without: Without) -> CloneFlags {
    let all = [
        (Lowered::Network, CloneFlags::CLONE_NEWNET),
        (Lowered::Ipc, CloneFlags::CLONE_NEWIPC),
        (Lowered::Hostname, CloneFlags::CLONE_NEWUTS),
        (Lowered::Cgroup, CloneFlags::CLONE_NEWCGROUP),
    ];
    let kept = all.into_iter().filter(|(barrier, _)| without.keeps(*barrier));
    kept.fold(CloneFlags::CLONE_NEWNS, |flags, (_, flag)| flags | flag)
}

//! Making a cell, from inside, top to bottom. The order matters and is explained step by step.
//!
//! A fresh agent is pid 1 of new user and pid namespaces, still with the kernel identity of the node (root, or an ordinary user)
//! and every capability over its own namespaces. What needs the node's identity (joining cgroups, reading files only the node may
//! read, opening the network device) comes first; then it becomes the cell's user for good. What is a function's comes last, at once or
//! later ([`super::special`]); only then are its capabilities given up.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};

use super::special::Blank;
use super::steps::{Fault, Steps};
use super::{network, privileges, root, seccomp};
use crate::lowered::{Lowered, Without};
use crate::wire::{self, Build, Device, FromAgent, ToAgent};

/// A cell that is made.
struct Made {
    /// For the node: the listener, the scratch directory, the device that leads out.
    fds: Vec<OwnedFd>,
    no_device: Option<i32>,
    blank: Blank,
}

/// Takes the order, makes the cell and reports. None: the agent has nothing to live for. Else the cell, if it is blank.
pub(super) fn build(socket: &OwnedFd, filters: &seccomp::Filters) -> Option<Option<Blank>> {
    let order = match wire::receive::<ToAgent>(socket.as_fd()) {
        Ok(Some((ToAgent::Build(order), _))) => order,
        _ => return None,
    };
    let mut steps = Steps::default();
    let made = make(&order, &mut steps).and_then(|made| match &order.special {
        Some(special) => {
            made.blank.specialise(special, &[], &[], &mut steps)?.filter(filters, &mut steps)?;
            Ok((made.fds, made.no_device, None))
        }
        None => Ok((made.fds, made.no_device, Some(made.blank))),
    });
    match made {
        Ok((fds, no_device, blank)) => {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            wire::send(socket.as_fd(), &FromAgent::Ready { took: steps.took, no_device }, &fds).ok()?;
            Some(blank)
        }
        Err(fault) => {
            let (errno, path) = fault.cause();
            let _ = wire::send(socket.as_fd(), &FromAgent::Failed { step: fault.step, path, errno }, &[]);
            None
        }
    }
}

fn make(order: &Build, steps: &mut Steps) -> Result<Made, Fault> {
    // Before anything that costs memory, so that all of it is charged to the cell; and before the cgroup namespace, whose root is
    // wherever the process is when it is made.
    steps.step("join cgroups", || order.join.iter().try_for_each(|file| std::fs::write(file, "0")))?;
    steps.step(super::UNSHARE, || Ok(unshare(namespaces(order.without))?))?;

    // With the node's identity: what only the node may open.
    let parts = steps.step(super::COLLECT, || root::Parts::collect(order))?;
    let mut fds = vec![steps.step("listen on loopback", || network::listen(order.port, order.without))?];
    let (device, no_device) = match order.device {
        Device::No => (None, None),
        Device::Yes => (Some(steps.step(super::DEVICE, crate::egress::net::open)?), None),
        Device::IfPossible => match steps.step(super::DEVICE, crate::egress::net::open) {
            Ok(device) => (Some(device), None),
            Err(fault) => (None, Some(fault.cause().0)),
        },
    };

    // From here on with the identity of the cell's user. It still has every capability inside, so that it can mount; files that it
    // makes belong to a user that exists inside.
    steps.step("become the cell's user", || privileges::become_user(order.uid, order.gid, order.without))?;
    let mut sealed = None;
    if order.without.keeps(Lowered::Root) {
        sealed = Some(steps.step("build the root", || parts.assemble(order, root::Processes::Own))?);
        steps.step("enter the root", root::enter)?;
    }
    fds.push(steps.step("open the scratch directory", root::open_scratch)?);
    fds.extend(device);
    if order.without.keeps(Lowered::Hostname) {
        steps.step("set the host name", || Ok(nix::unistd::sethostname(&order.hostname)?))?;
    }
    steps.step("limit resources", privileges::limit)?;
    Ok(Made { fds, no_device, blank: Blank::new(sealed, order) })
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

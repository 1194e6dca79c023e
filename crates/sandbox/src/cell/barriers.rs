//! Which barriers this host gives, found by making a real cell and looking at how far that gets.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lambent_model::InstanceId;
use lambent_model::function::Network;

use super::Cells;
use crate::Error;
use crate::port::{Barrier, Specialisation};

pub(super) const USER: &str = "user namespace";

const FREEZER: &str = "freezer";
const FREEZER_ADVICE: &str =
    "as for the limits by the kernel; Linux 5.2, or the freezer controller of cgroup v1 mounted";

/// A barrier, the agent's steps that raise it, and what to do where they fail.
struct Known {
    name: &'static str,
    stops: &'static str,
    steps: &'static [&'static str],
    advice: &'static str,
}

/// In the order in which they are raised, so that the first that fails hides only those after it.
const KNOWN: &[Known] = &[
    Known {
        name: USER,
        stops: "code inside from being anybody on the host, root included",
        steps: &[crate::agent::CLONE, "map user ids"],
        advice: "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, \
                 kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile); in a container, run it with \
                 --security-opt seccomp=unconfined",
    },
    Known {
        name: "mount, network, ipc, uts and cgroup namespaces",
        stops: "code inside from seeing the host's files, processes, network, shared memory and names",
        steps: &[crate::agent::UNSHARE],
        advice: "raise sysctl user.max_{mnt,net,ipc,uts,cgroup,pid}_namespaces; the kernel must be built with all of them",
    },
    Known {
        name: "read-only root",
        stops: "code inside from reading what was not given to it, and from writing outside /tmp",
        steps: &[
            crate::agent::COLLECT,
            "build the root",
            "enter the root",
            "open the scratch directory",
            "attach mounts",
            "write files of the function",
            "size the scratch directory",
        ],
        advice: "Linux 5.12 or later; in a container, /proc must not be masked (--security-opt unmask=all), and the root must not \
                 be the initial RAM disk",
    },
    Known {
        name: "loopback of its own",
        stops: "code inside from reaching services on the host's loopback, and others from reaching its Runtime API",
        steps: &["listen on loopback", "set the host name"],
        advice: "the kernel must be built with network namespaces",
    },
    Known {
        name: "resource limits",
        stops: "code inside from using up the host's files, locked memory and processes",
        steps: &["limit resources", "limit processes"],
        advice: "raise the hard limits of the node (ulimit -H)",
    },
    Known {
        name: "no privileges",
        stops: "code inside from gaining capabilities or another identity by any program",
        steps: &["become the cell's user", "drop capabilities"],
        advice: "Linux 4.3 or later",
    },
    Known {
        name: "system call filter",
        stops: "code inside from reaching parts of the kernel that functions have no use for",
        steps: &["filter system calls"],
        advice: "the kernel must be built with CONFIG_SECCOMP_FILTER",
    },
];

const NETWORK_DEVICE: Known = Known {
    name: "network device",
    stops: "code inside from reaching the host, link-local addresses and other cells while it reaches the world",
    steps: &[crate::agent::DEVICE, "serve the network device"],
    advice: "load the tun module, and let the node open /dev/net/tun (mode 0666, as most distributions have it); without it only \
             functions with no network run",
};

/// What an agent could not do, with advice where a barrier is behind it.
pub(super) fn explain(step: Cow<'static, str>, path: Option<PathBuf>, errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    let known = KNOWN.iter().chain([&NETWORK_DEVICE]).find(|known| known.steps.contains(&step.as_ref()));
    // A full disk or a missing mount is no matter of the host's abilities.
    let lacking = matches!(
        errno,
        libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL | libc::ENOSPC | libc::ENODEV | libc::ENXIO
    );
    match known {
        Some(known) if lacking && step != crate::agent::COLLECT => {
            Error::BarrierUnavailable { barrier: known.name, advice: format!("{step}: {source}; {}", known.advice) }
        }
        _ => match path {
            Some(path) => Error::Step { step: format!("{step}: {}", path.display()).into(), source },
            None => Error::Step { step, source },
        },
    }
}

/// Tries them all.
pub(super) fn of_this_host(cells: &Cells) -> Vec<Barrier> {
    let mut barriers = by_trial(cells);
    barriers.push(identity(cells));
    barriers.extend(resources(cells));
    barriers.push(freezer(cells));
    barriers
}

/// Makes one cell without a network and one with.
fn by_trial(cells: &Cells) -> Vec<Barrier> {
    let alone = trial(cells, Network::None);
    let failed = alone.as_ref().err();
    let mut hidden = false;
    let mut barriers = Vec::new();
    for known in KNOWN {
        let missing = match failed {
            _ if hidden => Some("not tried, as one before it is missing".to_owned()),
            Some(error @ Error::BarrierUnavailable { barrier, .. }) if *barrier == known.name => Some(reason(error)),
            Some(Error::Step { step, source }) if known.steps.contains(&step.as_ref()) => {
                Some(format!("{step}: {source}"))
            }
            _ => None,
        };
        hidden |= missing.is_some();
        barriers.push(barrier(known, missing, true));
    }
    if let Some(error) = failed.filter(|_| !hidden) {
        // Something else went wrong: no promise about any of them.
        for barrier in &mut barriers {
            barrier.missing = Some(reason(error));
        }
    }
    let connected = if alone.is_ok() { trial(cells, Network::Internet) } else { alone };
    let missing = connected.err().map(|error| format!("functions that want a network are refused: {}", reason(&error)));
    barriers.push(barrier(&NETWORK_DEVICE, missing, false));
    barriers
}

fn barrier(known: &Known, missing: Option<String>, required: bool) -> Barrier {
    let advice = missing.as_ref().map(|_| known.advice.to_owned());
    Barrier { name: known.name, stops: known.stops, missing, advice, required }
}

fn identity(cells: &Cells) -> Barrier {
    let missing = match &cells.ids {
        Ok(super::Ids::Block(_)) => None,
        Ok(super::Ids::Own) => {
            Some("an ordinary user can map only itself, so all cells are the same user to the host".to_owned())
        }
        Err(reason) => Some(reason.clone()),
    };
    Barrier {
        name: "a host user for each cell",
        stops: "code that got out of one cell from touching another's processes or the node's files",
        advice: missing
            .as_ref()
            .map(|_| "run the node as root: cells are no less confined, and differ from it and each other".to_owned()),
        missing,
        required: false,
    }
}

fn resources(cells: &Cells) -> [Barrier; 3] {
    let missing = cells.cgroups.as_ref().err();
    let advice = "run the node as root, or give it a delegated cgroup v2 subtree: systemd-run --user --scope -p Delegate=yes lambent serve";
    let limit = |name, stops, instead: &str| Barrier {
        name,
        stops,
        missing: missing.map(|reason| format!("{reason}; {instead}")),
        advice: missing.map(|_| advice.to_owned()),
        required: false,
    };
    [
        limit(
            "memory limit by the kernel",
            "code inside from taking more memory than its function has",
            "instead the node looks at each cell's memory every 25 ms and kills what is beyond the limit",
        ),
        limit(
            "process limit by the kernel",
            "fork bombs",
            "instead RLIMIT_NPROC, which counts each cell's user namespace apart",
        ),
        limit("cpu share", "code inside from slowing down other functions", "CPU is not limited"),
    ]
}

fn freezer(cells: &Cells) -> Barrier {
    let missing = cells.freezer().err();
    Barrier {
        name: FREEZER,
        stops: "code inside from running on while its container waits for calls that it has started",
        missing: missing.map(|reason| format!("{reason}; such containers run on, and keep their room on the node")),
        advice: missing.map(|_| FREEZER_ADVICE.to_owned()),
        required: false,
    }
}

/// Why a cell cannot be frozen.
pub(super) fn no_freezer() -> Error {
    Error::BarrierUnavailable { barrier: FREEZER, advice: FREEZER_ADVICE.to_owned() }
}

/// Makes one cell and takes it down. On a runtime of its own, as this is called from plain code and from inside a runtime alike.
fn trial(cells: &Cells, network: Network) -> Result<(), Error> {
    let whose = Specialisation {
        mounts: Vec::new(),
        memory_mib: 128,
        milli_cpus: 1000,
        ephemeral_mib: 1,
        processes: 8,
        network,
    };
    // A back end of its own as well: one runtime's descriptors are of no use to another.
    let config = cells.config.clone();
    let work = move || -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(crate::error::step("start a runtime"))?;
        runtime.block_on(async {
            let trial = Cells::new(config)?;
            let cell = trial.make(InstanceId::random(), &[], super::Whose::Somebodys(whose)).await?;
            cell.destroy().await;
            Ok(())
        })
    };
    std::thread::spawn(work).join().unwrap_or(Err(Error::Ended))
}

/// What went wrong, without the advice, which a [`Barrier`] has in a place of its own.
fn reason(error: &Error) -> String {
    match error {
        Error::BarrierUnavailable { advice, .. } => {
            advice.split_once("; ").map_or(advice.as_str(), |(reason, _)| reason).to_owned()
        }
        other => chain(other),
    }
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! Giving privileges up: identity, capabilities, resources.

use std::io;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use crate::lowered::{Lowered, Without};

/// Open files of a process; what Lambda gives.
const OPEN_FILES: u64 = 1024;
/// Memory that may be locked; Lambda's.
const LOCKED: u64 = 64 << 10;
/// Linux knows far fewer capabilities; the first unknown one ends the loop that drops them.
const MOST_CAPABILITIES: libc::c_ulong = 64;

/// Takes on the one user and group that exist inside. Capabilities over the cell's namespaces stay: the identity left was not the
/// root of this namespace, so the kernel's rules for leaving root do not apply.
pub(super) fn become_user(uid: u32, gid: u32, without: Without) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Only now, as a change of identity clears it. If the nursery died just before, the node's end of the socket is closed or will be
    // (the node sees the nursery's end), and the agent ends by that.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Nothing of the same user inside may trace the agent or read its memory and descriptors.
    nix::sys::prctl::set_dumpable(!without.keeps(Lowered::Agent))?;
    nix::sys::prctl::set_name(c"lambent-agent")?;
    Ok(())
}

/// Limits of every process of a cell, but for the number of processes.
///
/// No core files. One byte and not none, because that is how the kernel is told not to start the host's crash handler either, which
/// would run as root on a memory image of the function's making.
pub(crate) const LIMITS: [(Resource, u64); 3] =
    [(Resource::RLIMIT_NOFILE, OPEN_FILES), (Resource::RLIMIT_MEMLOCK, LOCKED), (Resource::RLIMIT_CORE, 1)];

/// Limits of the agent, which every process of the cell inherits.
pub(super) fn limit() -> io::Result<()> {
    for (resource, most) in LIMITS {
        let (_, hard) = nix::sys::resource::getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// A second bound on processes beside the pids cgroup, for this process and those that were started before it was known. It counts the
/// users of this user namespace only, so one for each cell.
pub(super) fn limit_processes(processes: u32, others: &[i32]) -> io::Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NPROC)?;
    let most = u64::from(processes).saturating_add(1).min(hard);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    for pid in [0].iter().chain(others) {
        // SAFETY: the limit lives across the call, and no old one is asked for.
        if unsafe { libc::prlimit(*pid, libc::RLIMIT_NPROC, &raw const limit, std::ptr::null_mut()) } != 0 {
            let error = io::Error::last_os_error();
            // One that has ended needs no limit.
            if error.raw_os_error() != Some(libc::ESRCH) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Gives up every capability for good: nothing in this process or below it can have one again.
pub(super) fn drop_all() -> io::Result<()> {
    for capability in 0..MOST_CAPABILITIES {
        // SAFETY: takes integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 {
                break;
            }
            return Err(error);
        }
    }
    // Neither user 0 nor a set-user-id file means anything from here on, and that is locked.
    // SAFETY: takes integers only.
    if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    clear_sets()?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock, and the lock of KEEP_CAPS.
pub(crate) const SECURE_BITS: libc::c_ulong = 0b1110_1111;

/// Empties the permitted, effective and inheritable sets; the ambient set can hold nothing that is not in these.
fn clear_sets() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let sets = [Sets::default(); 2];
    // SAFETY: version 3 of the interface reads a header and two sets, which both live across the call.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

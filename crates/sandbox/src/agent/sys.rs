//! System calls that neither the standard library nor `nix` wraps, each with the facts that make it sound here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;

use crate::lowered::{Lowered, Without};

/// Turns the C convention into a `Result`.
fn check(result: libc::c_long) -> io::Result<RawFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// A path for the kernel.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The nursery's first life: with the groups given up that only root can give up, on the socket that came as standard input.
pub(super) fn begin_nursery() -> io::Result<BorrowedFd<'static>> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Groups of the node are no business of a cell. Only root can give them up; a cell made by anybody else keeps its maker's groups,
    // which matter for nothing it can see.
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setgroups(&[])?;
    }
    // SAFETY: standard input is open (the node made it the socket) and stays so until this program is replaced by another.
    Ok(unsafe { BorrowedFd::borrow_raw(0) })
}

/// Makes this process the nursery: its own session (a terminal's Ctrl-C is for the node), no descriptor but the socket that came as
/// standard input, children reaped by the kernel.
pub(super) fn enter_nursery() -> io::Result<OwnedFd> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::sys::prctl::set_name(c"lambent-nursery")?;
    nix::unistd::setsid()?;
    // SAFETY: standard input is open (the node made it the socket) and is replaced below, so this is its only owner.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = nix::fcntl::fcntl(stdin, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: replaces descriptors 0 and 1, which no object of ours owns; `null` is open.
    unsafe {
        check(libc::dup2(null.as_raw_fd(), 0).into())?;
        check(libc::dup2(null.as_raw_fd(), 1).into())?;
    }
    drop(null);
    close_from(socket.as_raw_fd() + 1)?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::SA_NOCLDWAIT, SigSet::empty());
    // A service manager that ends the node signals all its processes; the node then lets running calls end, for which cells must
    // live. They end with the node in any case.
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: ignoring a signal installs no code.
        unsafe { sigaction(signal, &ignore) }?;
    }
    Ok(socket)
}

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the caller owns no object for a descriptor in this range: the nursery has only its socket, below it, and a child about
    // to exec uses none.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Undoes what keeps descriptors from programs.
pub(super) fn keep_across_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        // SAFETY: takes integers only; a number that is no descriptor any more is refused, which harms nothing.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
    Ok(())
}

/// Replaces descriptors by number, as a process about to exec may: `from` becomes `to`, in this order, and nothing above the last stays.
pub(super) fn place(descriptors: &[(RawFd, RawFd)]) -> io::Result<()> {
    let mut last = 0;
    for (from, to) in descriptors {
        // SAFETY: takes integers only. What `to` was is used by nobody any more: the caller is about to become another program.
        check(unsafe { libc::dup2(*from, *to) }.into())?;
        last = *to;
    }
    close_from(last + 1)
}

/// A number above all that a program starts with, for a descriptor that must not be in the way.
pub(super) fn out_of_the_way(fd: &OwnedFd) -> io::Result<RawFd> {
    // SAFETY: takes integers only; the copy has no owner but the process, which is about to become another program.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64) }.into())
}

/// In an agent: lets go of the nursery's socket and of the terminal.
pub(super) fn forget(nursery: BorrowedFd<'_>) {
    // SAFETY: after the fork this number is the child's own copy, whose `OwnedFd` lies in the nursery's stack frame and is never
    // dropped here (the agent leaves through `exit`).
    unsafe { libc::close(nursery.as_raw_fd()) };
    // SAFETY: descriptors 0 and 2 are open in the nursery (0 is /dev/null) and owned by no object.
    unsafe { libc::dup2(0, 2) };
}

/// Which side of [`clone_process`] one is on.
pub(super) enum Cloned {
    /// In the nursery.
    Parent { pid: u32, pidfd: OwnedFd },
    /// In the new process.
    Child,
}

/// Forks a process into user and pid namespaces of its own. The other namespaces it makes itself: they take longer, and the
/// nursery has others to serve.
pub(super) fn clone_into_cell(without: Without) -> io::Result<Cloned> {
    let pids = if without.keeps(Lowered::Processes) { libc::CLONE_NEWPID } else { 0 };
    clone_process(libc::CLONE_NEWUSER | pids)
}

/// Forks a process into the new namespaces that are named.
pub(super) fn clone_process(namespaces: libc::c_int) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD;
    let mut arguments = CloneArguments {
        flags: u64::from(flags.cast_unsigned()),
        pidfd: std::ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArguments::default()
    };
    let arguments = std::ptr::from_mut(&mut arguments);
    // SAFETY: without CLONE_VM this is a fork. The nursery has one thread, so no lock can be held by a thread that the child lacks;
    // `arguments` and the `pidfd` it names live across the call, and the size is that of the structure.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, arguments, size_of::<CloneArguments>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the call succeeded, so the kernel wrote a fresh descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid.cast_unsigned(), pidfd })
}

/// The kernel's `struct clone_args`, first version.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Reaps a child that has ended, if there is one: its number and its status as `wait` has it. (`nix` takes an end by a real-time
/// signal for an error.)
pub(super) fn reap_one() -> io::Result<Option<(libc::pid_t, libc::c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives across the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid > 0 {
            return Ok(Some((pid, status)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if pid == 0 => return Ok(None),
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// Whether a tree is taken with everything mounted below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Included,
    Left,
}

/// A detached copy of the mount that `path` lies in, rooted at `path`.
pub(super) fn open_tree(path: &Path, below: Below) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let recursive = if below == Below::Included { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: `path` is a C string that lives across the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a detached mount at `target`.
pub(super) fn move_mount(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // MOVE_MOUNT_F_EMPTY_PATH: the source is the descriptor itself.
    // SAFETY: both strings live across the call and the descriptor is open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Adds attributes (read-only and the like) to the mount at the descriptor, and to all below it where asked.
pub(super) fn restrict(tree: &OwnedFd, attributes: u64, below: Below) -> io::Result<()> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let wanted = MountAttributes { set: attributes, clear: 0, propagation: 0, userns: 0 };
    let recursive = if below == Below::Included { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the string and the structure, whose size is given, live across the call; the descriptor is open.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(&wanted),
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// A detached, empty file system of its own. `options` are names and values as `mount -o` takes them.
pub(super) fn new_filesystem(kind: &std::ffi::CStr, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    // SAFETY: the string lives across the call; the descriptor that comes back is ours.
    let context = unsafe { OwnedFd::from_raw_fd(check(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))?) };
    let configure = |command: libc::c_uint, name: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: name and value are null or C strings that live across the call, as each command demands.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, name, value, 0) })
    };
    for (name, value) in options {
        let (name, value) = (CString::new(*name)?, CString::new(*value)?);
        configure(SET_STRING, name.as_ptr(), value.as_ptr())?;
    }
    configure(CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: the descriptor is open; the one that comes back is ours. The flag 1 is FSMOUNT_CLOEXEC.
    let mount = check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(mount) })
}

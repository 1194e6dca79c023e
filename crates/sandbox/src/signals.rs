//! Signals as a program expects them when it starts.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// Signals of Linux, numbered from 1.
const SIGNALS: libc::c_int = 64;
/// Bytes of the kernel's set of them.
const SET_BYTES: usize = 8;

/// Nothing blocked, nothing ignored: both outlive `exec`, agents ignore several, and who started the node may ignore others (`nohup`
/// and many CI systems do). For a new process between fork and exec: makes system calls only, and allocates nothing.
pub(crate) fn make_ordinary() -> io::Result<()> {
    // The kernel's structure (handler, flags, restorer, mask), all of it zero: the default action.
    let default = [0_u64; 4];
    for signal in (1..=SIGNALS).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        // Not through the C library, which keeps two signals to itself and so cannot undo that they are ignored.
        // SAFETY: the structure lives across the call and is as large as any architecture has it; the default action runs no code of
        // ours, and in a process about to exec no thread is left that the C library would signal.
        let done = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), SET_BYTES)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Last, so that a signal that was blocked until now meets its default action and none of the node's.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

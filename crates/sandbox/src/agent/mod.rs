//! The agent: the first process of every cell, and the nursery that bears them.
//!
//! ```text
//!  node ──exec──► nursery (one a node, `lambent __cell-agent`)
//!                    │ clone(NEWUSER | NEWPID) a cell, no exec: memory is shared with the nursery, page by page
//!                    ▼
//!                  agent (pid 1 of its cell) ──fork + exec──► runtime, extensions, ...
//! ```
//!
//! Why a nursery, and not one exec a cell: the program is large, and an exec relocates it anew each time (milliseconds, and private
//! memory a cell); a fork of a process that has done nothing but start costs a tenth of that and shares almost all of it. The same
//! place can later hold processes with a language runtime loaded.
//!
//! Both are single-threaded, run nothing of the async runtime and hold no descriptor but their socket. An agent ends, and the kernel
//! with it everything in its cell, when the nursery ends (parent-death signal) or the node's end of its socket is closed; the nursery
//! ends when the node does. So `kill -9` of the node leaves nothing.

mod build;
mod etc;
mod exec;
mod network;
mod privileges;
mod root;
pub(crate) mod seccomp;
mod serve;
mod sys;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use crate::lowered::Without;
use crate::wire::{self, Birth, FromAgent};

/// The step that makes an agent, as it is named when it fails.
pub(crate) const CLONE: &str = "clone into user and pid namespaces";

/// The first argument that makes a program an agent.
pub const ARGUMENT: &str = "__cell-agent";

/// Serves as the agent, never to return to the caller, when this process was started as one. Every program that uses the `cell` back
/// end calls this first in `main`, before it starts a thread or opens anything.
pub fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == ARGUMENT) {
        let code = match nursery() {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("cell agent: {error}");
                1
            }
        };
        std::process::exit(code);
    }
}

/// The same, as the whole of a program.
pub fn main() -> ExitCode {
    main_if_asked();
    eprintln!("this program is started by a Lambent node; it does nothing by itself");
    ExitCode::FAILURE
}

/// Bears one agent a message until the node is gone.
fn nursery() -> std::io::Result<()> {
    let socket = sys::enter_nursery()?;
    // Compiled once: every agent inherits the page it lies in.
    let filters = seccomp::Filters::compile()?;
    loop {
        let Some((Birth { without }, fds)) = wire::receive::<Birth>(socket.as_fd())? else { return Ok(()) };
        let Some(cell) = fds.into_iter().next() else { continue };
        if let Err(error) = bear(socket.as_fd(), &cell, &filters, without) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            // Should that fail as well, the node sees the end of the cell's socket.
            let _ = wire::send(cell.as_fd(), &FromAgent::Failed { step: CLONE.into(), path: None, errno }, &[]);
        }
    }
}

/// Forks an agent into new user and pid namespaces and tells the node its number.
fn bear(nursery: BorrowedFd<'_>, cell: &OwnedFd, filters: &seccomp::Filters, without: Without) -> std::io::Result<()> {
    match sys::clone_into_cell(without)? {
        sys::Cloned::Parent { pid, pidfd } => wire::send(cell.as_fd(), &FromAgent::Born { pid }, &[pidfd.as_fd()]),
        sys::Cloned::Child => {
            sys::forget(nursery);
            let code = build::build(cell, filters).map_or(1, |()| serve::serve(cell, without));
            std::process::exit(code);
        }
    }
}

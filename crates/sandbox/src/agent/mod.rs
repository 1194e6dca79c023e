//! The agent: the first process of every cell, and the nursery that bears them.
//!
//! ```text
//!  node ──exec──► nursery (one a node, `lambent __cell-agent`), in a user namespace of its own
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
pub(crate) mod clone;
mod etc;
pub(crate) mod exec;
mod network;
mod nursery;
pub(crate) mod privileges;
mod root;
pub(crate) mod seccomp;
mod serve;
mod special;
mod steps;
mod sys;
mod template;

use std::process::ExitCode;

/// The step that makes an agent, as it is named when it fails.
pub(crate) const CLONE: &str = "clone into user and pid namespaces";

/// Those by which it makes the other namespaces and takes what is the host's.
pub(crate) const UNSHARE: &str = "unshare namespaces";
pub(crate) const COLLECT: &str = "collect host directories";

pub(crate) const DEVICE: &str = "make the network device";

/// The first argument that makes a program an agent.
pub const ARGUMENT: &str = "__cell-agent";
/// The second argument of its second life.
const AGAIN: &str = "again";

/// Serves as the agent, never to return to the caller, when this process was started as one. Every program that uses the `cell` back
/// end calls this first in `main`, before it starts a thread or opens anything.
pub fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == ARGUMENT) {
        let life = match arguments.next().is_some_and(|argument| argument == AGAIN) {
            false => nursery::begin(),
            true => nursery::serve(),
        };
        let code = match life {
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

//! WebAssembly functions: components that run in *wasm host processes*, each of which is a cell.
//!
//! ```text
//! node process                           cell of an account
//! ┌──────────────────────────┐           ┌───────────────────────────────────────────┐
//! │ fleet ─ Host ─ wire      │◄─ frames ─►│ host program: engine, pool of instances   │
//! │ (nothing of the engine)  │  (socket)  │   function version ─► instance a call     │
//! └──────────────────────────┘           └───────────────────────────────────────────┘
//!              │ code, machine code       ┌───────────────────────────────────────────┐
//!              └─────────────────────────►│ compile program: its own cell, no network │
//!                                         └───────────────────────────────────────────┘
//! ```
//!
//! Two walls stand between a guest and the node: WebAssembly's own, and the cell's around the process in which it runs. Accounts never
//! share a host process, so a hole in the first wall shows one account only what is its own. The engine (a compiler!) never runs in
//! the node: [`compile`] does so in a cell with bounds, and the result is loaded only from files that the node wrote and whose digest it
//! knows. A node that serves no such function starts none of this.
//!
//! Both programs are hidden commands of the binary that is mounted into the cell; [`main_if_asked`] is their way in.

mod compile;
mod engine;
mod host;
mod maker;
mod node;
mod wire;

use std::process::ExitCode;

pub use engine::{CACHE_KEY, Flavour};
pub use maker::{CompileError, Compiled, compile};
pub use node::{Answer, Event, Function, Host};
pub use wire::{Done, Outcome, Request};

/// The first argument that makes a program a wasm host process.
pub const HOST_ARGUMENT: &str = "__wasm-host";
/// The first argument that makes a program compile.
pub const COMPILE_ARGUMENT: &str = "__wasm-compile";

/// Where the program is inside a cell.
const PROGRAM: &str = "/var/runtime/lambent";
/// Calls of one host process at once; the account's concurrency is below it as a rule.
pub const CALLS: usize = 1_000;

/// Serves as one of the two programs, never to return, when this process was started as one.
pub fn main_if_asked() {
    let mut arguments = std::env::args().skip(1);
    let code = match arguments.next().as_deref() {
        Some(HOST_ARGUMENT) => host::main(arguments),
        Some(COMPILE_ARGUMENT) => compile::main(arguments),
        _ => return,
    };
    let success = code == ExitCode::SUCCESS;
    std::process::exit(i32::from(!success));
}

/// The monotonic clock, the same in every process of this machine, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec to where one is.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

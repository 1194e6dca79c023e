//! Starting a runtime template: an interpreter with our runtime loaded, which forks itself into cells.
//!
//! It keeps what the nursery has, every capability over all cells and none outside, since it must enter them; so no code of any function
//! ever runs in it. It sees a root as a blank cell has it (the paths that the interpreter notes down are those that its forks find),
//! without processes and with a network of its own that leads nowhere.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::steps::{Fault, Steps};
use super::{root, sys};
use crate::signals;
use crate::wire::{self, Build, FromAgent};

/// Names the descriptor of its socket.
const VARIABLE: &str = "_LAMBENT_TEMPLATE_FD";
const SOCKET: i32 = 3;

/// Forks the template's process and tells the node its number.
pub(super) fn start(
    nursery: BorrowedFd<'_>,
    socket: &OwnedFd,
    output: &OwnedFd,
    root: &Build,
    argv: &[String],
    env: &[(String, String)],
) {
    let failed = |step: &'static str, error: &io::Error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = wire::send(socket.as_fd(), &FromAgent::Failed { step: step.into(), path: None, errno }, &[]);
    };
    match sys::clone_process(0) {
        Err(error) => failed("fork a template", &error),
        Ok(sys::Cloned::Parent { pid, pidfd }) => {
            let _ = wire::send(socket.as_fd(), &FromAgent::Born { pid }, &[pidfd.as_fd()]);
        }
        Ok(sys::Cloned::Child) => {
            sys::forget(nursery);
            let Err(fault) = become_template(socket, output, root, argv, env);
            let (errno, path) = fault.cause();
            let _ = wire::send(socket.as_fd(), &FromAgent::Failed { step: fault.step, path, errno }, &[]);
            std::process::exit(1);
        }
    }
}

fn become_template(
    socket: &OwnedFd,
    output: &OwnedFd,
    order: &Build,
    argv: &[String],
    env: &[(String, String)],
) -> Result<Infallible, Fault> {
    let mut steps = Steps::default();
    steps.step(super::UNSHARE, || {
        let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
        Ok(unshare(namespaces | CloneFlags::CLONE_NEWUTS)?)
    })?;
    let parts = steps.step(super::COLLECT, || root::Parts::collect(order))?;
    drop(steps.step("build the root", || parts.assemble(order, root::Processes::Nobodys))?);
    steps.step("enter the root", root::enter)?;
    steps.step("prepare the template", || {
        nix::unistd::setsid()?;
        // It hears of the ends of its forks, whose own parents end at once.
        nix::sys::prctl::set_child_subreaper(true)?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        signals::make_ordinary()
    })?;
    steps.step("start the template", || {
        let text = |text: &String| CString::new(text.as_str());
        let argv: Vec<CString> = argv.iter().map(text).collect::<Result<_, _>>()?;
        let own = (VARIABLE.to_owned(), SOCKET.to_string());
        let pair = |(name, value): &(String, String)| CString::new(format!("{name}={value}"));
        let env: Vec<CString> = env.iter().chain([&own]).map(pair).collect::<Result<_, _>>()?;
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (kept, output) = (sys::out_of_the_way(socket)?, sys::out_of_the_way(output)?);
        sys::place(&[(null.as_raw_fd(), 0), (output, 1), (output, 2), (kept, SOCKET)])?;
        let program = argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(nix::unistd::execve(program, &argv, &env)?)
    })
}

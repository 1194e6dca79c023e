//! Starting one program in the cell.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, execve, fork};

use super::{privileges, seccomp, sys};
use crate::lowered::{Lowered, Without};
use crate::port::{LOG_PIPE_FD, LOG_PIPE_VARIABLE, ORDER_PIPE_FD, ORDER_PIPE_VARIABLE};
use crate::signals;
use crate::wire::Spawn;

/// First to be killed when the host (or the cell) is out of memory: functions, before any service of the host and before the agent.
pub(crate) const OOM_SCORE: u32 = 1000;

/// A program that runs.
pub(super) struct Started {
    pub(super) pid: i32,
    /// The node's ends: stdout, stderr, log pipe, order pipe.
    pub(super) pipes: Vec<OwnedFd>,
}

/// A program that does not.
pub(super) struct Refusal {
    pub(super) step: &'static str,
    /// Whether the program itself is at fault.
    pub(super) exec: bool,
    pub(super) errno: i32,
}

impl Refusal {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, exec: step == EXEC, errno: error.raw_os_error().unwrap_or(libc::EINVAL) }
    }
}

/// The steps in the new process, by the number that crosses the error pipe.
const STEPS: [&str; 5] = ["prepare the process", "connect its output", "chdir", "give up privileges", EXEC];
const EXEC: &str = "execve";

/// What `execve` takes, made before the fork.
struct Image {
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
}

impl Image {
    fn new(order: &Spawn) -> Result<Self, NulError> {
        let mut env: Vec<CString> =
            order.env.iter().map(|(name, value)| CString::new(format!("{name}={value}"))).collect::<Result<_, _>>()?;
        if order.log_pipe {
            env.push(CString::new(format!("{LOG_PIPE_VARIABLE}={LOG_PIPE_FD}"))?);
        }
        if order.order_pipe {
            env.push(CString::new(format!("{ORDER_PIPE_VARIABLE}={ORDER_PIPE_FD}"))?);
        }
        let argv = order.argv.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>()?;
        Ok(Self { argv, env, cwd: CString::new(order.cwd.as_os_str().as_encoded_bytes())? })
    }
}

/// Starts it, and waits until it is past `execve` or has failed to get there. An agent that still has privileges gives its filter, and
/// the program's process gives them up and puts the filter in force by itself.
pub(super) fn spawn(
    order: &Spawn,
    privileged: Option<&seccomp::Filters>,
    without: Without,
) -> Result<Started, Refusal> {
    let image = Image::new(order).map_err(|_| Refusal::at("read argv")(io::ErrorKind::InvalidInput.into()))?;
    let pipe = || io::pipe().map_err(Refusal::at("pipe"));
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for to in [1, 2].into_iter().chain(order.log_pipe.then_some(LOG_PIPE_FD)) {
        let (read, write) = pipe()?;
        ours.push(OwnedFd::from(read));
        theirs.push((OwnedFd::from(write), to));
    }
    if order.order_pipe {
        let (read, write) = pipe()?;
        ours.push(write.into());
        theirs.push((read.into(), ORDER_PIPE_FD));
    }
    let (mut failed, failure) = pipe()?;
    // SAFETY: the agent has one thread, so the child may do whatever the parent might have done.
    match unsafe { fork() }.map_err(|error| Refusal::at("fork")(error.into()))? {
        ForkResult::Child => {
            let mut failure = failure;
            let (step, error) = match become_program(&image, &theirs, privileged, without) {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            let errno = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
            let _ = failure.write_all(&[&[step], errno.as_slice()].concat());
            std::process::exit(127)
        }
        ForkResult::Parent { child } => {
            drop((failure, theirs));
            let mut report = Vec::new();
            failed.read_to_end(&mut report).map_err(Refusal::at("execve report"))?;
            match report.split_first() {
                None => Ok(Started { pid: child.as_raw(), pipes: ours }),
                Some((step, errno)) => {
                    let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
                    let step = STEPS.get(usize::from(*step)).copied().unwrap_or("start");
                    Err(Refusal { step, exec: step == EXEC, errno })
                }
            }
        }
    }
}

/// In the new process: everything up to `execve`. The failing step is an index into [`STEPS`].
fn become_program(
    image: &Image,
    pipes: &[(OwnedFd, RawFd)],
    privileged: Option<&seccomp::Filters>,
    without: Without,
) -> Result<Infallible, (u8, io::Error)> {
    let step = |number: u8| move |error: nix::Error| (number, io::Error::from(error));
    prepare().map_err(|error| (0, error))?;
    connect(pipes, without).map_err(|error| (1, error))?;
    nix::unistd::chdir(image.cwd.as_c_str()).map_err(step(2))?;
    if let Some(filters) = privileged {
        give_up(filters, without).map_err(|error| (3, error))?;
    }
    let program = image.argv.first().ok_or((4, io::Error::from_raw_os_error(libc::ENOENT)))?;
    execve(program, &image.argv, &image.env).map_err(step(4))
}

/// What an agent has done already where the cell is somebody's.
fn give_up(filters: &seccomp::Filters, without: Without) -> io::Result<()> {
    if without.keeps(Lowered::Capabilities) {
        privileges::drop_all()?;
    }
    if without.keeps(Lowered::Filter) { filters.install() } else { Ok(()) }
}

/// Its own session, ordinary signals, first to go when memory is short. Limits are the agent's already.
fn prepare() -> io::Result<()> {
    nix::unistd::setsid()?;
    signals::make_ordinary()?;
    // The file belongs to the process only while it can be traced; nothing of the agent's memory is a secret from this very cell,
    // and the filter leaves no call to trace with.
    nix::sys::prctl::set_dumpable(true)?;
    let score = nix::fcntl::open("/proc/self/oom_score_adj", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let written = score.and_then(|file| nix::unistd::write(&file, OOM_SCORE.to_string().as_bytes()));
    nix::sys::prctl::set_dumpable(false)?;
    written.map(drop).map_err(io::Error::from)
}

/// Standard input from nowhere, outputs to the pipes, nothing else open.
fn connect(pipes: &[(OwnedFd, RawFd)], without: Without) -> io::Result<()> {
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let place = |from: RawFd, to: RawFd| {
        // SAFETY: takes integers only. What `to` was belongs to nobody any more: 0 to 2 are /dev/null in the agent, and
        // descriptors as high as the log pipe's are never reached by it.
        if unsafe { libc::dup2(from, to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    place(null.as_raw_fd(), 0)?;
    for (pipe, to) in pipes {
        place(pipe.as_raw_fd(), *to)?;
    }
    if !without.keeps(Lowered::Descriptors) {
        return sys::keep_across_exec();
    }
    // Everything of the agent is closed by exec; this is for what that mark was forgotten on.
    sys::close_from(ORDER_PIPE_FD + 1)
}

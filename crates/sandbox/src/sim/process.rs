//! One child process of a simulated cell.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::paths::Paths;
use crate::error::step;
use crate::pidfd::PidFd;
use crate::port::{ExitStatus, LOG_PIPE_VARIABLE, ORDER_PIPE_VARIABLE, Order, Process, ProcessSpec};
use crate::{Error, procfs, signals, spawner};

/// A process that was started, as its cell remembers it.
#[derive(Debug)]
pub(super) struct Started {
    pid: u32,
    pidfd: PidFd,
    out_of_memory: AtomicBool,
}

impl Started {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn alive(&self) -> bool {
        self.pidfd.signal(0).is_ok()
    }

    pub(super) fn mark_out_of_memory(&self) {
        self.out_of_memory.store(true, Ordering::Relaxed);
    }

    /// To the process and its group; to what is left of the group where the process has ended.
    pub(super) fn signal(&self, signal: i32, mark: &str) -> io::Result<()> {
        if !self.alive() {
            // Its number may be another's by now, so the members are told by their mark as well.
            let members = procfs::with_environment(mark).into_iter().map(|(pid, _)| pid);
            members.filter(|pid| group(*pid) == Some(self.pid)).for_each(|pid| kill(pid, signal));
            return Ok(());
        }
        kill_group(self.pid, signal);
        match self.pidfd.signal(signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }
}

/// Sends a signal to one process; that it has ended already is no failure.
pub(super) fn kill(pid: u32, signal: i32) {
    if let (Ok(pid), Ok(signal)) = (i32::try_from(pid), nix::sys::signal::Signal::try_from(signal)) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// The process group of a process.
fn group(pid: u32) -> Option<u32> {
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.cast_signed()))).ok()?;
    Some(group.as_raw().cast_unsigned())
}

fn kill_group(pid: u32, signal: i32) {
    if let (Ok(pid), Ok(signal)) = (i32::try_from(pid), nix::sys::signal::Signal::try_from(signal)) {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// Starts a program and the task that waits for its end.
pub(super) async fn start(paths: &Paths, mark: &str, spec: ProcessSpec) -> Result<(Arc<Started>, Process), Error> {
    let program = spec.argv.first().ok_or_else(|| step("read argv")(io::ErrorKind::InvalidInput.into()))?.clone();
    let exec = |source| Error::Exec { path: program.clone(), source };
    executable(&paths.rewrite(&program)).map_err(exec)?;
    let cwd = paths.rewrite(&spec.cwd.to_string_lossy());
    std::fs::metadata(&cwd).map_err(step("chdir"))?;

    let (log_pipe, log_end) = pipe_if(spec.log_pipe)?.unzip();
    let (order_end, order_pipe) = pipe_if(spec.order_pipe)?.unzip();
    let command = command(paths, mark, &program, &cwd, &spec, [log_end, order_end]);
    let mut child = spawner::spawn(command).await.map_err(exec)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(step("pipe")(io::ErrorKind::BrokenPipe.into()));
    };
    let pid = child.id();
    let pidfd = PidFd::open(pid).map_err(step("pidfd_open"))?;
    let waiter = pidfd.try_clone().map_err(step("dup"))?;
    let started = Arc::new(Started { pid, pidfd, out_of_memory: AtomicBool::new(false) });
    let (sender, exit) = oneshot::channel();
    tokio::spawn(reap(child, waiter, started.clone(), sender));
    Ok((started, Process { pid, stdout: stdout.into(), stderr: stderr.into(), log_pipe, order_pipe, exit }))
}

/// Read and write end of a pipe that may be wanted.
fn pipe_if(wanted: bool) -> Result<Option<(OwnedFd, OwnedFd)>, Error> {
    let pipe = || io::pipe().map_err(step("pipe"));
    wanted.then(pipe).transpose().map(|pipe| pipe.map(|(read, write)| (read.into(), write.into())))
}

/// An order as a simulated process must have it.
pub(super) fn order(paths: &Paths, mark: &str, order: Order) -> Order {
    let rewritten = order.env.into_iter().map(|(name, value)| (name, paths.rewrite_list(&value)));
    let own = [("TMPDIR".to_owned(), paths.rewrite("/tmp"))];
    let mark = mark.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = own.into_iter().chain(rewritten).chain(mark).collect();
    Order { env, cwd: paths.rewrite(&order.cwd.to_string_lossy()).into(), ..order }
}

/// The command, its own process group, its environment rewritten and marked.
fn command(
    paths: &Paths,
    mark: &str,
    program: &str,
    cwd: &str,
    spec: &ProcessSpec,
    pipes: [Option<OwnedFd>; 2],
) -> Command {
    let mut command = Command::new(paths.rewrite(program));
    command.args(spec.argv.iter().skip(1).map(|argument| paths.rewrite_list(argument)));
    command.current_dir(cwd).env_clear().env("TMPDIR", paths.rewrite("/tmp"));
    command.envs(spec.env.iter().map(|(name, value)| (name, paths.rewrite_list(value))));
    if let Some((name, value)) = mark.split_once('=') {
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // Under the numbers that they have here: a fixed one may be that of the pipe by which the report of a failed exec comes back.
    for (end, variable) in pipes.iter().zip([LOG_PIPE_VARIABLE, ORDER_PIPE_VARIABLE]) {
        if let Some(end) = end {
            command.env(variable, end.as_raw_fd().to_string());
        }
    }
    let node = std::process::id();
    // SAFETY: between fork and exec this calls only prctl, getppid, sigaction, sigprocmask, umask, close_range and
    // fcntl, which are async-signal-safe, and allocates nothing (`Error::from_raw_os_error` holds an integer). `pipes` is moved in and so
    // its descriptors stay open until after the fork.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // The node may have died before the line above took effect.
            if u32::try_from(libc::getppid()) != Ok(node) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            signals::make_ordinary()?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            // Whatever the node was started with is its own; closed by exec, because the report of a failed one goes through here.
            let mark = libc::CLOSE_RANGE_CLOEXEC;
            if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, mark) < 0 {
                return Err(io::Error::last_os_error());
            }
            for end in pipes.iter().flatten() {
                if libc::fcntl(end.as_raw_fd(), libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command
}

/// Whether the kernel would run this file. Asked beforehand because the C library's `exec` quietly hands a file of no known format
/// to a shell, where Lambda (and the `cell` back end) refuse it.
fn executable(path: &str) -> io::Result<()> {
    let mut magic = [0; 4];
    let read = File::open(path)?.read(&mut magic)?;
    match magic.get(..read) {
        Some([b'#', b'!', ..] | b"\x7fELF") => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ENOEXEC)),
    }
}

/// Waits for the end of a child, and tells.
async fn reap(mut child: Child, pidfd: PidFd, started: Arc<Started>, exit: oneshot::Sender<ExitStatus>) {
    if let Err(error) = pidfd.ended().await {
        tracing::error!(pid = started.pid, %error, "cannot wait for a process");
    }
    let Ok(status) = child.wait() else { return };
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, _) if started.out_of_memory.load(Ordering::Relaxed) => ExitStatus::OutOfMemory,
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(libc::SIGKILL)),
    };
    let _ = exit.send(status);
}

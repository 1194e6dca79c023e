//! What the node and its agents say to each other: one JSON document a packet over `SOCK_SEQPACKET`, descriptors beside it.
//!
//! Packets are atomic and ordered, so neither side frames or reassembles, and the death of either is an end of file at the other.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lowered::Without;

/// Longest message. Within a socket's default send buffer, and well beyond Lambda's 4 KiB of environment.
const MAX_MESSAGE: usize = 128 << 10;
/// Most descriptors beside one message.
const MAX_FDS: usize = 16;

/// From the node to the nursery.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToNursery {
    /// Its user ids are mapped. Always the first message.
    Mapped,
    /// Bear one more agent, with these ids as the cell's user; the agent's end of the cell's socket comes with it.
    Bear { uid: u32, gid: u32, without: Without },
    /// Start a template in a root as a blank cell's; its end of its socket and the write end of its output come with it.
    Template { root: Box<Build>, argv: Vec<String>, env: Vec<(String, String)> },
    /// Take host directories for a cell that is being specialised; where to answer comes with it.
    Collect { sources: Vec<PathBuf>, without: Without },
}

/// From the node to a cell's agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// Make the cell. Always the first message.
    Build(Box<Build>),
    /// Make a blank cell somebody's. The mounts come with it.
    Specialise { seq: u64, special: Special },
    /// Start a program.
    Spawn(Spawn),
    /// Send a signal to a program and its process group.
    Signal { pid: u32, signal: i32 },
    /// A template has been forked into the cell: the process with this number is to be treated as a program that was started here,
    /// but for its end, which others see.
    Adopt { pid: u32 },
    /// It has ended.
    Release { pid: u32 },
    /// Make a TCP socket in the cell's network.
    Socket { seq: u64 },
}

/// Everything the agent needs to know to make the cell.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Build {
    /// Files to write `0` to, so as to join the cell's cgroups.
    pub join: Vec<PathBuf>,
    /// User and group inside.
    pub uid: u32,
    pub gid: u32,
    /// Host path and path inside.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    pub hostname: String,
    pub shared_mib: u32,
    pub port: u16,
    /// Whether to make the device that leads out.
    pub device: Device,
    /// What `/proc/meminfo` shows from the beginning.
    pub memory_mib: u32,
    /// Whose the cell is; none: blank.
    pub special: Option<Special>,
    pub without: Without,
}

/// The device that leads out of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Device {
    No,
    /// No cell without it.
    Yes,
    /// Nobody knows yet whether it will be needed.
    IfPossible,
}

/// What makes a cell somebody's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Special {
    /// Where the mounts that come along go.
    pub targets: Vec<PathBuf>,
    pub memory_mib: u32,
    pub ephemeral_mib: u32,
    pub processes: u32,
    pub internet: bool,
}

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spawn {
    pub seq: u64,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    pub log_pipe: bool,
    pub order_pipe: bool,
}

/// From the node to a template.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToTemplate {
    /// What is the same for all forks. Always the first message.
    Begin {
        /// User and group inside.
        uid: u32,
        gid: u32,
        /// Limits by the kernel's numbers of them.
        limits: Vec<(u32, u64)>,
        /// The secure bits to lock; none where a test leaves privileges.
        secure_bits: Option<u64>,
        /// The filter as the kernel takes it, in hexadecimal; empty where a test leaves it out.
        filter: String,
        /// The machine code of snapshots and clones, in hexadecimal; empty where there is none for this machine.
        clone: String,
        /// What to make the process more likely to be killed by when memory is short.
        oom_score: u32,
    },
    /// Fork into the cell whose agent's pidfd comes with it, and then: stdout, stderr, log pipe, order pipe, files to join cgroups by.
    Fork {
        seq: u64,
        /// Namespaces to enter.
        namespaces: i32,
        /// Processes and threads at once, if that is known already.
        processes: Option<u64>,
    },
}

/// From a template to the node. What the nursery says on its behalf comes first, as to a cell.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromTemplate {
    /// As in [`FromAgent`].
    Born { pid: u32 },
    /// As in [`FromAgent`].
    Failed { step: Cow<'static, str>, path: Option<PathBuf>, errno: i32 },
    /// It has loaded itself.
    Ready,
    /// There is a fork that waits for its order, with this number in its cell and that one on the host; its pidfd comes with it.
    Forked { seq: u64, pid: u32, host: u32 },
    /// There is none.
    Refused { seq: u64, step: String, errno: i32 },
    /// A fork has ended: an exit code, or else a signal.
    Exited { seq: u64, code: Option<i32>, signal: i32 },
}

/// From an agent to the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromAgent {
    /// The nursery's first word: it is in a user namespace of its own, and waits for its ids to be mapped.
    Unshared,
    /// The nursery's second word: it can serve.
    Awake,
    /// From the nursery: the directories that were asked for, detached and read-only, come with it.
    Collected,
    /// Sent by the nursery on the agent's behalf: the host's number of the agent; its pidfd comes with it.
    Born { pid: u32 },
    /// The cell is made. With it come the listener, the scratch directory, and the device that leads out where there is one.
    Ready {
        /// Each step and the microseconds it took.
        took: Vec<(Cow<'static, str>, u64)>,
        /// Why there is no device that leads out, where one was to be made if possible.
        no_device: Option<i32>,
    },
    /// The cell is somebody's. With what each step took.
    Specialised { seq: u64, took: Vec<(Cow<'static, str>, u64)> },
    /// The cell cannot be made; the agent ends. The path is what the step was about, if that is one thing.
    Failed { step: Cow<'static, str>, path: Option<PathBuf>, errno: i32 },
    /// A program runs; stdout, stderr and, where asked for, the log pipe and the order pipe come with it.
    Started { seq: u64, pid: u32 },
    /// A program could not be started. `exec` says that it is the program's fault.
    Refused { seq: u64, step: Cow<'static, str>, exec: bool, errno: i32 },
    /// A program ended: an exit code, or else a signal.
    Exited { pid: u32, code: Option<i32>, signal: i32 },
    /// The socket that was asked for, or why there is none.
    Socket { seq: u64, errno: i32 },
}

/// A connected pair: the node's end, and the end for the other side.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message. `WouldBlock` where the socket does not block and is full.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message and its descriptors; none at the end of file.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    // Its length first: a buffer for the longest would stay in the memory of every agent.
    let length = loop {
        match recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Err(nix::Error::EINTR) => {}
            result => break result?,
        }
    };
    let mut bytes = vec![0; length.min(MAX_MESSAGE)];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let (length, fds) = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(message) => {
                let mut fds = Vec::new();
                for item in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = item {
                        // SAFETY: the kernel has just made these descriptors for this process; nobody else owns them.
                        fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
                    return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
                }
                break (message.bytes, fds);
            }
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(bytes.get(..length).unwrap_or_default())?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_and_descriptors_cross_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        let (read, write) = io::pipe().unwrap();
        send(a.as_fd(), &FromAgent::Born { pid: 7 }, &[read.as_fd(), write.as_fd()]).unwrap();
        let (message, fds) = receive::<FromAgent>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(message, FromAgent::Born { pid: 7 }));
        assert_eq!(fds.len(), 2);
        drop(a);
        assert!(receive::<FromAgent>(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_or_no_message_is_refused() {
        let (a, b) = pair().unwrap();
        let long = Spawn {
            seq: 0,
            argv: vec!["x".repeat(MAX_MESSAGE)],
            env: vec![],
            cwd: "/".into(),
            log_pipe: false,
            order_pipe: false,
        };
        assert_eq!(send(a.as_fd(), &long, &[]).unwrap_err().raw_os_error(), Some(libc::E2BIG));
        send(a.as_fd(), &"gibberish", &[]).unwrap();
        assert!(receive::<ToAgent>(b.as_fd()).is_err());
    }
}

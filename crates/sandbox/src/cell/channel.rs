//! The node's end of a cell's socket, on the runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::wire::{self, FromAgent};

/// Messages to and from one agent.
#[derive(Debug)]
pub(super) struct Channel {
    fd: AsyncFd<OwnedFd>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        // SAFETY: an `OwnedFd` always answers with the one descriptor it owns, which stays open until the `AsyncFd` drops it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::WRITABLE) };
        Ok(Self { fd: fd.map_err(io::Error::from)? })
    }

    /// Sends, waiting while the agent is behind.
    pub(super) async fn send<T: Serialize + Sync>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut guard = self.fd.writable().await?;
            if let Ok(result) = guard.try_io(|fd| wire::send(fd.as_fd(), message, fds)) {
                return result;
            }
        }
    }

    /// The next message; none when the agent has ended.
    pub(super) async fn receive(&self) -> io::Result<Option<(FromAgent, Vec<OwnedFd>)>> {
        self.receive_as().await
    }

    /// The same from others than agents.
    pub(super) async fn receive_as<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut guard = self.fd.readable().await?;
            if let Ok(result) = guard.try_io(|fd| wire::receive(fd.as_fd())) {
                return result;
            }
        }
    }
}

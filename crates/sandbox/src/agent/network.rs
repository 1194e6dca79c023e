//! The cell's own network: its loopback and the socket of the Runtime API.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::lowered::{Lowered, Without};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings loopback up and listens on it.
pub(super) fn listen(port: u16, without: Without) -> io::Result<OwnedFd> {
    if without.keeps(Lowered::Network) {
        loopback_up()?;
    }
    // The standard library's backlog of 128 is plenty: one runtime and ten extensions connect.
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.into())
}

/// A TCP socket of this network, for the node to connect with.
pub(super) fn tcp_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which is what it gets.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

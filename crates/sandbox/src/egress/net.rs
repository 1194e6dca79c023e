//! The addresses of the link between a cell and the node, and the device inside the cell.
//!
//! Every cell has the same addresses: each sits in a network namespace of its own, and the node tells them apart by descriptor.
//! `192.0.0.0/29` is set aside by RFC 7335 for exactly this, a translator at the end of a line, so it cannot collide with a
//! network somebody uses. It is not link-local on purpose: resolvers would then prefer IPv6 to it (RFC 6724).

use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The node's end: DNS answers here, and holes are at its ports.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// The cell's end.
pub const CELL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// Prefix length of the link.
pub const PREFIX_V4: u8 = 29;
/// The first 48 bits of the link's IPv6 addresses, a unique local prefix.
pub const CELL_PREFIX_V6: [u16; 3] = [0xfd6c, 0x616d, 0x6265];
/// The node's end.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x616d, 0x6265, 0, 0, 0, 0, 1);
/// The cell's end.
pub const CELL_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x616d, 0x6265, 0, 0, 0, 0, 2);
/// Prefix length of the link.
pub const PREFIX_V6: u8 = 64;
/// Bytes in a packet on the link. As large as a device takes, rounded: packets never leave the machine, and each costs a system call.
pub const MTU: u16 = 65_520;
/// The device's name inside.
pub const DEVICE: &str = "lambent0";
/// What `/etc/resolv.conf` must say inside.
pub const RESOLV_CONF: &str = "nameserver 192.0.0.1\noptions timeout:3 attempts:2\n";

/// Makes the device in the network namespace of the calling thread, gives it its addresses and routes and brings it up.
/// Needs `CAP_NET_ADMIN` in the user namespace that owns the network namespace. The descriptor goes to [`super::spawn`].
pub fn open() -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun")?;
    let mut request = ifreq();
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    ioctl(&device, libc::TUNSETIFF as libc::Ioctl, &mut request)?;
    let v4 = socket(libc::AF_INET)?;
    configure_v4(&v4)?;
    match socket(libc::AF_INET6) {
        Ok(v6) => configure_v6(&v4, &v6)?,
        // A kernel without IPv6 has nothing to configure and nothing to leak.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
        Err(error) => return Err(error),
    }
    Ok(device.into())
}

fn configure_v4(socket: &OwnedFd) -> io::Result<()> {
    let mut request = ifreq();
    request.ifr_ifru.ifru_mtu = libc::c_int::from(MTU);
    ioctl(socket, libc::SIOCSIFMTU as libc::Ioctl, &mut request)?;
    request.ifr_ifru.ifru_addr = sockaddr_v4(CELL_V4);
    ioctl(socket, libc::SIOCSIFADDR as libc::Ioctl, &mut request)?;
    request.ifr_ifru.ifru_netmask = sockaddr_v4(Ipv4Addr::from(u32::MAX << (32 - PREFIX_V4)));
    ioctl(socket, libc::SIOCSIFNETMASK as libc::Ioctl, &mut request)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: `rtentry` is plain data for which all zeroes is a valid value (null pointers included).
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    route.rt_dst = sockaddr_v4(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr_v4(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr_v4(GATEWAY_V4);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    ioctl(socket, libc::SIOCADDRT as libc::Ioctl, &mut route)
}

fn configure_v6(v4: &OwnedFd, v6: &OwnedFd) -> io::Result<()> {
    let mut request = ifreq();
    ioctl(v4, libc::SIOCGIFINDEX as libc::Ioctl, &mut request)?;
    // SAFETY: the call above succeeded, so the kernel has filled in this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    let mut address = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: CELL_V6.octets() },
        ifr6_prefixlen: u32::from(PREFIX_V6),
        ifr6_ifindex: index,
    };
    match ioctl(v6, libc::SIOCSIFADDR as libc::Ioctl, &mut address) {
        Ok(()) => {}
        // Switched off by sysctl on this host.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut route = Route6 {
        gateway: GATEWAY_V6.octets(),
        metric: 1,
        flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
        index,
        ..Route6::default()
    };
    ioctl(v6, libc::SIOCADDRT as libc::Ioctl, &mut route)
}

/// The kernel's `struct in6_rtmsg`, whose fields `libc` keeps private. A zero destination of length 0 is the default route.
#[repr(C)]
#[derive(Default)]
struct Route6 {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

fn socket(family: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; a descriptor that comes back is ours alone.
    unsafe {
        match libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

fn ifreq() -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn sockaddr_v4(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: `sockaddr` is plain data for which all zeroes is a valid value.
    let mut generic: libc::sockaddr = unsafe { mem::zeroed() };
    generic.sa_family = libc::AF_INET as libc::sa_family_t;
    // A `sockaddr_in` in place: two bytes of port, then the address.
    for (to, from) in generic.sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    generic
}

/// One configuration call. `T` must be the structure that `request` reads or writes.
fn ioctl<T>(descriptor: &impl AsRawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is a live, exclusive reference to the structure each caller above pairs with its request.
    match unsafe { libc::ioctl(descriptor.as_raw_fd(), request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

//! What must be known of this host: its own addresses, and who its resolvers are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::policy::{Denied, Verdict, judge};
use super::{Config, Resolvers};

const DNS_PORT: u16 = 53;
/// As in the C library: more `nameserver` lines are not read.
const MAX_RESOLVERS: usize = 3;

/// The policy applied to this host as it is now. The addresses are read for every flow: an interface that came up a moment ago
/// must not be open until some cache expires. It costs two netlink messages.
pub(super) fn decide(destination: SocketAddr, config: &Config) -> io::Result<Verdict> {
    let verdict = judge(destination, &config.holes, config.private, &addresses()?);
    match verdict {
        Verdict::Connect(to) if to == destination && is_routed_to_self(to) => Ok(Verdict::Deny(Denied::Host)),
        _ => Ok(verdict),
    }
}

/// Every address assigned on this machine, broadcast addresses included.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.flat_map(|interface| [interface.address, interface.broadcast]).flatten();
    Ok(addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect())
}

/// A second opinion, from the routing table: whole prefixes can be local without being assigned to an interface (`ip route add
/// local`), and for those the kernel picks the destination itself as source. Connecting a datagram socket sends nothing.
fn is_routed_to_self(destination: SocketAddr) -> bool {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(destination)?;
        socket.local_addr()
    });
    // No route is no danger: the real connection will fail the same way.
    probe.is_ok_and(|source| source.ip() == destination.ip())
}

/// The resolvers to ask, first one first. None configured means one on this machine, as resolv.conf(5) says.
pub(super) fn resolvers(from: &Resolvers) -> Vec<SocketAddr> {
    match from {
        Resolvers::Fixed(addresses) => addresses.clone(),
        Resolvers::File(path) => {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let found = parse_resolv_conf(&text);
            if found.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT))] } else { found }
        }
    }
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A zone (`fe80::1%eth0`) would need an interface index; such resolvers are skipped.
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    servers.take(MAX_RESOLVERS).map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n nameserver\t::1 # stub\n\
                    nameserver bad\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\nnameserver 8.8.8.8\noptions edns0\n";
        let expected = ["127.0.0.53:53", "[::1]:53", "1.1.1.1:53"].map(|a| a.parse().unwrap());
        assert_eq!(parse_resolv_conf(text), expected);
    }

    #[test]
    fn a_missing_file_means_a_resolver_on_this_machine() {
        let none = Resolvers::File("/nonexistent/resolv.conf".into());
        assert_eq!(resolvers(&none), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn every_address_of_this_host_is_denied() {
        let config = Config::default();
        for address in addresses().unwrap() {
            let verdict = decide(SocketAddr::new(address, 80), &config).unwrap();
            assert!(matches!(verdict, Verdict::Deny(_)), "{address}");
        }
    }
}

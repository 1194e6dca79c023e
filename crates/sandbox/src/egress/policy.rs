//! What a cell may reach: one pure function from an address to a verdict.
//!
//! The rule is an allow-list in spirit: an address passes only if it is ordinary unicast that cannot mean "this machine", "this
//! link" or "another cell". IPv6 forms that carry an IPv4 address inside are judged by that address too, so that no spelling of
//! `127.0.0.1` gets through. Names are not judged: DNS may answer anything, and the address it answered is what is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Hole;

/// Whether cells reach private networks (`10/8`, `172.16/12`, `192.168/16`, `100.64/10`, `fc00::/7`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Private {
    /// Yes, as a function inside a VPC would.
    #[default]
    Allow,
    /// No: the public Internet only.
    Deny,
}

/// Why a flow was refused. Its text is the `reason` label of `lambent_egress_denied_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denied {
    /// `127/8`, `::1`, and `0/8`, `::`, which Linux takes for the same.
    Loopback,
    /// `169.254/16`, `fe80::/10`, and the metadata services that clouds keep at other addresses.
    LinkLocal,
    /// Multicast, broadcast and reserved ranges.
    NotUnicast,
    /// An address of this host: what listens on all its interfaces would be reachable there.
    Host,
    /// The range cells themselves use; every other cell has the same addresses.
    Cell,
    /// An IPv6 address that only exists to carry another one.
    Embedded,
    /// A private network, where [`Private::Deny`] is set.
    Private,
}

impl Denied {
    /// The label used in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Denied::Loopback => "loopback",
            Denied::LinkLocal => "link-local",
            Denied::NotUnicast => "not-unicast",
            Denied::Host => "host",
            Denied::Cell => "cell",
            Denied::Embedded => "embedded",
            Denied::Private => "private",
        }
    }
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the address it asked for, or to the far end of a hole.
    Connect(SocketAddr),
    /// Nowhere.
    Deny(Denied),
}

/// Judges one destination. `host` holds every address assigned on this machine at this moment.
pub fn judge(destination: SocketAddr, holes: &[Hole], private: Private, host: &[IpAddr]) -> Verdict {
    if let Some(hole) = holes.iter().find(|hole| hole.inside == destination) {
        return Verdict::Connect(hole.outside);
    }
    match check(destination.ip(), private, host) {
        Ok(()) => Verdict::Connect(destination),
        Err(denied) => Verdict::Deny(denied),
    }
}

fn check(address: IpAddr, private: Private, host: &[IpAddr]) -> Result<(), Denied> {
    if host.contains(&address) {
        return Err(Denied::Host);
    }
    match address {
        IpAddr::V4(v4) => check_v4(v4, private),
        IpAddr::V6(v6) => match embedded(v6)? {
            // The far side of a translator sees the IPv4 address, which may be this host's.
            Some(v4) => check(IpAddr::V4(v4), private, host),
            None => check_v6(v6, private),
        },
    }
}

fn check_v4(address: Ipv4Addr, private: Private) -> Result<(), Denied> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0 | 127, ..) => Err(Denied::Loopback),
        (169, 254, _) => Err(Denied::LinkLocal),
        // Alibaba's and Azure's metadata services; neither is a place for functions of others.
        _ if matches!(address.octets(), [100, 100, 100, 200] | [168, 63, 129, 16]) => Err(Denied::LinkLocal),
        // 192.0.0.0/24 is reserved for protocols; cells use its first addresses, see `super::net`.
        (192, 0, 0) => Err(Denied::Cell),
        (224.., ..) => Err(Denied::NotUnicast),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => allowed_if_private(private),
        _ => Ok(()),
    }
}

fn check_v6(address: Ipv6Addr, private: Private) -> Result<(), Denied> {
    let [first, second, third, ..] = address.segments();
    match first {
        _ if address.is_loopback() || address.is_unspecified() => Err(Denied::Loopback),
        0xfe80..=0xfebf => Err(Denied::LinkLocal),
        // EC2's metadata service over IPv6.
        _ if address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Err(Denied::LinkLocal),
        0xff00.. => Err(Denied::NotUnicast),
        // Site-local addresses, withdrawn in 2004, still mean "this site" to old stacks.
        0xfec0..=0xfeff => Err(Denied::LinkLocal),
        _ if [first, second, third] == super::net::CELL_PREFIX_V6 => Err(Denied::Cell),
        0xfc00..=0xfdff => allowed_if_private(private),
        0x2000..=0x3fff => Ok(()),
        // Nothing else is assigned as global unicast.
        _ => Err(Denied::NotUnicast),
    }
}

/// The IPv4 address inside an IPv6 one, where a translator on the way would take it out.
fn embedded(address: Ipv6Addr) -> Result<Option<Ipv4Addr>, Denied> {
    let segments = address.segments();
    let [_, _, _, _, _, _, high, low] = segments;
    let last = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // `::` and `::1` are judged as themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Ok(None),
        // Mapped and compatible forms never appear on a wire; only someone who tries doors sends them.
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => Err(Denied::Embedded),
        // NAT64's well-known prefix is a real way out on IPv6-only networks.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Ok(Some(last)),
        // Other NAT64 prefixes hide the address at a place only the network knows.
        [0x64, 0xff9b, ..] => Err(Denied::Embedded),
        // 6to4 carries it in front; Teredo scrambles it.
        [0x2002, high, low, ..] => Ok(Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))),
        [0x2001, 0, ..] => Err(Denied::Embedded),
        // ISATAP keeps it at the end of any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => Ok(Some(last)),
        _ => Ok(None),
    }
}

fn allowed_if_private(private: Private) -> Result<(), Denied> {
    match private {
        Private::Allow => Ok(()),
        Private::Deny => Err(Denied::Private),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const HOST: [&str; 4] = ["198.51.100.7", "10.1.2.3", "2001:db8:1::7", "fd00::2"];

    fn verdict(address: &str, private: Private) -> Result<(), Denied> {
        let host: Vec<IpAddr> = HOST.iter().map(|a| a.parse().unwrap()).collect();
        let destination = SocketAddr::new(address.parse().unwrap(), 443);
        match judge(destination, &[], private, &host) {
            Verdict::Connect(to) => {
                assert_eq!(to, destination);
                Ok(())
            }
            Verdict::Deny(denied) => Err(denied),
        }
    }

    #[test]
    fn every_range_has_its_verdict() {
        use Denied::{Cell, Embedded, Host, LinkLocal, Loopback, NotUnicast};
        let table: &[(&str, Result<(), Denied>)] = &[
            ("1.1.1.1", Ok(())),
            ("8.8.8.8", Ok(())),
            ("192.0.1.1", Ok(())),
            ("223.255.255.255", Ok(())),
            ("10.1.2.4", Ok(())),
            ("172.16.0.1", Ok(())),
            ("192.168.1.1", Ok(())),
            ("100.64.0.1", Ok(())),
            ("0.0.0.0", Err(Loopback)),
            ("0.1.2.3", Err(Loopback)),
            ("127.0.0.1", Err(Loopback)),
            ("127.255.255.254", Err(Loopback)),
            ("169.254.169.254", Err(LinkLocal)),
            ("169.254.0.1", Err(LinkLocal)),
            ("100.100.100.200", Err(LinkLocal)),
            ("168.63.129.16", Err(LinkLocal)),
            ("192.0.0.1", Err(Cell)),
            ("192.0.0.2", Err(Cell)),
            ("192.0.0.192", Err(Cell)),
            ("224.0.0.1", Err(NotUnicast)),
            ("239.255.255.250", Err(NotUnicast)),
            ("240.0.0.1", Err(NotUnicast)),
            ("255.255.255.255", Err(NotUnicast)),
            ("198.51.100.7", Err(Host)),
            ("10.1.2.3", Err(Host)),
            ("2606:4700::1111", Ok(())),
            ("fd12::1", Ok(())),
            ("::", Err(Loopback)),
            ("::1", Err(Loopback)),
            ("fe80::1", Err(LinkLocal)),
            ("febf::1", Err(LinkLocal)),
            ("fec0::1", Err(LinkLocal)),
            ("fd00:ec2::254", Err(LinkLocal)),
            ("ff02::1", Err(NotUnicast)),
            ("4000::1", Err(NotUnicast)),
            ("2001:db8:1::7", Err(Host)),
            ("fd00::2", Err(Host)),
            ("fd6c:616d:6265::1", Err(Cell)),
            ("::ffff:127.0.0.1", Err(Embedded)),
            ("::ffff:1.1.1.1", Err(Embedded)),
            ("::ffff:0:1.1.1.1", Err(Embedded)),
            ("::127.0.0.1", Err(Embedded)),
            ("64:ff9b::1.1.1.1", Ok(())),
            ("64:ff9b::127.0.0.1", Err(Loopback)),
            ("64:ff9b::169.254.169.254", Err(LinkLocal)),
            ("64:ff9b::198.51.100.7", Err(Host)),
            ("64:ff9b:1::1.1.1.1", Err(Embedded)),
            ("2002:7f00:1::1", Err(Loopback)),
            ("2002:a01:203::1", Err(Host)),
            ("2002:808:808::1", Ok(())),
            ("2001::1", Err(Embedded)),
            ("2001:db8:2::5efe:7f00:1", Err(Loopback)),
            ("2001:db8:2::200:5efe:a9fe:a9fe", Err(LinkLocal)),
        ];
        for (address, expected) in table {
            assert_eq!(verdict(address, Private::Allow), *expected, "{address}");
        }
    }

    #[test]
    fn private_ranges_can_be_closed() {
        for address in ["10.9.9.9", "172.31.0.1", "192.168.0.1", "100.127.0.1", "fd12::1", "64:ff9b::10.0.0.1"] {
            assert_eq!(verdict(address, Private::Deny), Err(Denied::Private), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert_eq!(verdict(address, Private::Deny), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_hole_is_one_address_and_one_port() {
        let hole = Hole { inside: "192.0.0.1:4566".parse().unwrap(), outside: "127.0.0.1:34567".parse().unwrap() };
        let to = |address: &str| judge(address.parse().unwrap(), &[hole], Private::Deny, &[]);
        assert_eq!(to("192.0.0.1:4566"), Verdict::Connect(hole.outside));
        assert_eq!(to("192.0.0.1:4567"), Verdict::Deny(Denied::Cell));
        assert_eq!(to("127.0.0.1:34567"), Verdict::Deny(Denied::Loopback));
        assert_eq!(to("127.0.0.1:4566"), Verdict::Deny(Denied::Loopback));
    }
}

//! Packets as bytes: telling them apart on the way in, making UDP ones on the way out.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket, UdpRepr};

use super::net;

const HOP_LIMIT: u8 = 64;

/// Who talks to whom: the cell's end, then the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub inside: SocketAddr,
    pub outside: SocketAddr,
}

/// A packet from the cell, as far as its handling depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Asks for a new connection.
    Syn(Pair),
    /// Belongs to a connection, or to none.
    Segment,
    /// A datagram.
    Datagram(Pair, &'a [u8]),
}

/// Tells what a packet is; none for everything that is dropped. The source must be the cell's own address.
pub(super) fn classify(packet: &[u8]) -> Option<Kind<'_>> {
    // The next line would panic on nothing at all, which is also what a device gives that is being taken away.
    packet.first()?;
    let (source, destination, protocol, payload) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            if ip.more_frags() || ip.frag_offset() != 0 || ip.src_addr() != net::CELL_V4 {
                return None;
            }
            (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()), ip.next_header(), ip.payload())
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            if ip.src_addr() != net::CELL_V6 {
                return None;
            }
            (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()), ip.next_header(), ip.payload())
        }
    };
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            let pair = pair(source, tcp.src_port(), destination, tcp.dst_port())?;
            Some(if tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin() { Kind::Syn(pair) } else { Kind::Segment })
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            let pair = pair(source, udp.src_port(), destination, udp.dst_port())?;
            Some(Kind::Datagram(pair, udp.payload()))
        }
        _ => None,
    }
}

fn pair(source: IpAddr, from: u16, destination: IpAddr, to: u16) -> Option<Pair> {
    // Port 0 means "any" to the stack; nobody sends to it in earnest.
    let ports_are_real = from != 0 && to != 0;
    ports_are_real.then(|| Pair { inside: SocketAddr::new(source, from), outside: SocketAddr::new(destination, to) })
}

/// A datagram from the outside end of `pair` to the cell. None where it cannot fit in a packet.
pub(super) fn reply(pair: Pair, payload: &[u8]) -> Option<Vec<u8>> {
    let (from, to) = (IpAddress::from(pair.outside.ip()), IpAddress::from(pair.inside.ip()));
    let udp = UdpRepr { src_port: pair.outside.port(), dst_port: pair.inside.port() };
    let ip = IpRepr::new(from, to, IpProtocol::Udp, udp.header_len() + payload.len(), HOP_LIMIT);
    let length = ip.buffer_len();
    if length > usize::from(net::MTU) {
        return None;
    }
    let checksums = ChecksumCapabilities::default();
    let mut packet = vec![0; length];
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.get_mut(ip.header_len()..)?);
    udp.emit(&mut datagram, &from, &to, payload.len(), |buffer| buffer.copy_from_slice(payload), &checksums);
    Some(packet)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(inside: &str, outside: &str) -> Pair {
        Pair { inside: inside.parse().unwrap(), outside: outside.parse().unwrap() }
    }

    /// A datagram as the cell would send it: the reply to the reversed pair.
    fn sent(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        reply(pair(to, from), payload).unwrap()
    }

    #[test]
    fn datagrams_are_told_apart_by_version_and_source() {
        let v4 = sent("192.0.0.2:4000", "1.1.1.1:53", b"hello");
        assert_eq!(classify(&v4), Some(Kind::Datagram(pair("192.0.0.2:4000", "1.1.1.1:53"), b"hello")));
        let v6 = sent("[fd6c:616d:6265::2]:4000", "[2606:4700::1]:53", b"");
        assert_eq!(classify(&v6), Some(Kind::Datagram(pair("[fd6c:616d:6265::2]:4000", "[2606:4700::1]:53"), b"")));
        assert_eq!(classify(&sent("192.0.0.3:4000", "1.1.1.1:53", b"forged source")), None);
        assert_eq!(classify(&sent("192.0.0.2:0", "1.1.1.1:53", b"no port")), None);
        assert_eq!(classify(&sent("192.0.0.2:4000", "1.1.1.1:0", b"no port")), None);
    }

    #[test]
    fn fragments_are_dropped() {
        let mut packet = sent("192.0.0.2:4000", "1.1.1.1:53", b"hello");
        Ipv4Packet::new_unchecked(&mut packet[..]).set_more_frags(true);
        assert_eq!(classify(&packet), None);
    }

    #[test]
    fn a_reply_too_large_for_a_packet_is_none() {
        let pair = pair("192.0.0.2:4000", "1.1.1.1:53");
        assert!(reply(pair, &vec![0; usize::from(net::MTU) - 28]).is_some());
        assert!(reply(pair, &vec![0; usize::from(net::MTU) - 27]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(packet in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = classify(&packet);
        }

        #[test]
        fn no_damaged_packet_panics(position in 0_usize..33, value: u8, cut in 0_usize..34) {
            let mut packet = sent("192.0.0.2:4000", "1.1.1.1:53", b"hello");
            packet[position] = value;
            packet.truncate(cut);
            let _ = classify(&packet);
        }
    }
}

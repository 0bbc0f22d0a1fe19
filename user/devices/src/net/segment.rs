//! Segments of TCP that are little more than their headers, in frames.

use etherparse::{
    Ethernet2Header, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader,
    TransportSlice,
};
use std::net::{IpAddr, SocketAddr};

/// Longest frame of a segment without data, in bytes: the headers of Ethernet, of IPv6 or of IPv4 with all options, and of TCP with all options.
pub(super) const LONGEST: usize = 14 + 60 + 60;
/// Hops that a frame of ours may take; it takes one.
const HOPS: u8 = 64;

/// What a short frame says to the other side of a connection.
pub(crate) struct Segment {
    pub(super) link: Ethernet2Header,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) tcp: TcpHeader,
}

impl Segment {
    /// That of `frame`, if it is short and has one.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        if frame.len() > LONGEST {
            return None;
        }
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (link, Some(TransportSlice::Tcp(tcp))) = (packet.link?.to_header()?, packet.transport) else {
            return None;
        };
        let (source, destination): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            _ => return None,
        };
        Some(Self {
            link: link.ethernet2()?,
            source: (source, tcp.source_port()).into(),
            destination: (destination, tcp.destination_port()).into(),
            tcp: tcp.to_header(),
        })
    }

    /// What goes before the TCP of an answer.
    pub(super) fn reply(&self) -> Option<PacketBuilderStep<IpHeaders>> {
        let reply = PacketBuilder::ethernet2(self.link.destination, self.link.source);
        match (self.destination, self.source) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                Some(reply.ipv4(from.ip().octets(), to.ip().octets(), HOPS))
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                Some(reply.ipv6(from.ip().octets(), to.ip().octets(), HOPS))
            }
            _ => None,
        }
    }
}

/// A segment that a guest sends to its gateway, for tests.
#[cfg(test)]
pub(super) fn of_guest(six: bool, tcp: TcpHeader) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(GUEST, GATEWAY);
    let ip = match six {
        false => link.ipv4([10, 0, 2, 15], [10, 0, 2, 2], HOPS),
        true => link.ipv6([1; 16], [2; 16], HOPS),
    };
    let mut frame = Vec::new();
    ip.tcp_header(tcp).write(&mut frame, &[]).unwrap();
    frame
}

#[cfg(test)]
pub(super) const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];
#[cfg(test)]
pub(super) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 2];

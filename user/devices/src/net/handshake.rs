//! What passt leaves out of a handshake of TCP.
//!
//! The passt of Debian 12 acknowledges a guest's SYN on a forwarded connection no sooner than it has bytes of the client. A server that speaks first, as those of databases and mail do, waits for that (RFC 9293, section 3.5), and the client for the server.

use super::segment::Segment;

/// Room that it gives the guest, before the scale that passt has asked for: for a greeting, until passt says how much there is.
const WINDOW: u16 = 1024;

/// The frame that acknowledges `segment`, if that is a guest's answer to a SYN.
pub(crate) fn acknowledgement(segment: &Segment) -> Option<Vec<u8>> {
    let Segment { source, destination, tcp, .. } = segment;
    if !(tcp.syn && tcp.ack) {
        return None;
    }
    let reply = segment.reply()?;
    let reply = reply
        .tcp(destination.port(), source.port(), tcp.acknowledgment_number, WINDOW)
        .ack(tcp.sequence_number.wrapping_add(1));
    let mut bytes = Vec::new();
    reply.write(&mut bytes, &[]).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::segment::{GATEWAY, GUEST, LONGEST, of_guest};
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    const SEQUENCE: u32 = u32::MAX;

    fn from_guest(six: bool, change: impl Fn(&mut etherparse::TcpHeader)) -> Vec<u8> {
        let mut tcp = etherparse::TcpHeader::new(3306, 40000, SEQUENCE, 500);
        (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (true, true, 77);
        change(&mut tcp);
        of_guest(six, tcp)
    }

    fn answer(frame: &[u8]) -> Option<Vec<u8>> {
        acknowledgement(&Segment::of(frame)?)
    }

    #[test]
    fn a_guests_answer_to_a_syn_is_acknowledged() {
        for six in [false, true] {
            let reply = answer(&from_guest(six, |_| {})).unwrap();
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            let link = packet.link.unwrap().to_header().unwrap().ethernet2().unwrap();
            assert_eq!((link.source, link.destination), (GATEWAY, GUEST));
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("not TCP") };
            assert_eq!((tcp.source_port(), tcp.destination_port()), (40000, 3306));
            assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (77, 0));
            assert!(tcp.ack() && !tcp.syn() && !tcp.rst() && !tcp.fin() && tcp.payload().is_empty());
            let sum = match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    assert_eq!(ip.header().destination(), [10, 0, 2, 15]);
                    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                NetSlice::Ipv6(ip) => {
                    assert_eq!(ip.header().destination(), [1; 16]);
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(sum, Ok(tcp.checksum()));
        }
    }

    #[test]
    fn other_frames_are_not_answered() {
        assert_eq!(answer(&from_guest(false, |tcp| tcp.ack = false)), None);
        assert_eq!(answer(&from_guest(true, |tcp| tcp.syn = false)), None);
        assert_eq!(answer(&[]), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(mut frame in prop::collection::vec(any::<u8>(), 0..LONGEST), like in any::<bool>()) {
            if like {
                // Valid as far as it goes.
                let valid = from_guest(frame.len() % 2 == 0, |_| {});
                let kept = frame.len().min(valid.len()) / 2;
                frame[..kept].copy_from_slice(&valid[..kept]);
            }
            let _ = answer(&frame);
        }
    }
}

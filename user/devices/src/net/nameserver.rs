//! The name server of which passt's DHCP tells a guest.
//!
//! What a guest asks at the address of `--dns-forward` goes to the first name server of the host. But passt tells the guest of others: of those in the host's /etc/resolv.conf, in whose place the passt of Debian 12
//! then answers from that address (`udp_update_hdr4` in its `udp.c`), so that no resolver takes the answer; or of the gateway where the server is on the host itself, which leads to 127.0.0.1 and not to it
//! (systemd-resolved is at 127.0.0.53). So the guest is told of that address alone.

use std::net::Ipv4Addr;

/// Bytes of an Ethernet header, and the type of IPv4 at its end.
const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [8, 0];
/// Where an IPv4 header has its protocol, and UDP's number (RFC 791).
const PROTOCOL: usize = 9;
const UDP: u8 = 17;
/// From DHCP's server to its client: what a UDP header begins with (RFC 768, RFC 2131).
const FROM_SERVER: [u8; 4] = [0, 67, 0, 68];
/// Where the UDP header has its checksum; zero: there is none.
const CHECKSUM: std::ops::Range<usize> = 6..8;
/// Where DHCP's options begin: behind the UDP header, the fields of BOOTP and the magic cookie.
const OPTIONS: usize = 8 + 236 + 4;
/// Options (RFC 2132): two of a single byte, and the list of name servers.
const PAD: u8 = 0;
const END: u8 = 255;
const NAME_SERVERS: u8 = 6;

/// Makes each name server in `frame` be `server`, if it is an answer of DHCP.
pub(super) fn tell(frame: &mut [u8], server: Ipv4Addr) {
    let Some(udp) = from_server(frame) else { return };
    let mut at = OPTIONS;
    while let Some(&[code, length]) = udp.get(at..at + 2) {
        let value = at + 2..at + 2 + usize::from(length);
        at = if code == PAD { at + 1 } else { value.end };
        match code {
            END => return,
            NAME_SERVERS => {
                let Some(servers) = udp.get_mut(value) else { return };
                servers.chunks_exact_mut(4).for_each(|address| address.copy_from_slice(&server.octets()));
                udp[CHECKSUM].fill(0);
            }
            _ => {}
        }
    }
}

/// The UDP header of an answer of DHCP, and what follows.
fn from_server(frame: &mut [u8]) -> Option<&mut [u8]> {
    let (link, ip) = frame.split_at_mut_checked(ETHERNET)?;
    let is_udp = link.ends_with(&IPV4) && ip.get(PROTOCOL) == Some(&UDP);
    let header = usize::from(ip.first()? & 0xf) * 4;
    ip.get_mut(header..).filter(|udp| is_udp && udp.starts_with(&FROM_SERVER) && udp.len() > OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

    fn frame(ports: (u16, u16), options: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut payload = vec![1; OPTIONS - 8];
        payload.extend(options);
        let mut frame = Vec::new();
        let udp = link.ipv4([10, 0, 2, 2], [10, 0, 2, 15], 64).udp(ports.0, ports.1);
        udp.write(&mut frame, &payload).unwrap();
        frame
    }

    #[test]
    fn a_guest_is_told_of_one_name_server() {
        let mut told =
            frame((67, 68), &[53, 1, 5, PAD, 6, 8, 192, 0, 2, 53, 10, 0, 2, 2, 3, 4, 10, 0, 2, 2, END, 6, 4]);
        tell(&mut told, SERVER);
        let packet = SlicedPacket::from_ethernet(&told).unwrap();
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
        assert_eq!(udp.checksum(), 0);
        let options = &udp.payload()[OPTIONS - 8..];
        assert_eq!(options, [53, 1, 5, PAD, 6, 8, 10, 0, 2, 3, 10, 0, 2, 3, 3, 4, 10, 0, 2, 2, END, 6, 4]);
    }

    #[test]
    fn other_frames_are_as_they_were() {
        let list = [6, 4, 192, 0, 2, 53, END];
        for before in [frame((68, 67), &list), frame((67, 68), &[6, 5, 192, 0, 2, 53]), frame((67, 68), &[])]
        {
            let mut after = before.clone();
            tell(&mut after, SERVER);
            assert_eq!(after, before);
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(options in prop::collection::vec(any::<u8>(), 0..99), cut in 0_usize..400, place in 0_usize..60, byte: u8) {
            let mut frame = frame((67, 68), &options);
            frame.truncate(cut);
            if let Some(at) = frame.get_mut(place) {
                *at = byte;
            }
            tell(&mut frame, SERVER);
        }
    }
}

//! Windows of TCP that the guest has closed.
//!
//! Whoever has something for a closed window asks from time to time whether it is still closed, because the word that it is open can be lost (RFC 9293, section 3.8.6.1), or is not given: a Linux that was
//! short of memory may take its window for one that was never closed (mended by "tcp: correct handling of extreme memory squeeze" in 6.14). The passt of Debian 12 does not ask, and resets connections
//! whose window has been closed for eight seconds (`tcp_timer_handler` in its `tcp.c`), with all that their programs have not read. So they are asked here. The guest's answer goes to passt, which waits anew.

use super::segment::Segment;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// From the guest's word, or from one question, to the next: passt counts after two seconds.
const PERIOD: Duration = Duration::from_secs(1);
/// Questions without an answer before the guest is taken to have forgotten the connection.
const QUESTIONS: u32 = 8;
/// Windows that are kept; the oldest is left to itself.
const KEPT: usize = 256;
/// How far behind what the guest has sent a question's acknowledgement is: it must be answered, and nothing else may come of it (RFC 5961, section 5.2).
const BEHIND: u32 = 1 << 30;

/// Those that are closed now.
#[derive(Default)]
pub(crate) struct ClosedWindows(Vec<Closed>);

struct Closed {
    guest: SocketAddr,
    other: SocketAddr,
    question: Vec<u8>,
    asked: u32,
    next: Instant,
}

impl ClosedWindows {
    /// The guest says `segment`, at `now`.
    pub(crate) fn announced(&mut self, segment: &Segment, now: impl Fn() -> Instant) {
        let Segment { source: guest, destination: other, ref tcp, .. } = *segment;
        self.forget(guest, other);
        if !tcp.ack || tcp.syn || tcp.rst || tcp.window_size > 0 {
            return;
        }
        let Some(question) = question(segment) else { return };
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(Closed { guest, other, question, asked: 0, next: now() + PERIOD });
    }

    /// The guest is told `frame`.
    pub(crate) fn told(&mut self, frame: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        if let Some(segment) = Segment::of(frame).filter(|segment| segment.tcp.rst) {
            self.forget(segment.destination, segment.source);
        }
    }

    fn forget(&mut self, guest: SocketAddr, other: SocketAddr) {
        self.0.retain(|closed| (closed.guest, closed.other) != (guest, other));
    }

    /// When the next question is to be asked.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|closed| closed.next).min()
    }

    /// A question to the guest that is to be asked by `now`.
    pub(crate) fn question(&mut self, now: Instant) -> Option<Vec<u8>> {
        let place = self.0.iter().position(|closed| closed.next <= now)?;
        let closed = &mut self.0[place];
        (closed.asked, closed.next) = (closed.asked + 1, now + PERIOD);
        if closed.asked == QUESTIONS {
            return Some(self.0.remove(place).question);
        }
        Some(closed.question.clone())
    }
}

/// A byte that the guest has already, which it must acknowledge again.
fn question(segment: &Segment) -> Option<Vec<u8>> {
    let (acknowledged, sent) = (segment.tcp.acknowledgment_number, segment.tcp.sequence_number);
    let reply = segment.reply()?;
    let reply = reply
        .tcp(segment.destination.port(), segment.source.port(), acknowledged.wrapping_sub(1), 0)
        .ack(sent.wrapping_sub(BEHIND));
    let mut bytes = Vec::new();
    reply.write(&mut bytes, &[0]).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::segment::{GATEWAY, GUEST, LONGEST, of_guest};
    use etherparse::{PacketBuilder, TcpHeader};
    use proptest::prelude::*;

    /// A segment of the guest's port 40000 and so on.
    fn guest(six: bool, port: u16, change: impl Fn(&mut TcpHeader)) -> Vec<u8> {
        let mut tcp = TcpHeader::new(port, 7000, 5, 0);
        (tcp.ack, tcp.acknowledgment_number) = (true, 0);
        change(&mut tcp);
        of_guest(six, tcp)
    }

    fn says(windows: &mut ClosedWindows, frame: &[u8], now: Instant) {
        windows.announced(&Segment::of(frame).unwrap(), || now);
    }

    #[test]
    fn a_closed_window_is_asked_for_until_it_is_open() {
        for six in [false, true] {
            let mut windows = ClosedWindows::default();
            let mut now = Instant::now();
            assert_eq!((windows.deadline(), windows.question(now)), (None, None));
            says(&mut windows, &guest(six, 40000, |_| {}), now);
            assert_eq!((windows.deadline(), windows.question(now)), (Some(now + PERIOD), None));
            for _ in 0..QUESTIONS * 2 {
                now += PERIOD;
                let bytes = windows.question(now).unwrap();
                assert_eq!(bytes.len(), guest(six, 40000, |_| {}).len() + 1);
                let asked = Segment::of(&bytes).unwrap();
                assert_eq!((asked.source.port(), asked.destination.port()), (7000, 40000));
                assert_eq!((asked.link.source, asked.link.destination), (GATEWAY, GUEST));
                assert_eq!(asked.tcp.sequence_number, u32::MAX, "the byte before what it waits for");
                assert_eq!(
                    (asked.tcp.acknowledgment_number, asked.tcp.ack),
                    (5_u32.wrapping_sub(BEHIND), true)
                );
                assert_eq!(windows.question(now), None, "once a period");
                says(&mut windows, &guest(six, 40000, |_| {}), now);
            }
            says(&mut windows, &guest(six, 40000, |tcp| tcp.window_size = 1), now);
            assert_eq!(windows.deadline(), None);
        }
    }

    #[test]
    fn connections_that_have_ended_are_not_asked_for() {
        let now = Instant::now();
        let closed = guest(false, 40000, |_| {});
        for end in [|tcp: &mut TcpHeader| tcp.rst = true, |tcp: &mut TcpHeader| tcp.syn = true] {
            let mut windows = ClosedWindows::default();
            says(&mut windows, &closed, now);
            says(&mut windows, &guest(false, 40000, end), now);
            assert_eq!(windows.deadline(), None);
        }
        let mut windows = ClosedWindows::default();
        says(&mut windows, &closed, now);
        let other = |change: fn(&mut TcpHeader)| {
            let mut tcp = TcpHeader::new(7000, 40000, 1, 0);
            change(&mut tcp);
            let mut bytes = Vec::new();
            let ip = PacketBuilder::ethernet2([2; 6], [3; 6]).ipv4([10, 0, 2, 2], [10, 0, 2, 15], 64);
            ip.tcp_header(tcp).write(&mut bytes, &[]).unwrap();
            bytes
        };
        windows.told(&other(|tcp| tcp.ack = true));
        assert_eq!(windows.deadline(), Some(now + PERIOD));
        windows.told(&other(|tcp| tcp.rst = true));
        assert_eq!(windows.deadline(), None);
    }

    #[test]
    fn a_guest_that_does_not_answer_is_left_alone_and_only_so_many_are_kept() {
        let mut now = Instant::now();
        let mut windows = ClosedWindows::default();
        says(&mut windows, &guest(false, 40000, |_| {}), now);
        for _ in 0..QUESTIONS {
            now += PERIOD;
            assert!(windows.question(now).is_some());
        }
        assert_eq!(windows.deadline(), None);
        let ports = 10_000..10_000 + KEPT as u16 + 1;
        ports.for_each(|port| says(&mut windows, &guest(true, port, |_| {}), now));
        assert_eq!((windows.0.len(), windows.0[0].guest.port()), (KEPT, 10_001));
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LONGEST + 9), 0..8)) {
            let (mut windows, now) = (ClosedWindows::default(), Instant::now());
            for (index, mut bytes) in frames.into_iter().enumerate() {
                // Valid as far as it goes.
                let valid = guest(index % 2 == 0, 40000, |_| {});
                let kept = bytes.len().min(valid.len()) * (index % 3) / 2;
                let kept = kept.min(valid.len()).min(bytes.len());
                bytes[..kept].copy_from_slice(&valid[..kept]);
                if let Some(segment) = Segment::of(&bytes) {
                    windows.announced(&segment, || now);
                }
                windows.told(&bytes);
                let _ = windows.question(now + PERIOD);
            }
        }
    }
}

//! Frames that wait to be written to a stream, and how they are cut into writes.
//!
//! passt asks **once** for what it lacks of a frame (`tap_handler_passt` in the `tap.c` of Debian 12); if it gets less than that, it takes what follows for lengths of frames, and loses all until the guest has been silent.
//! So a frame has to come in no more than two pieces. The kernel cuts each write(2) anew (`unix_stream_sendmsg` in its `net/unix/af_unix.c`), hence each write begins with a frame and ends with one,
//! and has more than one only if all of them are a single piece.

use super::{backend::MAX_FRAME, stream::LENGTH};
use std::collections::VecDeque;

/// Bytes of one write that the kernel never takes apart: it cuts after 32 KiB and what fits into the first page beside its own records.
const PIECE: usize = 34 << 10;
const _: () = assert!(LENGTH + MAX_FRAME <= 2 * PIECE);

/// Frames, each behind its length.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// Where in `bytes` each write that is left begins and ends.
    writes: VecDeque<(usize, usize)>,
}

impl Output {
    /// Room for a frame of `len` bytes, behind all others.
    pub(super) fn add(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        let end = start + LENGTH + len;
        self.bytes.extend((len as u32).to_be_bytes());
        self.bytes.resize(end, 0);
        match self.writes.back_mut() {
            Some((first, last)) if end - *first <= PIECE => *last = end,
            _ => self.writes.push_back((start, end)),
        }
        &mut self.bytes[start + LENGTH..]
    }

    /// Bytes that were added since all was sent.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What is to be written next, at once.
    pub(super) fn next(&self) -> Option<&[u8]> {
        self.writes.front().map(|(_, end)| &self.bytes[self.sent..*end])
    }

    /// The first `count` bytes of that were written.
    pub(super) fn take(&mut self, count: usize) {
        self.sent += count;
        if self.writes.front().is_some_and(|(_, end)| *end == self.sent) {
            self.writes.pop_front();
        }
        if self.writes.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The lengths of the frames that `write` has, or none if it is not made of whole ones.
    fn frames(mut write: &[u8]) -> Option<Vec<usize>> {
        let mut lens = Vec::new();
        while let Some((length, rest)) = write.split_first_chunk::<LENGTH>() {
            let len = u32::from_be_bytes(*length) as usize;
            write = rest.get(len..)?;
            lens.push(len);
        }
        write.is_empty().then_some(lens)
    }

    proptest! {
        /// However much of it the socket takes when, a write is a single piece of whole frames, or a single frame; none is lost.
        #[test]
        fn a_frame_comes_in_two_pieces_at_most(
            lens in prop::collection::vec(prop_oneof![14_usize..200, 14..=MAX_FRAME], 1..40),
            turns in prop::collection::vec((1..5_usize, 0..4_usize), 40),
        ) {
            let mut output = Output::default();
            let mut left = lens.iter();
            let mut found = Vec::new();
            for (add, write) in turns {
                left.by_ref().take(add).for_each(|len| output.add(*len).fill(1));
                for _ in 0..write {
                    let Some(whole) = output.next() else { break };
                    let lens = frames(whole).expect("whole frames");
                    prop_assert!(whole.len() <= PIECE || lens.len() == 1, "{lens:?}");
                    found.extend(lens);
                    let (first, rest) = (whole.len().min(PIECE), whole.len().saturating_sub(PIECE));
                    output.take(first);
                    if rest > 0 {
                        prop_assert_eq!(output.next().map(<[u8]>::len), Some(rest));
                        output.take(rest);
                    }
                }
            }
            prop_assert_eq!(&found[..], &lens[..found.len()]);
            prop_assert_eq!(output.next().is_none(), output.len() == 0);
        }
    }
}

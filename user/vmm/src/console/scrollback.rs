//! The last of what a console has shown.

use colinux_control::MAX_KEPT as KEPT;
use std::collections::VecDeque;

/// The last bytes of a stream.
#[derive(Default)]
pub(crate) struct Scrollback(VecDeque<u8>);

impl Scrollback {
    /// Adds bytes; the oldest go.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEPT)..];
        let surplus = (self.0.len() + new.len()).saturating_sub(KEPT);
        self.0.drain(..surplus);
        self.0.extend(new);
    }

    /// What is kept, from the beginning of a line on where lines have gone.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().copied().collect();
        if bytes.len() == KEPT
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
        {
            bytes.drain(..=end);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept() {
        let mut scrollback = Scrollback::default();
        scrollback.push(b"first\n");
        assert_eq!(scrollback.bytes(), b"first\n");
        let line = [&[b'x'; 99][..], b"\n"].concat();
        (0..KEPT / 100 + 2).for_each(|_| scrollback.push(&line));
        let bytes = scrollback.bytes();
        assert!(bytes.len() > KEPT - 100 && bytes.len().is_multiple_of(100));
        scrollback.push(&vec![b'y'; 3 * KEPT]);
        assert_eq!(scrollback.bytes(), vec![b'y'; KEPT]);
    }
}

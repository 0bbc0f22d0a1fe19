//! Frames over a stream socket, each behind its length in bytes as a big-endian number of 32 bits: what QEMU's `-netdev stream` and passt speak.

use super::{
    Backend, Frame, HEADER,
    backend::{MAX_FRAME, MIN_FRAME},
    output::Output,
};
use crate::Slices;
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_HDR_F_DATA_VALID};

/// Bytes of the length before each frame.
pub(super) const LENGTH: usize = 4;
/// Bytes to ask for at once.
const ROOM: usize = 256 << 10;
/// Bytes to gather before they are sent.
const BATCH: usize = 128 << 10;

/// One end of such a stream.
pub struct FrameStream {
    socket: UnixStream,
    /// What was received; `received` of it counts, up to `taken` it is done with.
    input: Vec<u8>,
    received: usize,
    taken: usize,
    output: Output,
    header: [u8; HEADER],
}

impl FrameStream {
    /// Speaks over `socket`.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (input, output) = (vec![0; ROOM], Output::default());
        Ok(Self { socket, input, received: 0, taken: 0, output, header: [0; HEADER] })
    }

    /// The length of the frame that comes next, as soon as that is known.
    fn next_len(&self) -> io::Result<Option<usize>> {
        let Some((length, _)) = self.input[self.taken..self.received].split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!("the other side sends a frame of {length} bytes")));
        }
        Ok(Some(length))
    }

    /// Where the frame that comes next is in `input`, if all of it is there.
    fn next(&self) -> io::Result<Option<(usize, usize)>> {
        let start = self.taken + LENGTH;
        let end = self.next_len()?.map(|length| start + length);
        Ok(end.filter(|end| *end <= self.received).map(|end| (start, end)))
    }

    /// The same, and reads more where that is needed.
    fn place(&mut self) -> io::Result<Option<(usize, usize)>> {
        loop {
            match self.next()? {
                Some((start, end)) if end - start < MIN_FRAME => self.taken = end,
                None if self.fill()? => {}
                place => return Ok(place),
            }
        }
    }

    /// The frame that comes next, to be changed.
    pub(super) fn frame_mut(&mut self) -> io::Result<Option<&mut [u8]>> {
        Ok(self.place()?.map(|(start, end)| &mut self.input[start..end]))
    }

    /// Reads more; false if there is nothing now.
    fn fill(&mut self) -> io::Result<bool> {
        self.input.copy_within(self.taken..self.received, 0);
        (self.taken, self.received) = (0, self.received - self.taken);
        match self.socket.read(&mut self.input[self.received..]) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side has ended")),
            Ok(count) => {
                self.received += count;
                Ok(true)
            }
            Err(error) => not_now(error),
        }
    }
}

impl Backend for FrameStream {
    fn file(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The other side is a program of this computer, and what lies between does not damage frames.
    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_GUEST_CSUM
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        let valid = features >> VIRTIO_NET_F_GUEST_CSUM & 1 != 0;
        self.header[0] = if valid { VIRTIO_NET_HDR_F_DATA_VALID as u8 } else { 0 };
        Ok(())
    }

    fn frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        Ok(self.place()?.map(|(start, end)| Frame { header: self.header, bytes: &self.input[start..end] }))
    }

    fn take_frame(&mut self) {
        if let Ok(Some((_, end))) = self.next() {
            self.taken = end;
        }
    }

    fn send(&mut self, mut packet: Slices<'_>) -> io::Result<bool> {
        if !packet.take_front(&mut [0; HEADER]) || !(MIN_FRAME..=MAX_FRAME).contains(&packet.len()) {
            return Ok(true);
        }
        let room = self.output.add(packet.len());
        packet.read(room);
        if self.output.len() >= BATCH { self.flush() } else { Ok(true) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while let Some(bytes) = self.output.next() {
            match self.socket.write(bytes) {
                Ok(count) => self.output.take(count),
                Err(error) => {
                    if !not_now(error)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// False for an error that says "not now", true for one that says "again".
fn not_now(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        io::ErrorKind::Interrupted => Ok(true),
        _ => Err(error),
    }
}

//! The frames between the lab and its agent inside the host.
//!
//! One byte stream (a virtio-serial port) carries many commands at once. Each frame is a header of nine bytes,
//! little endian: payload length (u32), stream (u32), kind (u8), and then the payload. The lab numbers the
//! streams; stream 0 belongs to the agent itself.

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Name of the virtio-serial port that both ends open.
pub const PORT_NAME: &str = "colinux.lab";
/// Largest payload of one frame, in bytes; longer data is sent as several frames.
pub const MAX_PAYLOAD: usize = 64 * 1024;
const HEADER: usize = 9;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent to lab: the host is up; payload is the kernel release.
    Hello = 1,
    /// Lab to agent: start a command; payload is a [`Spawn`] in JSON.
    Spawn = 2,
    /// Lab to agent: bytes for the command's standard input; an empty payload ends it.
    Stdin = 3,
    /// Lab to agent: send the signal whose number is the one-byte payload.
    Signal = 4,
    /// Lab to agent: the terminal has a new size; payload is rows and columns (u16 each).
    Resize = 5,
    /// Agent to lab: bytes of standard output.
    Stdout = 6,
    /// Agent to lab: bytes of standard error.
    Stderr = 7,
    /// Agent to lab: the command ended; payload is the status (i32), 128+n for signal n.
    Exit = 8,
    /// Agent to lab: the command could not be started; payload says why.
    Failed = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Hello, Spawn, Stdin, Signal, Resize, Stdout, Stderr, Exit, Failed]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// A command to start in the host, as root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, added to the agent's own.
    pub env: Vec<(String, String)>,
    /// Working directory; `/root` when empty.
    pub cwd: String,
    /// Rows and columns of a terminal to run it in; none means pipes, with stdout and stderr apart.
    pub tty: Option<(u16, u16)>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The command that it belongs to.
    pub stream: u32,
    /// What it says.
    pub kind: Kind,
    /// The bytes after the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of `kind` for `stream`.
    pub fn new(stream: u32, kind: Kind, payload: impl Into<Vec<u8>>) -> Self {
        Self { stream, kind, payload: payload.into() }
    }

    /// Writes the frame with one call, so that frames of several threads behind one lock do not mix.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.stream.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.payload);
        out.write_all(&bytes)
    }

    /// Reads the next frame. An end of the stream between frames is `UnexpectedEof` too: neither side ends it
    /// in good order, the host is simply gone.
    pub fn read_from(input: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        let mut stream = [0; 4];
        let mut kind = [0; 1];
        input.read_exact(&mut length)?;
        input.read_exact(&mut stream)?;
        input.read_exact(&mut kind)?;
        let length = u32::from_le_bytes(length) as usize;
        let kind = Kind::from_byte(kind[0]).filter(|_| length <= MAX_PAYLOAD);
        let kind =
            kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the frame is malformed"))?;
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Ok(Self { stream: u32::from_le_bytes(stream), kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let frames = [
            Frame::new(7, Kind::Stdout, *b"hello"),
            Frame::new(u32::MAX, Kind::Stdin, []),
            Frame::new(0, Kind::Exit, [1, 0, 0, 0]),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write_to(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        for frame in &frames {
            assert_eq!(Frame::read_from(&mut input).unwrap(), *frame);
        }
        assert_eq!(Frame::read_from(&mut input).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn unknown_kinds_and_huge_lengths_are_refused() {
        let unknown = [0, 0, 0, 0, 1, 0, 0, 0, 200];
        let huge = [0, 0, 0, 0xff, 1, 0, 0, 0, Kind::Stdout as u8];
        for bytes in [unknown, huge] {
            let error = Frame::read_from(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}

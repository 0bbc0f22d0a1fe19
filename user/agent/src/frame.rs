//! Frames: a kind (one byte), the payload's length (u32, little endian), the payload.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
};

/// Bytes of input that the host may have sent before the agent says that it has taken some.
pub const WINDOW: usize = 256 << 10;
/// Largest payload, in bytes: room for all arguments that a program can have (`ARG_MAX`).
const MAX_PAYLOAD: usize = 4 << 20;
const HEADER: usize = 5;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host: what it wants, a [`crate::Request`] in JSON.
    Start = 1,
    /// Host: bytes for the command's standard input, or of an archive; none end it.
    Input = 2,
    /// Host: send the signal whose number (u32) this is.
    Signal = 3,
    /// Host: rows and columns (u16 each) of the terminal.
    Resize = 4,
    /// Agent: the request can be served.
    Ready = 5,
    /// Agent: standard output, or an archive.
    Output = 6,
    /// Agent: standard error.
    Errors = 7,
    /// Agent: number of bytes (u32) of input that are taken.
    Taken = 8,
    /// Agent: the end; the status (u32), 128 + n for signal n.
    Exit = 9,
    /// Agent: the end; why it cannot be done.
    Failed = 10,
    /// Agent: a program has connected to what is offered; its number (u32).
    Caller = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Start, Input, Signal, Resize, Ready, Output, Errors, Taken, Exit, Failed, Caller]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads a frame; none at the end of the connection.
    ///
    /// # Errors
    /// The connection broke, or what comes is no frame.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let Ok(()) = input.read_exact(&mut header[..1]) else { return Ok(None) };
        input.read_exact(&mut header[1..])?;
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        let kind = Kind::from_byte(kind).filter(|_| length <= MAX_PAYLOAD);
        let kind = kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no frame"))?;
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Ok(Some(Self { kind, payload }))
    }

    /// The number that the payload is.
    pub fn number(&self) -> Option<u32> {
        self.payload.as_slice().try_into().ok().map(u32::from_le_bytes)
    }

    /// The text that the payload is; bytes that are none are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// The sending side of a connection, for several threads.
#[derive(Debug)]
pub struct Outlet(Mutex<File>);

impl Outlet {
    pub(crate) fn new(stream: File) -> Self {
        Self(Mutex::new(stream))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection broke, or the payload is too long.
    pub fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the arguments are too long"));
        }
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.push(kind as u8);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }

    /// Sends a frame with a number.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_number(&self, kind: Kind, number: u32) -> io::Result<()> {
        self.send(kind, &number.to_le_bytes())
    }

    /// Ends the connection in both directions.
    pub fn close(&self) {
        // One that broke already is closed.
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::net::shutdown(&*stream, rustix::net::Shutdown::Both);
    }
}

//! A connection to a VM.

use crate::{ControlError, Reply, Request};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::sockopt::socket_peercred,
    process::{PidfdFlags, pidfd_open},
};
use serde::Serialize;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

/// Longest line of the protocol, in bytes.
pub const MAX_LINE: usize = 128 << 10;

/// Reads a line without its end; none at the end of the connection. Nothing behind the line is taken, because raw bytes may follow.
///
/// # Errors
/// The connection broke, or the line is longer than [`MAX_LINE`].
pub fn read_line(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? != 0 {
        if byte == *b"\n" {
            return String::from_utf8(line).map(Some).map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if line.len() == MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(byte[0]);
    }
    if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes `value` as a line.
///
/// # Errors
/// The connection broke.
pub fn write_line(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The VM refuses, or has ended.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ControlError> {
        write_line(&mut self.0, request)?;
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let line = read_line(&mut self.0)?.ok_or_else(end)?;
        match serde_json::from_str(&line) {
            Ok(Reply::Error { message }) => Err(ControlError::Refused(message)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(ControlError::Protocol(error.to_string())),
        }
    }

    /// Asks for the VM's end and waits until its process has ended. The connection is closed before: the host has the VM's memory and files back only later.
    ///
    /// # Errors
    /// The VM refuses, or the connection broke.
    pub fn end(mut self, request: &Request) -> Result<(), ControlError> {
        // By a file, as its number may soon be another's.
        let process = socket_peercred(&self.0)
            .and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()))
            .map_err(io::Error::from)?;
        self.ask(request)?;
        loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// The raw stream, after [`Request::Attach`].
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end() {
        let mut bytes = &b"one\ntwo"[..];
        assert_eq!(read_line(&mut bytes).unwrap().unwrap(), "one");
        assert_eq!(bytes, b"two");
        assert!(read_line(&mut bytes).is_err());
        assert!(read_line(&mut &b""[..]).unwrap().is_none());
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
        assert!(read_line(&mut &vec![b'x'; MAX_LINE + 2][..]).is_err());
    }

    #[test]
    fn a_request_is_answered() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            assert_eq!(read_line(&mut server).unwrap().unwrap(), r#"{"do":"status"}"#);
            write_line(&mut server, &Reply::Error { message: "no".into() }).unwrap();
            assert!(read_line(&mut server).unwrap().is_some());
        });
        let mut client = Connection::new(client);
        assert!(matches!(client.ask(&Request::Status), Err(ControlError::Refused(why)) if why == "no"));
        assert!(matches!(client.ask(&Request::Kill), Err(ControlError::Broken(_))));
        thread.join().unwrap();
    }
}

//! A connection to a VM.

use crate::{ControlError, Ending, Reply, Request};
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

/// Longest request, in bytes.
pub const MAX_REQUEST: usize = 128 << 10;
/// Bytes of a console that are kept, and sent as an answer.
pub const MAX_KEPT: usize = 128 << 10;
/// Most bytes of JSON for one of those: `\u001b`.
const ESCAPED: usize = 6;
/// Longest answer, in bytes: that of [`Request::Logs`], with room for the words around it.
const MAX_REPLY: usize = ESCAPED * MAX_KEPT + (4 << 10);

/// Reads a line of at most `most` bytes, without its end; none at the end of the connection. Nothing behind the line is taken, because raw bytes may follow.
///
/// # Errors
/// The connection broke, or the line is longer.
pub fn read_line(stream: &mut impl Read, most: usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? != 0 {
        if byte == *b"\n" {
            return String::from_utf8(line).map(Some).map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if line.len() == most {
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
        match self.reply()?.ok_or_else(end)? {
            Reply::Error { message } => Err(ControlError::Refused(message)),
            reply => Ok(reply),
        }
    }

    /// The next answer; none at the end of the connection.
    fn reply(&mut self) -> Result<Option<Reply>, ControlError> {
        let parse = |line: String| {
            serde_json::from_str(&line).map_err(|error| ControlError::Protocol(error.to_string()))
        };
        read_line(&mut self.0, MAX_REPLY)?.map(parse).transpose()
    }

    /// Asks for the VM's end and waits until its process has ended. The connection is closed before: the host has the VM's memory and files back only later.
    /// Returns how it ended; none if it did not say so, because its process was killed, or is of an earlier version.
    ///
    /// # Errors
    /// The VM refuses, or the connection broke.
    pub fn end(mut self, request: &Request) -> Result<Option<Ending>, ControlError> {
        // By a file, as its number may soon be another's.
        let process = socket_peercred(&self.0)
            .and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()))
            .map_err(io::Error::from)?;
        self.ask(request)?;
        let how = self.last_words();
        loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
                Ok(_) => return Ok(how),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Waits until the VM says how it has ended, or has nothing more to say.
    fn last_words(&mut self) -> Option<Ending> {
        match self.reply() {
            Ok(Some(Reply::Ended { how })) => Some(how),
            _ => None,
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
        let read_line = |bytes: &mut &[u8]| read_line(bytes, 9);
        assert_eq!(read_line(&mut bytes).unwrap().unwrap(), "one");
        assert_eq!(bytes, b"two");
        assert!(read_line(&mut bytes).is_err());
        assert!(read_line(&mut &b""[..]).unwrap().is_none());
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
        assert!(read_line(&mut &b"123456789\n"[..]).is_ok());
        assert!(read_line(&mut &b"1234567890\n"[..]).is_err());
    }

    #[test]
    fn all_that_a_console_keeps_is_an_answer() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let text = "\u{1b}".repeat(MAX_KEPT);
        let reply = Reply::Output { text };
        let sent = reply.clone();
        let thread = std::thread::spawn(move || {
            read_line(&mut server, MAX_REQUEST).unwrap();
            write_line(&mut server, &sent)
        });
        assert!(Connection::new(client).ask(&Request::Logs { console: 0 }).unwrap() == reply);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_request_is_answered() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            assert_eq!(read_line(&mut server, MAX_REQUEST).unwrap().unwrap(), r#"{"do":"status"}"#);
            write_line(&mut server, &Reply::Error { message: "no".into() }).unwrap();
            assert!(read_line(&mut server, MAX_REQUEST).unwrap().is_some());
        });
        let mut client = Connection::new(client);
        assert!(matches!(client.ask(&Request::Status), Err(ControlError::Refused(why)) if why == "no"));
        assert!(matches!(client.ask(&Request::Kill), Err(ControlError::Broken(_))));
        thread.join().unwrap();
    }

    #[test]
    fn whoever_asks_for_the_end_learns_how_it_was() {
        for (last, how) in
            [(Some(Reply::Ended { how: Ending::Stopped }), Some(Ending::Stopped)), (None, None)]
        {
            let (client, mut server) = UnixStream::pair().unwrap();
            let vm = std::thread::spawn(move || {
                read_line(&mut server, MAX_REQUEST).unwrap();
                write_line(&mut server, &Reply::Done).unwrap();
                last.iter().for_each(|last| write_line(&mut server, last).unwrap());
            });
            let mut client = Connection::new(client);
            client.ask(&Request::Stop).unwrap();
            assert_eq!(client.last_words(), how);
            vm.join().unwrap();
        }
    }
}

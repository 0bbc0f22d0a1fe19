//! The agent: one thread for each connection.

use crate::{
    Frame, Kind, Outlet, Request, TOKEN_LEN, Token, WINDOW, archive, offer, process, socket::Listener,
};
use rustix::{
    net::sockopt::{Timeout, set_socket_timeout},
    process::{Resource, getrlimit},
};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Most connections at a time.
const MAX_SESSIONS: usize = 256;
/// Descriptors that a connection may take while it starts a command, and those of the agent itself.
const SESSION_DESCRIPTORS: u64 = 12;
const OWN_DESCRIPTORS: u64 = 16;
/// Before the agent tries again to take a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for the token.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of output that go into a frame.
const PIECE: usize = 32 << 10;

/// Serves the host, as long as the guest lives.
///
/// # Errors
/// The guest's kernel has no vsock, or another program has the agent's port.
pub fn serve(token: Token) -> io::Result<()> {
    let listener = Listener::new()?;
    let sessions = Arc::new(AtomicUsize::new(0));
    let most = most_sessions(getrlimit(Resource::Nofile).current);
    loop {
        let Ok(stream) = listener.accept() else {
            // As when descriptors or memory are used up: some will be given back.
            thread::sleep(PAUSE);
            continue;
        };
        if sessions.fetch_add(1, Ordering::Relaxed) >= most {
            sessions.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let counted = Arc::clone(&sessions);
        let work = move || {
            // A connection that broke has nobody to be told.
            let _ = converse(stream, token);
            counted.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().spawn(work).is_err() {
            sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Connections that there are descriptors for.
fn most_sessions(descriptors: Option<u64>) -> usize {
    let fit = descriptors.unwrap_or(u64::MAX).saturating_sub(OWN_DESCRIPTORS) / SESSION_DESCRIPTORS;
    usize::try_from(fit).unwrap_or(MAX_SESSIONS).clamp(1, MAX_SESSIONS)
}

/// Serves one connection.
pub(crate) fn converse(mut stream: File, token: Token) -> io::Result<()> {
    let outlet = Arc::new(Outlet::new(stream.try_clone()?));
    set_socket_timeout(&stream, Timeout::Recv, Some(PATIENCE))?;
    let mut proof = [0; TOKEN_LEN];
    stream.read_exact(&mut proof)?;
    if !token.is(&proof) {
        return outlet.send(Kind::Failed, b"the token is not that of this guest");
    }
    set_socket_timeout(&stream, Timeout::Recv, None)?;
    let start = Frame::read(&mut stream)?.filter(|frame| frame.kind == Kind::Start);
    let request = start.and_then(|frame| serde_json::from_slice(&frame.payload).ok());
    let result = match request {
        Some(Request::Exec { argv, env, terminal }) => {
            return process::run(stream, &outlet, &process::Order { argv, env, terminal });
        }
        Some(Request::Get { path }) => get(Path::new(&in_home(&path, process::home())), &outlet),
        Some(Request::Offer(offer)) => {
            return offer::serve(stream, &outlet, &offer, &offer::Place::of_guest())
                .or_else(|error| outlet.send(Kind::Failed, error.to_string().as_bytes()));
        }
        Some(Request::Take { number }) => match offer::take(stream, &outlet, number) {
            Ok(()) => return Ok(()),
            Err(error) => Err(error),
        },
        Some(Request::Put { path, name }) => put(&in_home(&path, process::home()), &name, stream, &outlet),
        None => Err(io::Error::other("this is no request; is the agent of another version of colinux?")),
    };
    match result {
        Ok(()) => outlet.send_number(Kind::Exit, 0),
        Err(error) => outlet.send(Kind::Failed, error.to_string().as_bytes()),
    }
}

/// A path that does not begin at the root begins in `home`; none is `home` itself.
fn in_home(path: &str, home: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", home.trim_end_matches('/')) }
}

fn get(path: &Path, outlet: &Outlet) -> io::Result<()> {
    let source = archive::Source::open(path)?;
    outlet.send(Kind::Ready, &[])?;
    let mut output = BufWriter::with_capacity(PIECE, Output(outlet));
    source.send(&mut output, &mut |message| {
        // The connection's end ends the archive, too.
        let _ = outlet.send(Kind::Errors, format!("{message}\n").as_bytes());
    })?;
    output.flush()
}

fn put(path: &str, name: &str, stream: File, outlet: &Outlet) -> io::Result<()> {
    let target = archive::target(path, name)?;
    outlet.send(Kind::Ready, &[])?;
    let mut input = Input { stream, outlet, rest: io::Cursor::default(), over: false };
    let received = archive::receive(&mut input, &target);
    // What follows the archive's end is padding, and the sender wants to be rid of it.
    if received.is_ok() {
        io::copy(&mut input, &mut io::sink())?;
    }
    received
}

/// Output of the agent itself.
struct Output<'a>(&'a Outlet);

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE);
        self.0.send(Kind::Output, &bytes[..count]).map(|()| count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host's input, up to its end.
struct Input<'a> {
    stream: File,
    outlet: &'a Outlet,
    rest: io::Cursor<Vec<u8>>,
    over: bool,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.rest.read(buffer)?;
            if count > 0 || self.over || buffer.is_empty() {
                return Ok(count);
            }
            let frame = Frame::read(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.kind == Kind::Input {
                self.outlet.send_number(Kind::Taken, frame.payload.len().min(WINDOW) as u32)?;
                self.over = frame.payload.is_empty();
                self.rest = io::Cursor::new(frame.payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_sessions_than_descriptors() {
        for (descriptors, most) in [(Some(1024), 84), (Some(1 << 20), 256), (None, 256), (Some(3), 1)] {
            assert_eq!(most_sessions(descriptors), most);
        }
    }

    #[test]
    fn paths_begin_at_the_root_or_in_the_home() {
        for (path, home, whole) in [
            ("/srv/", "/root", "/srv/"),
            ("a/b", "/root", "/root/a/b"),
            ("a/", "/", "/a/"),
            ("", "/root", "/root/"),
        ] {
            assert_eq!(in_home(path, home), whole);
        }
    }
}

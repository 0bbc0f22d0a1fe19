//! The host's end of a connection.

use crate::{Frame, Kind, Outlet, Request, Token, WINDOW};
use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// A request that the agent has accepted.
#[derive(Debug)]
pub struct Link {
    stream: File,
    outlet: Arc<Outlet>,
}

impl Link {
    /// Sends `request` over `stream`, and waits until the agent begins with it.
    ///
    /// # Errors
    /// The agent refuses, or the connection broke.
    pub fn open(stream: File, token: Token, request: &Request) -> io::Result<Self> {
        let outlet = Arc::new(Outlet::new(stream.try_clone()?));
        let mut link = Self { stream, outlet };
        match link.ask(token, request) {
            // An agent that refuses the token hangs up at once. What it said before that is there to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
        match link.receive()? {
            Frame { kind: Kind::Ready, .. } => Ok(link),
            _ => Err(io::Error::other("the agent's answer makes no sense")),
        }
    }

    fn ask(&mut self, token: Token, request: &Request) -> io::Result<()> {
        self.stream.write_all(&token.0)?;
        self.outlet.send(Kind::Start, &serde_json::to_vec(request)?)
    }

    /// The sending side.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// The connection, when what follows is no frames.
    pub fn into_stream(self) -> File {
        self.stream
    }

    /// The agent's next frame; what it cannot do is an error.
    ///
    /// # Errors
    /// The agent says that it failed, or the connection broke.
    pub fn receive(&mut self) -> io::Result<Frame> {
        match Frame::read(&mut self.stream)? {
            Some(frame) if frame.kind == Kind::Failed => Err(io::Error::other(frame.text())),
            Some(frame) => Ok(frame),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the guest or its agent has ended")),
        }
    }
}

/// How many bytes of input may still be sent.
#[derive(Debug)]
pub struct Credit {
    left: Mutex<Option<usize>>,
    more: Condvar,
}

impl Default for Credit {
    fn default() -> Self {
        Self { left: Mutex::new(Some(WINDOW)), more: Condvar::new() }
    }
}

impl Credit {
    /// Waits until at least one byte may be sent, and takes up to `wanted`. None when no more may ever be.
    fn take(&self, wanted: usize) -> Option<usize> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left =
            self.more.wait_while(left, |left| *left == Some(0)).unwrap_or_else(PoisonError::into_inner);
        let left = left.as_mut()?;
        let count = wanted.min(*left);
        *left -= count;
        Some(count)
    }

    /// The agent has taken `count` bytes.
    pub fn give(&self, count: u32) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        // An agent that counts wrong gets no more than the window at a time.
        *left = left.map(|left| (left + count as usize).min(WINDOW));
        self.more.notify_all();
    }

    /// Nothing more is wanted.
    pub fn close(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.more.notify_all();
    }
}

/// Input for the agent, as it takes it.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub outlet: Arc<Outlet>,
    /// How much of it may.
    pub credit: Arc<Credit>,
}

impl Outgoing {
    /// Says that there is no more.
    ///
    /// # Errors
    /// The connection broke.
    pub fn end(&self) -> io::Result<()> {
        self.outlet.send(Kind::Input, &[])
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let count = self.credit.take(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        self.outlet.send(Kind::Input, &bytes[..count]).map(|()| count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Output of the agent up to its end; its messages go to standard error.
#[derive(Debug)]
pub struct Incoming {
    link: Link,
    rest: io::Cursor<Vec<u8>>,
    over: bool,
}

impl From<Link> for Incoming {
    fn from(link: Link) -> Self {
        Self { link, rest: io::Cursor::default(), over: false }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.rest.read(buffer)?;
            if count > 0 || self.over || buffer.is_empty() {
                return Ok(count);
            }
            let frame = self.link.receive()?;
            match frame.kind {
                Kind::Output => self.rest = io::Cursor::new(frame.payload),
                Kind::Errors => eprint!("{}", frame.text()),
                Kind::Exit => self.over = true,
                _ => {}
            }
        }
    }
}

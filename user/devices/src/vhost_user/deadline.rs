//! Ends a conversation in which the other side does not answer.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};
use tracing::warn;

/// Bytes of the thread's stack.
const STACK: usize = 64 << 10;

/// Until it is dropped, the socket is shut down when the time is over, so that whoever waits for an answer gets an end instead.
pub(super) struct Deadline {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Deadline {
    /// Gives `socket` the time `limit`.
    pub(super) fn new(socket: &UnixStream, limit: Duration) -> io::Result<Self> {
        let socket = socket.try_clone()?;
        let (over, end) = channel();
        let wait = move || {
            if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                warn!("a device's backend did not answer within {} s", limit.as_secs());
                // It may have ended by itself.
                let _ = socket.shutdown(Shutdown::Both);
            }
        };
        let thread =
            thread::Builder::new().name("backend deadline".to_owned()).stack_size(STACK).spawn(wait)?;
        Ok(Self { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        drop(self.over.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that watches a backend's answers panicked");
        }
    }
}

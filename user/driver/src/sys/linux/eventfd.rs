//! eventfd(2).

use rustix::event::{EventfdFlags, eventfd};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// A counter that wakes its reader. Writers add to it, a read takes the sum and sets it to zero.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter of zero. [`EventFd::wait`] blocks while it is zero.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Adds one.
    pub fn signal(&self) {
        // The only failure of a valid eventfd is an overflow of 2^64 - 2 unread signals.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it is not zero and takes it.
    ///
    /// # Errors
    /// A signal handler ran.
    pub fn wait(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }

    /// A second handle of the same counter.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_add_up() {
        let event = EventFd::new().unwrap();
        let clone = event.try_clone().unwrap();
        event.signal();
        clone.signal();
        assert_eq!(event.wait().unwrap(), 2);
    }
}

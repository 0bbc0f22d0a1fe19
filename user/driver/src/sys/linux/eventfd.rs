//! eventfd(2).

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
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
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Ok(_) => return Ok(u64::from_ne_bytes(count)),
                // Another process that has the counter too made it non-blocking.
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A second handle of the same counter.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// A second handle of the same counter, of the type that the crates of rust-vmm share.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn shared(&self) -> io::Result<vmm_sys_util::eventfd::EventFd> {
        let raw = self.0.try_clone()?.into_raw_fd();
        // SAFETY: a descriptor of an eventfd that nothing else owns any more.
        Ok(unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(raw) })
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
        event.shared().unwrap().write(3).unwrap();
        assert_eq!(event.wait().unwrap(), 5);
    }
}

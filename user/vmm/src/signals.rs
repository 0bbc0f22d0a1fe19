//! Signals as events. They are blocked in all threads, so that no vCPU is disturbed by them.

use crate::VmmError;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// Signals that come as events.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals that the daemon takes in this thread and those it will start.
    pub(crate) fn block() -> Result<Self, VmmError> {
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGWINCH];
        Self::of(&signals).map_err(VmmError::system("receive signals"))
    }

    /// Blocks `signals`.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next signal that has arrived.
    pub(crate) fn next(&self) -> Result<Option<Signal>, VmmError> {
        self.take().map_err(VmmError::system("receive signals"))
    }

    pub(crate) fn take(&self) -> io::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! Signals as events. They are blocked in all threads, so that no vCPU is disturbed by them.

use crate::VmmError;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that the daemon takes.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals in this thread and those it will start.
    pub(crate) fn block() -> Result<Self, VmmError> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(VmmError::system("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).map_err(VmmError::system("receive signals"))?))
    }

    /// The next signal that has arrived.
    pub(crate) fn next(&self) -> Result<Option<Signal>, VmmError> {
        let info = self.0.read_signal().map_err(VmmError::system("receive signals"))?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

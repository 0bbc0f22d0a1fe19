//! When the guest is to look at the host's clock.

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds between two looks: a drift of 100 ppm is 6 ms then.
const PERIOD: i64 = 60;

/// Becomes readable when the host's clock was set, and from time to time.
pub(crate) struct HostClock(OwnedFd);

impl HostClock {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let clock = Self(timerfd_create(TimerfdClockId::Realtime, flags)?);
        clock.arm()?;
        Ok(clock)
    }

    fn arm(&self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let times = Itimerspec { it_value: at(now + PERIOD), it_interval: at(PERIOD) };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &times)?;
        Ok(())
    }

    /// Takes what there was; true: the guest is to look.
    pub(crate) fn take(&self) -> io::Result<bool> {
        match rustix::io::read(&self.0, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            // The clock was set (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
            Err(Errno::CANCELED) => self.arm().map(|()| true),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for HostClock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_its_time() {
        let clock = HostClock::new().unwrap();
        assert!(!clock.take().unwrap());
    }
}

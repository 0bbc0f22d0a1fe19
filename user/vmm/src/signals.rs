//! Signals as events.
//!
//! They are caught and not blocked: a handler holds for all threads, whenever they were made, and is not handed on to programs that are started, which a mask would be.

use crate::VmmError;
use nix::sys::signal::Signal;
use rustix::{
    io::{Errno, read},
    pipe::{PipeFlags, pipe_with},
};
use signal_hook::{flag, low_level::pipe};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Signals that come as events.
const CAUGHT: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGWINCH];

/// Signals that have been caught.
pub struct Signals {
    /// Readable when there may be some. A pipe, because every thread may write(2).
    wake: OwnedFd,
    caught: [(Signal, Arc<AtomicBool>); CAUGHT.len()],
}

impl Signals {
    /// From now on none of them ends the process.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn catch() -> Result<Self, VmmError> {
        Self::try_catch().map_err(VmmError::system("receive signals"))
    }

    fn try_catch() -> io::Result<Self> {
        let (wake, bell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let caught = CAUGHT.map(|signal| (signal, Arc::default()));
        for (signal, flag) in &caught {
            flag::register(*signal as i32, Arc::clone(flag))?;
            pipe::register(*signal as i32, bell.try_clone()?)?;
        }
        Ok(Self { wake, caught })
    }

    /// Those that have arrived since the last call.
    pub(crate) fn take(&self) -> Vec<Signal> {
        // Whoever rings does so behind the flag: one that is missed now rings again.
        while let Ok(1..) | Err(Errno::INTR) = read(&self.wake, &mut [0; 64]) {}
        let arrived = self.caught.iter().filter(|(_, flag)| flag.swap(false, Ordering::AcqRel));
        arrived.map(|(signal, _)| *signal).collect()
    }

    /// Somebody has asked for the end.
    pub(crate) fn end_is_wanted(&self) -> bool {
        self.take().iter().any(|signal| *signal != Signal::SIGWINCH)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::signal::{SigSet, kill},
        unistd::getpid,
    };
    use rustix::event::{PollFd, PollFlags, poll};
    use std::{process::Command, sync::mpsc::channel, thread};

    #[test]
    fn a_signal_ends_no_thread_and_is_not_kept_from_programs() {
        // As a guard or a child's log would be, it is older than the handlers, and takes the signal.
        let (begin, begun) = channel::<()>();
        let older = thread::spawn(move || begun.recv());
        let signals = Signals::catch().unwrap();
        SigSet::from(Signal::SIGTERM).thread_block().unwrap();
        kill(getpid(), Signal::SIGTERM).unwrap();
        poll(&mut [PollFd::new(&signals, PollFlags::IN)], None).unwrap();
        assert!(signals.end_is_wanted() && !signals.end_is_wanted());
        begin.send(()).unwrap();
        older.join().unwrap().unwrap();
        SigSet::from(Signal::SIGTERM).thread_unblock().unwrap();
        kill(getpid(), Signal::SIGWINCH).unwrap();
        assert!(!signals.end_is_wanted());
        let program = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
        assert_eq!(String::from_utf8(program.stdout).unwrap(), "SigBlk:\t0000000000000000\n");
    }
}

//! What a signal does to a program that has made the terminal raw.

use colinux_vmm::give_back;
use nix::sys::signal::{SigSet, Signal, raise};
use std::{io, process::exit, thread};

/// Signals that end a program.
const ENDS: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// What shells say of a program that a signal has ended, without the signal's number.
const BY_SIGNAL: i32 = 128;

/// Hands those signals, and changes of the terminal's size, to `take`, on a thread of its own. They are blocked in this thread and those it will start.
///
/// # Errors
/// There are too many threads.
pub fn watch(mut take: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let set: SigSet = ENDS.into_iter().chain([Signal::SIGWINCH]).collect();
    set.thread_block()?;
    let pass_on = move || {
        while let Ok(signal) = set.wait() {
            take(signal);
        }
    };
    thread::Builder::new().spawn(pass_on).map(drop)
}

/// Ends the program as `signal` does, with the terminal as it was.
pub fn end_by(signal: Signal) -> ! {
    give_back();
    // Where it does not end the program, the status says the same.
    let _ = SigSet::from(signal).thread_unblock().and_then(|()| raise(signal));
    exit(BY_SIGNAL + signal as i32)
}

//! The end of a VM one of whose threads does what it must not.

use crate::{VmmError, terminal::give_back};
use colinux_driver::{ForbiddenCall, ForbiddenCalls};
use std::{fs, thread};
use syscalls::Sysno;
use tracing::warn;

/// Bytes of the thread's stack.
const STACK: usize = 64 << 10;

/// From now on, a thread that is shut in and makes a system call that is none of its work stops, and `end` is told why. The terminal is as it was before the guest;
/// `end` ends the process, for what such a thread has done before is not known.
///
/// # Errors
/// The process has too many files or threads.
pub fn guard(end: impl FnOnce(&str) + Send + 'static) -> Result<(), VmmError> {
    let mut calls = ForbiddenCalls::new().map_err(VmmError::system("watch over threads"))?;
    let watch = move || match calls.wait() {
        Ok(call) => {
            give_back();
            end(&describe(call));
        }
        Err(error) => warn!("nobody watches over threads: {error}"),
    };
    let thread = thread::Builder::new().name("guard".to_owned()).stack_size(STACK).spawn(watch);
    thread.map(drop).map_err(VmmError::system("start a thread"))
}

fn describe(call: ForbiddenCall) -> String {
    if call.number < 0 {
        return "somebody sent it SIGSYS, so the guest was stopped as if its power were cut".to_owned();
    }
    let name = fs::read_to_string(format!("/proc/self/task/{}/comm", call.thread)).unwrap_or_default();
    let known = usize::try_from(call.number).ok().and_then(Sysno::new);
    let made = known.map_or_else(|| format!("number {}", call.number), |call| call.to_string());
    format!(
        "the thread `{}` made the system call {made}, which is none of its work: a guest has broken out of its device, or this is a bug of colinux. \
         The guest was stopped as if its power were cut; report this, and do not start it again before you know why",
        name.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use colinux_devices::{Work, confine};
    use std::{os::unix::net::UnixStream, sync::mpsc::channel};

    #[test]
    fn a_call_that_is_none_of_its_work_stops_a_thread_and_is_named() {
        let (sender, told) = channel();
        guard(move |why| sender.send(why.to_owned()).unwrap()).unwrap();
        let (went_on, seen) = channel();
        let breaks_out = move || {
            confine(Work::Disk).unwrap();
            let sockets = UnixStream::pair();
            went_on.send(sockets.is_ok()).unwrap();
        };
        // It never ends.
        drop(thread::Builder::new().name("cobd7".to_owned()).spawn(breaks_out).unwrap());
        let why = told.recv().unwrap();
        assert!(why.starts_with("the thread `cobd7` made the system call socketpair, "), "{why}");
        assert!(seen.try_recv().is_err());
    }
}

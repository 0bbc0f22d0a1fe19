//! Programs that do not outlive this one.

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use std::{io, os::unix::process::CommandExt, process::Command};

/// Has what `command` starts killed when the thread that starts it ends, and so with this process, however that ends. For a moment there is a second process with this one's
/// memory, so this is for a process that has none of a guest.
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: two system calls, which the child of a process with threads may make; nothing is allocated, no lock is taken.
    unsafe { command.pre_exec(bind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, thread};

    #[test]
    fn a_program_does_not_outlive_who_started_it() {
        let start = || ends_with_us(Command::new("sleep").arg("1000")).spawn().unwrap();
        let mut child = thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}

//! Programs of the host that live as long as a guest (`execN=`).

use crate::config::{Config, Program};
use colinux_driver::ends_with_us;
use std::{
    io::stderr,
    process::{Child, Command, Stdio},
};
use tracing::warn;

/// Programs that run; they are ended when this is dropped.
pub struct Programs(Vec<Child>);

impl Programs {
    /// Starts the programs of `config`, which end with this thread at the latest. The guest runs without one that cannot be started.
    pub fn start(config: &Config, background: bool) -> Self {
        let start = |Program { path, arguments }: &Program| {
            let mut command = Command::new(path);
            command.args(arguments).stdin(Stdio::null());
            if background {
                // Its output is what somebody waits for to whom the guest's name is told.
                command.stdout(stderr());
            }
            let child = ends_with_us(&mut command).spawn();
            child.map_err(|error| warn!("cannot start {}: {error}; check its name", path.display())).ok()
        };
        Self(config.programs.values().filter_map(start).collect())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already is as it should be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
    use std::fs;

    #[test]
    fn programs_start_with_the_guest_and_end_with_it() {
        let words = ["kernel=/k", "exec0=/bin/sleep,1000", "exec1=/does/not/exist"].map(str::to_owned);
        let programs = Programs::start(&Config::from_words(&words).unwrap(), true);
        let [sleep] = &programs.0[..] else { panic!("one of two can be started") };
        let pid = Pid::from_raw(sleep.id().try_into().unwrap());
        assert_eq!(kill(pid, None), Ok(()));
        let [output, errors] = [1, 2].map(|file| fs::read_link(format!("/proc/{pid}/fd/{file}")).unwrap());
        assert_eq!(output, errors, "whoever reads the output would wait for the program's end");
        drop(programs);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }
}

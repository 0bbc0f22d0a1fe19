//! The process of a backend.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};
use tracing::{debug, warn};

/// Most bytes of a line that are kept.
const LINE: u64 = 400;
/// Bytes of the thread's stack.
const STACK: usize = 128 << 10;
/// What a process may take to end, whose connection has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// A child process whose last words are kept. It ends, if need be by force, when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    last_words: Arc<Mutex<String>>,
    /// Disconnected when all has been read.
    silent: Receiver<()>,
}

impl Process {
    /// Starts `command` and listens to its stderr; `name` is for messages.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> io::Result<Self> {
        // A signal to our process group, such as that of a terminal that is gone, is for us: the guest needs this until it has powered off.
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let (speaks, silent) = channel();
        let process = Self { name: name.to_owned(), child, last_words: Arc::default(), silent };
        if let Some(stderr) = stderr {
            let (words, name) = (Arc::clone(&process.last_words), name.to_owned());
            let listen = move || {
                listen(&name, stderr, &words);
                drop(speaks);
            };
            // Not joined: what the child has started may hold the pipe for longer.
            thread::Builder::new().name("backend log".to_owned()).stack_size(STACK).spawn(listen)?;
        }
        Ok(process)
    }

    /// Waits for its end, now that the connection has ended, and tells how it was.
    pub(super) fn obituary(&mut self) -> String {
        let end = self.end().map_or_else(|error| error.to_string(), describe);
        let _ = self.silent.recv_timeout(PATIENCE);
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = if words.is_empty() { String::new() } else { format!("; its last words: {words}") };
        format!("{} has ended ({end}){words}", self.name)
    }

    /// Waits, and uses force when it takes too long.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        if !self.ends_by_itself() {
            warn!("{} does not end and is killed", self.name);
            self.child.kill()?;
        }
        self.child.wait()
    }

    fn ends_by_itself(&self) -> bool {
        let Ok(process) = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()) else { return false };
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).is_ok_and(|count| count > 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            warn!("cannot end {}: {error}", self.name);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

fn listen(name: &str, stderr: impl Read, last_words: &Mutex<String>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.by_ref().take(LINE).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line).trim().escape_debug().to_string();
        if !text.is_empty() {
            debug!("{name}: {text}");
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpgid;

    #[test]
    fn signals_of_our_group_do_not_reach_it() {
        let process = Process::spawn("test", Command::new("sleep").arg("0.1")).unwrap();
        let pid = Pid::from_child(&process.child);
        assert_eq!(getpgid(Some(pid)).unwrap(), pid);
    }
}

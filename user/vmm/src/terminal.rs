//! The user's terminal.

use colinux_control::Size;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use std::{
    fmt::Display,
    io::{self, Write, stderr, stdin},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};
use tracing::warn;

/// How long a message waits for whoever reads it.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Size of the terminal at standard input, if it is one and knows it.
pub fn terminal_size() -> Option<Size> {
    let size = tcgetwinsize(stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal's settings before it became raw, for an end without a drop.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Gives the terminal back before the process ends at once.
pub fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = &*before {
        // What is said next is better read on a raw terminal than not at all.
        let _ = tcsetattr(stdin(), OptionalActions::Now, before);
    }
}

/// Keeps the terminal raw, so that each key goes to the guest; gives it back when dropped.
pub struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Makes standard input raw if it is a terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn new() -> io::Result<Self> {
        if !isatty(stdin()) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }

    /// A person sits at it.
    pub fn is_interactive(&self) -> bool {
        self.before.is_some()
    }

    /// Prints a message of the daemon between the guest's output.
    pub fn say(&self, message: &str) {
        let (start, end) = if self.is_interactive() { ("\r\n", "\r\n") } else { ("", "\n") };
        print(stderr(), &format!("{start}colinux: {message}{end}"));
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            // Not when all is printed: a terminal may take nothing for ever.
            && let Err(error) = tcsetattr(stdin(), OptionalActions::Now, before)
        {
            warn!("the terminal stays raw (`reset` cures it): {error}");
        }
    }
}

/// Prints a message of this program, if there is somebody who reads it. Nobody may: the end of a guest is not to depend on that.
pub fn tell(message: impl Display) {
    print(stderr(), &format!("colinux: {message}\n"));
}

fn print(mut to: impl Write + AsFd, text: &str) {
    if takes_bytes(&to) {
        // Whoever has gone does not miss it.
        let _ = to.write_all(text.as_bytes());
    }
}

/// Whether a write would not wait for long.
fn takes_bytes(file: &impl AsFd) -> bool {
    loop {
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        match poll(&mut fds, Some(&PATIENCE)) {
            Err(Errno::INTR) => {}
            // One that is gone has an error to say, but does not wait.
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, pipe},
        os::unix::net::UnixStream,
    };

    #[test]
    fn nobody_waits_for_a_reader_that_takes_nothing_or_has_gone() {
        let (mut reader, writer) = pipe().unwrap();
        print(&writer, "heard");
        let mut bytes = [0; 5];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"heard");
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while (&writer).write(&[0; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        print(&writer, "not heard");
        drop(reader);
        print(&writer, "gone");
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        print(&near, "gone");
    }
}

//! The user's terminal.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, stdin};
use tracing::warn;

/// Keeps the terminal raw, so that each key goes to the guest; gives it back when dropped.
pub(crate) struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Makes standard input raw if it is a terminal.
    pub(crate) fn new() -> io::Result<Self> {
        if !isatty(stdin()) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }

    /// A person sits at it.
    pub(crate) fn is_interactive(&self) -> bool {
        self.before.is_some()
    }

    /// Prints a message of the daemon between the guest's output.
    pub(crate) fn say(&self, message: &str) {
        let (start, end) = if self.is_interactive() { ("\r\n", "\r\n") } else { ("", "\n") };
        eprint!("{start}colinux: {message}{end}");
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, before)
        {
            warn!("the terminal stays raw (`reset` cures it): {error}");
        }
    }
}

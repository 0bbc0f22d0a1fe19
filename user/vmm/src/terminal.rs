//! The user's terminal.

use crate::signals::Signals;
use colinux_control::Size;
use nix::sys::signal::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::{
    io::{self, stdin},
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};
use tracing::warn;

/// Size of the terminal at standard input, if it is one and knows it.
pub fn terminal_size() -> Option<Size> {
    let size = tcgetwinsize(stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal's settings before it became raw, for an end without a drop.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Gives the terminal back before the process ends at once.
pub(crate) fn give_back() {
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

/// Changes of the terminal's size, as events.
pub struct Resizes(Signals);

impl Resizes {
    /// Begins to watch. The signal is blocked in this thread and those it will start.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        Signals::of(&[Signal::SIGWINCH]).map(Self)
    }

    /// Whether there was one since the last call.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take(&self) -> io::Result<bool> {
        let mut any = false;
        while self.0.take()?.is_some() {
            any = true;
        }
        Ok(any)
    }
}

impl AsFd for Resizes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

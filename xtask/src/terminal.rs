//! The user's terminal at a command in the lab's host.

use anyhow::{Context, Result};
use colinux_lab::proto::Spawn;
use colinux_lab::session::Event;
use colinux_lab::{Lab, Process};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stderr, stdin, stdout};
use std::thread;
use std::time::{Duration, Instant};

const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Joins a command's standard streams with ours until it ends; returns its status.
pub fn pass_through(mut process: Process) -> Result<i32> {
    let input = process.input();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // An unreadable input is like an ended one.
        while let Ok(count) = stdin().read(&mut buffer) {
            if input.send(&buffer[..count]).is_err() || count == 0 {
                return;
            }
        }
    });
    show(&mut process)
}

/// Runs a program on the user's terminal; without one, as `pass_through` does.
pub fn interact(lab: &Lab, program: &str, arguments: &[&str]) -> Result<i32> {
    let argv = [program].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    if !is_terminal() {
        return pass_through(lab.start(&Spawn { argv, ..Spawn::default() })?);
    }
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let process =
        lab.start(&Spawn { argv, env: vec![("TERM".into(), term)], tty: Some(size()), ..Spawn::default() })?;
    let _raw = Raw::enter()?;
    let input = process.input();
    thread::spawn(move || {
        let mut last = size();
        loop {
            thread::sleep(Duration::from_millis(250));
            let now = size();
            if now != last && input.resize(now.0, now.1).is_err() {
                return;
            }
            last = now;
        }
    });
    pass_through(process)
}

fn show(process: &mut Process) -> Result<i32> {
    loop {
        match process.next_event(Instant::now() + FOREVER)? {
            Some(Event::Stdout(bytes)) => print(&mut stdout(), &bytes)?,
            Some(Event::Stderr(bytes)) => print(&mut stderr(), &bytes)?,
            Some(Event::Exit(status)) => return Ok(status),
            Some(Event::Failed(_)) | None => {}
        }
    }
}

fn print(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).and_then(|()| to.flush()).context("writing the command's output")
}

/// Whether the user sits at a terminal.
pub fn is_terminal() -> bool {
    isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout())
}

/// Rows and columns of the user's terminal.
pub fn size() -> (u16, u16) {
    // A terminal that does not know its size says 0.
    let known = tcgetwinsize(rustix::stdio::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// The user's terminal in raw mode; dropped, it is as it was.
pub struct Raw(Termios);

impl Raw {
    /// Puts the terminal into raw mode.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.0);
    }
}

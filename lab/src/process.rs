//! Commands in the host.

use crate::progress::tail;
use crate::proto::{Frame, Kind, MAX_PAYLOAD};
use crate::session::{Event, Session};
use anyhow::{Context, Result, bail};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128+n when signal n ended it.
    pub status: i32,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        anyhow::ensure!(
            self.status == 0,
            "status {}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }
}

/// The way into a command: its standard input, its signals, its terminal.
#[derive(Clone)]
pub struct Input {
    session: Session,
    stream: u32,
}

impl Input {
    /// Writes to the command's standard input; nothing at all ends it.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return self.frame(Kind::Stdin, &[]);
        }
        bytes.chunks(MAX_PAYLOAD).try_for_each(|chunk| self.frame(Kind::Stdin, chunk))
    }

    /// Sends a signal to the command and its children.
    pub fn signal(&self, signal: u8) -> Result<()> {
        self.frame(Kind::Signal, &[signal])
    }

    /// Tells the command's terminal its new size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.frame(Kind::Resize, &[rows.to_le_bytes(), columns.to_le_bytes()].concat())
    }

    fn frame(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        self.session.send(Frame::new(self.stream, kind, payload))
    }
}

/// A command that runs in the host.
pub struct Process {
    input: Input,
    events: Receiver<Event>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<i32>,
    // How much of stdout has been given to an earlier wait.
    seen: usize,
}

impl Process {
    pub(crate) fn new(session: Session, stream: u32, events: Receiver<Event>) -> Self {
        Self {
            input: Input { session, stream },
            events,
            stdout: Vec::new(),
            stderr: Vec::new(),
            status: None,
            seen: 0,
        }
    }

    /// The way into the command, for use by another thread.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Sends `text` to the command.
    pub fn send(&self, text: &str) -> Result<()> {
        self.input.send(text.as_bytes())
    }

    /// Types a line.
    pub fn send_line(&self, line: &str) -> Result<()> {
        self.input.send(format!("{line}\n").as_bytes())
    }

    /// Sends a signal to the command and its children.
    pub fn signal(&self, signal: u8) -> Result<()> {
        self.input.signal(signal)
    }

    /// The next event, or none when `deadline` comes first.
    pub fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>> {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Failed(why)) => bail!("the command could not be started: {why}"),
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the host is gone"),
        }
    }

    /// Waits until `text` appears in what the command prints after the last such text; returns what came before it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let fresh = &self.stdout[self.seen..];
            if let Some(at) = fresh.windows(text.len()).position(|w| w == text.as_bytes()) {
                let before = String::from_utf8_lossy(&fresh[..at]).into_owned();
                self.seen += at + text.len();
                return Ok(before);
            }
            if let Some(status) = self.status {
                bail!(
                    "the command ended with status {status} before it printed {text:?}:\n{}",
                    self.transcript()
                );
            }
            if !self.absorb(deadline)? {
                bail!("{text:?} did not appear within {limit:?}:\n{}", self.words());
            }
        }
    }

    /// Waits for the command's end.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let status = self.wait_status(limit)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { status, stdout: text(&self.stdout), stderr: text(&self.stderr) })
    }

    /// Waits for the command's end and leaves its output here.
    pub fn wait_status(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            if !self.absorb(deadline)? {
                bail!("the command did not end within {limit:?}:\n{}", self.words());
            }
        }
    }

    /// Whether the command still runs, as far as its events tell by now.
    pub fn is_running(&mut self) -> Result<bool> {
        while self.status.is_none() && self.absorb(Instant::now())? {}
        Ok(self.status.is_none())
    }

    /// The bytes that the command has written to standard output so far.
    pub fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// All that the command has printed so far: standard output, then standard error.
    pub fn transcript(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.stdout).into_owned();
        if !self.stderr.is_empty() {
            text += "\n-- stderr --\n";
            text += &String::from_utf8_lossy(&self.stderr);
        }
        text
    }

    /// All that the command has printed, its last lines first: a report may be cut.
    fn words(&self) -> String {
        let text = self.transcript();
        format!("{}-- these were the last lines; all of them --\n{text}", tail(&text))
    }

    /// Takes one event in; false when `deadline` came first.
    fn absorb(&mut self, deadline: Instant) -> Result<bool> {
        let event = self.next_event(deadline).with_context(|| self.transcript())?;
        match event {
            None => return Ok(false),
            Some(Event::Stdout(bytes)) => self.stdout.extend(bytes),
            Some(Event::Stderr(bytes)) => self.stderr.extend(bytes),
            Some(Event::Exit(status)) => self.status = Some(status),
            Some(Event::Failed(_)) => {}
        }
        Ok(true)
    }
}

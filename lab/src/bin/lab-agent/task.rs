//! One command: its process, its streams, its end.

use crate::serve::Outlet;
use anyhow::{Context, Result};
use colinux_lab::proto::{Frame, Kind, Spawn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// A command that was started.
pub struct Task {
    pid: Pid,
    input: Sender<Vec<u8>>,
    terminal: Option<OwnedFd>,
    over: Arc<AtomicBool>,
}

impl Task {
    /// Starts the command that `payload` describes and the threads that serve its streams.
    pub fn start(stream: u32, payload: &[u8], outlet: &Outlet) -> Result<Self> {
        let spawn: Spawn = serde_json::from_slice(payload)?;
        let (child, terminal, readers, sink) = match spawn.tty {
            Some(size) => start_on_terminal(stream, &spawn, size, outlet)?,
            None => start_on_pipes(stream, &spawn, outlet)?,
        };
        let (input, feed) = channel();
        thread::spawn(move || pump_in(feed, sink));
        let over = Arc::new(AtomicBool::new(false));
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let (done, out) = (over.clone(), outlet.clone());
        thread::spawn(move || finish(stream, child, readers, &done, &out));
        Ok(Self { pid, input, terminal, over })
    }

    /// Whether the command has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Hands bytes to the command; none end its input.
    pub fn stdin(&mut self, bytes: Vec<u8>) {
        // The writer is gone once the command has closed its input: the bytes are then nobody's.
        let _ = self.input.send(bytes);
    }

    /// Sends the signal whose number is in `payload` to the command's process group.
    pub fn signal(&self, payload: &[u8]) {
        let signal = payload.first().and_then(|n| Signal::try_from(i32::from(*n)).ok());
        if let Some(signal) = signal.filter(|_| !self.is_over()) {
            // A command that has just been started may not have its group yet.
            let _ = kill(Pid::from_raw(-self.pid.as_raw()), signal).or_else(|_| kill(self.pid, signal));
        }
    }

    /// Sets the size of the command's terminal.
    pub fn resize(&self, payload: &[u8]) {
        if let (Some(terminal), [r0, r1, c0, c1]) = (&self.terminal, payload) {
            set_size(terminal, (u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*c0, *c1])));
        }
    }
}

type Started = (Child, Option<OwnedFd>, Vec<JoinHandle<()>>, Box<dyn Write + Send>);

fn command(spawn: &Spawn, prefix: &[&str]) -> Result<Command> {
    let mut words = prefix.iter().map(|s| (*s).to_owned()).chain(spawn.argv.iter().cloned());
    let mut command = Command::new(words.next().context("the command is empty")?);
    command.args(words).env_clear().envs([
        ("HOME", "/root"),
        ("USER", "root"),
        ("LANG", "C.UTF-8"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ]);
    command.envs(spawn.env.iter().map(|(k, v)| (k, v)));
    command.current_dir(if spawn.cwd.is_empty() { "/root" } else { &spawn.cwd });
    Ok(command)
}

fn start_on_pipes(stream: u32, spawn: &Spawn, outlet: &Outlet) -> Result<Started> {
    let mut command = command(spawn, &[])?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| spawn.argv.join(" "))?;
    let sink = child.stdin.take().context("no pipe for stdin")?;
    let stdout = child.stdout.take().context("no pipe for stdout")?;
    let stderr = child.stderr.take().context("no pipe for stderr")?;
    let readers =
        vec![pump_out(stream, Kind::Stdout, stdout, outlet), pump_out(stream, Kind::Stderr, stderr, outlet)];
    Ok((child, None, readers, Box::new(sink)))
}

/// `setsid --ctty` gives the command its controlling terminal, which is not possible here without unsafe code.
fn start_on_terminal(stream: u32, spawn: &Spawn, size: (u16, u16), outlet: &Outlet) -> Result<Started> {
    let pty = nix::pty::openpty(None, None)?;
    set_size(&pty.master, size);
    let mut command = command(spawn, &["setsid", "--ctty"])?;
    command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
    let child = command.spawn().with_context(|| spawn.argv.join(" "))?;
    let reader = pump_out(stream, Kind::Stdout, File::from(pty.master.try_clone()?), outlet);
    let sink = File::from(pty.master.try_clone()?);
    Ok((child, Some(pty.master), vec![reader], Box::new(sink)))
}

fn set_size(terminal: &OwnedFd, (rows, columns): (u16, u16)) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A size that the terminal refuses leaves it at the old one.
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

fn pump_in(feed: Receiver<Vec<u8>>, mut sink: Box<dyn Write + Send>) {
    for bytes in feed {
        if bytes.is_empty() || sink.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn pump_out(
    stream: u32,
    kind: Kind,
    mut from: impl Read + Send + 'static,
    outlet: &Outlet,
) -> JoinHandle<()> {
    let outlet = outlet.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => outlet.send(Frame::new(stream, kind, &buffer[..n])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A terminal whose last user is gone reads as EIO.
                Err(_) => return,
            }
        }
    })
}

/// Waits for the command and for its output, and reports the status last.
fn finish(stream: u32, mut child: Child, readers: Vec<JoinHandle<()>>, over: &AtomicBool, outlet: &Outlet) {
    let status = child.wait();
    over.store(true, Ordering::Release);
    for reader in readers {
        let _ = reader.join();
    }
    let code = status.map_or(255, status_code);
    outlet.send(Frame::new(stream, Kind::Exit, code.to_le_bytes()));
}

fn status_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

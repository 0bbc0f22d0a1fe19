//! `colinux exec`: a command in a guest.

use crate::{
    agent::{AgentError, ask},
    signals,
    status::Failure,
};
use colinux_agent::{Credit, Frame, Kind, Link, Outgoing, Outlet, Request};
use colinux_vmm::{RawTerminal, terminal_size};
use nix::sys::signal::Signal;
use std::{
    env,
    io::{self, IsTerminal, Read, Write, stderr, stdin, stdout},
    process::ExitCode,
    sync::Arc,
    thread,
};

/// Size of a terminal that knows none, in rows and columns.
const USUAL_SIZE: (u16, u16) = (24, 80);
/// As often must somebody ask for the end who does not want to wait for the command.
const PATIENCE: u32 = 3;
/// Status of who writes to nobody (POSIX shells: 128 + SIGPIPE), as that of a command here.
const UNREAD: u8 = 141;

/// Runs `argv` in the guest `name`; none is root's shell. With `terminal`, on a terminal like the one here.
pub fn exec(name: Option<&str>, wait: bool, terminal: bool, argv: Vec<String>) -> Result<ExitCode, Failure> {
    let terminal = terminal || argv.is_empty() && stdin().is_terminal();
    let env = env::var("TERM").ok().filter(|_| terminal).map(|term| ("TERM".to_owned(), term));
    let size = terminal.then(|| size().unwrap_or(USUAL_SIZE));
    let request = Request::Exec { argv, env: env.into_iter().collect(), terminal: size };
    let link = ask(name, wait, &request)?;
    pass_signals(Arc::clone(link.outlet())).map_err(AgentError::Refused)?;
    let raw = terminal.then(RawTerminal::new).transpose().map_err(AgentError::Refused)?;
    let status = pass_through(link).map_err(AgentError::Refused);
    drop(raw);
    Ok(ExitCode::from(status?))
}

fn size() -> Option<(u16, u16)> {
    terminal_size().map(|size| (size.rows, size.columns))
}

/// Connects this program's streams and signals with the command's, until it ends.
fn pass_through(mut link: Link) -> io::Result<u8> {
    let credit = Arc::new(Credit::default());
    let outgoing = Outgoing { outlet: Arc::clone(link.outlet()), credit: Arc::clone(&credit) };
    // It may wait for input when the command has ended; the end of this program ends it.
    thread::spawn(move || pass_input(outgoing));
    loop {
        let Frame { kind, payload } = link.receive()?;
        match kind {
            Kind::Output => match print(&mut stdout().lock(), &payload) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(UNREAD),
                printed => printed?,
            },
            // The command's output may still be read.
            Kind::Errors => drop(print(&mut stderr().lock(), &payload)),
            Kind::Taken => credit.give(Frame { kind, payload }.number().unwrap_or_default()),
            Kind::Exit => return Ok(Frame { kind, payload }.number().unwrap_or_default() as u8),
            _ => {}
        }
    }
}

fn print(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).and_then(|()| to.flush())
}

fn pass_input(mut outgoing: Outgoing) {
    let mut buffer = [0; 16 << 10];
    loop {
        let done = match stdin().read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // An unreadable input is like an ended one.
            Ok(0) | Err(_) => return drop(outgoing.end()),
            Ok(count) => outgoing.write_all(&buffer[..count]),
        };
        if done.is_err() {
            return;
        }
    }
}

/// Hands signals on, and the size of the terminal when it changes.
fn pass_signals(outlet: Arc<Outlet>) -> io::Result<()> {
    let mut asked = 0;
    signals::watch(move |signal| {
        // When the connection has broken, the reader ends the program.
        let _ = match (signal, size()) {
            (Signal::SIGWINCH, Some((rows, columns))) => {
                let [r, c] = [rows, columns].map(u16::to_le_bytes);
                outlet.send(Kind::Resize, &[r, c].concat())
            }
            (Signal::SIGWINCH, None) => Ok(()),
            (signal, _) => {
                asked += 1;
                if asked == PATIENCE {
                    signals::end_by(signal);
                }
                outlet.send_number(Kind::Signal, signal as u32)
            }
        };
    })
}

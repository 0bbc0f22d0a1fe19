//! `colinux attach`: the console of a VM that runs.

use crate::{
    signals,
    status::{Failure, Status},
};
use colinux_control::{Connection, ControlError, Place, Request};
use colinux_vmm::{KEYS_HELP, Keys, Order, RawTerminal, tell, terminal_size};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    io::{self, Read, Write, stdin, stdout},
    os::unix::net::UnixStream,
};

/// Why the console was left.
enum Left {
    /// The user detached.
    Detached,
    /// The VM has ended, or it sent us away.
    Closed,
    /// What it shows cannot be printed.
    Unseen(io::Error),
}

/// Shows console `console` until the user detaches or the VM ends.
pub fn attach(name: Option<&str>, console: u32, quiet: bool) -> Result<Status, Failure> {
    let place = Place::of_user()?;
    let (name, mut vm) = place.connect(name)?;
    let other = Other { place, name: name.clone(), console };
    let watcher = other.clone();
    signals::watch(move |signal| watcher.take_signal(signal)).map_err(ControlError::Broken)?;
    vm.ask(&Request::Attach { console, size: terminal_size(), quiet })?;
    let terminal = RawTerminal::new().map_err(ControlError::Broken)?;
    if terminal.is_interactive() {
        terminal.say(&format!("the console of `{name}`; Ctrl-] d leaves it"));
    }
    let mut viewer = Viewer { other, stream: vm.into_stream(), terminal, keys: Keys::default() };
    let left = viewer.run()?;
    let Viewer { terminal, .. } = viewer;
    match left {
        Left::Detached => terminal.say("detached; the guest goes on"),
        Left::Closed => terminal.say("the console is closed"),
        // Whoever reads it has seen enough.
        Left::Unseen(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Left::Unseen(error) => {
            drop(terminal);
            tell(format_args!("the console cannot be shown: {error}; the guest goes on"));
            return Ok(Status::Failure);
        }
    }
    Ok(Status::Ok)
}

/// How the VM is asked for something: by a connection of its own, as that of the console carries bytes.
#[derive(Clone)]
struct Other {
    place: Place,
    name: String,
    console: u32,
}

impl Other {
    fn ask(&self, request: &Request) -> Result<(), ControlError> {
        let (_, mut vm): (_, Connection) = self.place.connect(Some(&self.name))?;
        vm.ask(request).map(drop)
    }

    fn take_signal(&self, signal: Signal) {
        match (signal, terminal_size()) {
            (Signal::SIGWINCH, Some(size)) => {
                // A VM that does not answer has ended, which the console shows.
                let _ = self.ask(&Request::Resize { console: self.console, size });
            }
            (Signal::SIGWINCH, None) => {}
            (signal, _) => signals::end_by(signal),
        }
    }
}

struct Viewer {
    other: Other,
    stream: UnixStream,
    terminal: RawTerminal,
    keys: Keys,
}

impl Viewer {
    fn run(&mut self) -> Result<Left, ControlError> {
        let mut typing = true;
        loop {
            let [shown, typed] = self.wait(typing)?;
            if shown && let Some(left) = self.show()? {
                return Ok(left);
            }
            if typed {
                match self.type_in()? {
                    Typed::Some => {}
                    Typed::Detach => return Ok(Left::Detached),
                    // Whoever pipes something in wants to see what it does.
                    Typed::End => typing = false,
                }
            }
        }
    }

    fn wait(&self, typing: bool) -> io::Result<[bool; 2]> {
        let stdin = stdin();
        let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
        if typing {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok([ready(0), ready(1)])
    }

    /// Prints what the guest has written; says when that is over.
    fn show(&mut self) -> io::Result<Option<Left>> {
        let mut bytes = [0; 4096];
        let count = match self.stream.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            result => result?,
        };
        let mut stdout = stdout().lock();
        let printed = stdout.write_all(&bytes[..count]).and_then(|()| stdout.flush());
        Ok(printed.err().map(Left::Unseen).or((count == 0).then_some(Left::Closed)))
    }

    fn type_in(&mut self) -> Result<Typed, ControlError> {
        let mut buffer = [0; 1024];
        let count = match rustix::io::read(stdin(), &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(Typed::Some),
            result => result.map_err(io::Error::from)?,
        };
        if count == 0 {
            return Ok(Typed::End);
        }
        if !self.terminal.is_interactive() {
            self.stream.write_all(&buffer[..count])?;
            return Ok(Typed::Some);
        }
        let mut input = Vec::new();
        let orders = self.keys.type_in(&buffer[..count], &mut input);
        self.stream.write_all(&input)?;
        for order in orders {
            match order {
                Order::Detach => return Ok(Typed::Detach),
                Order::Help => self.terminal.say(KEYS_HELP),
                Order::PowerOff => self.other.ask(&Request::Stop)?,
                Order::Quit => self.other.ask(&Request::Kill)?,
            }
        }
        Ok(Typed::Some)
    }
}

enum Typed {
    Some,
    Detach,
    End,
}

//! `colinux attach`: the console of a VM that runs.

use crate::status::{Failure, Status};
use colinux_control::{Connection, ControlError, Place, Request};
use colinux_vmm::{KEYS_HELP, Keys, Order, RawTerminal, Resizes, terminal_size};
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
}

/// Shows console `console` until the user detaches or the VM ends.
pub fn attach(name: Option<&str>, console: u32, quiet: bool) -> Result<Status, Failure> {
    let place = Place::of_user()?;
    let (name, mut vm) = place.connect(name)?;
    let resizes = Resizes::new().map_err(ControlError::Broken)?;
    vm.ask(&Request::Attach { console, size: terminal_size(), quiet })?;
    let terminal = RawTerminal::new().map_err(ControlError::Broken)?;
    if terminal.is_interactive() {
        terminal.say(&format!("the console of `{name}`; Ctrl-] d leaves it"));
    }
    let mut viewer =
        Viewer { place, name, console, stream: vm.into_stream(), resizes, terminal, keys: Keys::default() };
    let left = viewer.run()?;
    viewer.terminal.say(match left {
        Left::Detached => "detached; the guest goes on",
        Left::Closed => "the console is closed",
    });
    Ok(Status::Ok)
}

struct Viewer {
    place: Place,
    name: String,
    console: u32,
    stream: UnixStream,
    resizes: Resizes,
    terminal: RawTerminal,
    keys: Keys,
}

impl Viewer {
    fn run(&mut self) -> Result<Left, ControlError> {
        let mut typing = true;
        loop {
            let [shown, typed, resized] = self.wait(typing)?;
            if resized && self.resizes.take()? {
                self.resize()?;
            }
            if shown && !self.show()? {
                return Ok(Left::Closed);
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

    fn wait(&self, typing: bool) -> io::Result<[bool; 3]> {
        let stdin = stdin();
        let mut fds =
            vec![PollFd::new(&self.stream, PollFlags::IN), PollFd::new(&self.resizes, PollFlags::IN)];
        if typing {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok([ready(0), ready(2), ready(1)])
    }

    /// Prints what the guest has written; false at the end.
    fn show(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let count = match self.stream.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            result => result?,
        };
        let mut stdout = stdout().lock();
        stdout.write_all(&bytes[..count]).and_then(|()| stdout.flush())?;
        Ok(count > 0)
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
                Order::PowerOff => self.ask(&Request::Stop)?,
                Order::Quit => self.ask(&Request::Kill)?,
            }
        }
        Ok(Typed::Some)
    }

    fn resize(&self) -> Result<(), ControlError> {
        let Some(size) = terminal_size() else { return Ok(()) };
        self.ask(&Request::Resize { console: self.console, size })
    }

    /// Asks over a connection of its own: this one carries the console.
    fn ask(&self, request: &Request) -> Result<(), ControlError> {
        let (_, mut vm): (_, Connection) = self.place.connect(Some(&self.name))?;
        vm.ask(request).map(drop)
    }
}

enum Typed {
    Some,
    Detach,
    End,
}

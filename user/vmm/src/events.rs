//! The event loop: signals, keys, orders from outside, and the ends of vCPUs.

use crate::{
    VmmError,
    clock::HostClock,
    console::{Console, RETRY},
    keys::{KEYS_HELP, Keys, Order},
    shared::Shared,
    signals::Signals,
    stop::{Step, Stop},
    terminal::{RawTerminal, terminal_size},
};
use colinux_abi::page::event;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    cell::Cell,
    io::stdin,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

/// vCPU that is told to power off, and of the clock.
const TOLD_VCPU: u32 = 0;
const INTERRUPT_KEY: u8 = 3;
const NO_DETACH: &str =
    "this terminal runs the guest; one that is started with `colinux start` lives without a terminal";

/// The event loop of one run.
pub(crate) struct Events<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) signals: &'a Signals,
    pub(crate) terminal: &'a RawTerminal,
    console: &'a Console,
    orders: &'a Receiver<Order>,
    clock: HostClock,
    keys: Keys,
    stdin_open: bool,
    /// The guest has had no room for all input.
    full: bool,
    /// Of the VM: it outlives a reboot.
    stop: &'a Cell<Stop>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        signals: &'a Signals,
        terminal: &'a RawTerminal,
        console: &'a Console,
        orders: &'a Receiver<Order>,
        stop: &'a Cell<Stop>,
    ) -> Result<Self, VmmError> {
        let clock = HostClock::new().map_err(VmmError::system("watch the clock"))?;
        let keys = Keys::default();
        let (stdin_open, full) = (true, false);
        Ok(Self { shared, signals, terminal, console, orders, clock, keys, stdin_open, full, stop })
    }

    /// Serves events until `threads` vCPU threads have ended; false if they do not end although they were stopped.
    pub(crate) fn run(&mut self, threads: usize) -> Result<bool, VmmError> {
        self.take_size()?;
        while self.shared.ended_threads() < threads {
            let [signal, woken, clock, typed] = self.wait()?;
            if woken {
                // A failed read of an eventfd only means that nobody has signalled it.
                let _ = self.shared.wake.wait();
                self.take_orders()?;
            }
            if signal {
                self.take_signals()?;
            }
            if clock {
                self.take_clock()?;
            }
            if typed {
                self.take_input()?;
            }
            if self.full {
                self.full = self.console.type_in(&[])?;
            }
            match self.of_stop(Stop::due) {
                Step::TimeIsUp => {
                    self.force()?;
                    self.terminal.say("the guest has not powered off in time");
                }
                Step::Tell => self.tell_guest()?,
                Step::GiveUp => return Ok(false),
                Step::Nothing | Step::Force => {}
            }
        }
        Ok(true)
    }

    /// The vCPUs have ended: waits until all output is printed; false if somebody does not want to wait for a terminal that takes nothing.
    pub(crate) fn wait_for_output(&mut self) -> Result<bool, VmmError> {
        (self.stdin_open, self.full) = (false, false);
        while !self.shared.output_ended() {
            let [signal, woken, clock, _] = self.wait()?;
            if woken {
                // As above.
                let _ = self.shared.wake.wait();
            }
            if clock {
                self.take_clock()?;
            }
            let impatient = |order| matches!(order, Order::PowerOff | Order::Quit);
            if signal && self.signals.end_is_wanted() || self.orders.try_iter().any(impatient) {
                self.force()?;
                return Ok(false);
            }
            if !matches!(self.of_stop(Stop::due), Step::Nothing | Step::Tell) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets the stop take a step now.
    fn of_stop<T>(&self, step: impl FnOnce(&mut Stop, Instant) -> T) -> T {
        let mut stop = self.stop.get();
        let taken = step(&mut stop, Instant::now());
        self.stop.set(stop);
        taken
    }

    /// Waits; returns which of signals, end of a thread, clock and input there are.
    fn wait(&self) -> Result<[bool; 4], VmmError> {
        let stdin = stdin();
        let mut fds = vec![
            PollFd::new(self.signals, PollFlags::IN),
            PollFd::new(&*self.shared.wake, PollFlags::IN),
            PollFd::new(&self.clock, PollFlags::IN),
        ];
        if self.stdin_open && !self.full {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let timeout = self.timeout().and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(VmmError::system("wait for events")(error)),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok([ready(0), ready(1), ready(2), ready(3)])
    }

    fn timeout(&self) -> Option<Duration> {
        let stop = self.stop.get().timeout(Instant::now());
        let retry = self.full.then_some(RETRY);
        stop.into_iter().chain(retry).min()
    }

    fn take_signals(&mut self) -> Result<(), VmmError> {
        for signal in self.signals.take() {
            match signal {
                Signal::SIGWINCH => self.take_size()?,
                Signal::SIGINT if self.terminal.is_interactive() => {
                    self.full = self.console.type_in(&[INTERRUPT_KEY])?;
                }
                _ => self.ask()?,
            }
        }
        Ok(())
    }

    fn take_clock(&self) -> Result<(), VmmError> {
        if self.clock.take().map_err(VmmError::system("watch the clock"))? {
            self.shared.vm.raise(TOLD_VCPU, event::CLOCK)?;
        }
        Ok(())
    }

    fn take_size(&self) -> Result<(), VmmError> {
        terminal_size().map_or(Ok(()), |size| self.console.resize(size))
    }

    fn take_orders(&mut self) -> Result<(), VmmError> {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order)?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), VmmError> {
        match order {
            Order::PowerOff => self.ask(),
            Order::Quit => self.force(),
            Order::Detach => {
                self.terminal.say(NO_DETACH);
                Ok(())
            }
            Order::Help => {
                self.terminal.say(KEYS_HELP);
                Ok(())
            }
        }
    }

    fn take_input(&mut self) -> Result<(), VmmError> {
        let mut buffer = [0; 1024];
        let count = match rustix::io::read(stdin(), &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(()),
            // A terminal that is gone; the guest goes on without input.
            Err(_) => 0,
        };
        if count == 0 {
            self.stdin_open = false;
        }
        let typed = &buffer[..count];
        if !self.terminal.is_interactive() {
            self.full = self.console.type_in(typed)?;
            return Ok(());
        }
        let mut input = Vec::new();
        let orders = self.keys.type_in(typed, &mut input);
        self.full = self.console.type_in(&input)?;
        orders.into_iter().try_for_each(|order| self.obey(order))
    }

    /// Asks the guest to power off; the second time there is no asking.
    fn ask(&mut self) -> Result<(), VmmError> {
        match self.of_stop(Stop::ask) {
            Step::Tell => {
                // Before it is said, which may take a moment.
                self.tell_guest()?;
                self.terminal.say("asking the guest to power off (once more: stop it at once)");
                Ok(())
            }
            Step::Force => self.force(),
            _ => Ok(()),
        }
    }

    fn tell_guest(&self) -> Result<(), VmmError> {
        Ok(self.shared.vm.raise(TOLD_VCPU, event::STOP)?)
    }

    fn force(&self) -> Result<(), VmmError> {
        self.of_stop(Stop::force);
        Ok(self.shared.vm.stop()?)
    }
}

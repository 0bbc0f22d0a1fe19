//! Console input: from standard input to the ring.

use crate::VmmError;
use colinux_abi::page::event;
use colinux_devices::ConsoleRings;
use colinux_driver::{GuestMemory, Vm};
use std::sync::Arc;

/// Begins an order to the daemon: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// vCPU that is told of input.
const CONSOLE_VCPU: u32 = 0;

/// What the user wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Ask the guest to power off.
    PowerOff,
    /// Stop at once.
    Quit,
    /// Say what there is.
    Help,
}

/// Separates orders from input.
#[derive(Default)]
pub(crate) struct Keys {
    escaped: bool,
}

impl Keys {
    /// Takes what was typed: what is for the guest goes to `input`, the orders are returned.
    pub(crate) fn type_in(&mut self, typed: &[u8], input: &mut Vec<u8>) -> Vec<Order> {
        let mut orders = Vec::new();
        for byte in typed {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'p') => orders.push(Order::PowerOff),
                (true, b'q') => orders.push(Order::Quit),
                (true, ESCAPE) | (false, _) => input.push(*byte),
                (true, _) => orders.push(Order::Help),
            }
        }
        orders
    }
}

/// The input side.
pub(crate) struct Input {
    rings: ConsoleRings,
    vm: Vm,
    /// What the guest has not had room for.
    backlog: Vec<u8>,
}

impl Input {
    pub(crate) fn new(memory: &Arc<GuestMemory>, window: u64, vm: &Vm) -> Self {
        Self { rings: ConsoleRings::new(Arc::clone(memory), window), vm: vm.clone(), backlog: Vec::new() }
    }

    /// Bytes wait for room; the guest does not tell when there is some.
    pub(crate) fn is_full(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Where to put input; [`Input::send`] follows.
    pub(crate) fn backlog(&mut self) -> &mut Vec<u8> {
        &mut self.backlog
    }

    /// Gives the guest what it has room for.
    pub(crate) fn send(&mut self) -> Result<(), VmmError> {
        let count = self.rings.put_input(&self.backlog)?;
        self.backlog.drain(..count);
        if count > 0 {
            self.vm.raise(CONSOLE_VCPU, event::CONSOLE)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_taken_out_of_the_input() {
        let mut keys = Keys::default();
        let mut input = Vec::new();
        assert_eq!(keys.type_in(b"ls\x1d", &mut input), []);
        assert_eq!(
            keys.type_in(b"q-\x1d\x1d\x1dx\x1dp.", &mut input),
            [Order::Quit, Order::Help, Order::PowerOff]
        );
        assert_eq!(input, b"ls-\x1d.");
    }
}

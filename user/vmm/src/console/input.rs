//! Console input: to the ring of the window.

use super::Keyboard;
use crate::VmmError;
use colinux_abi::page::event;
use colinux_control::Size;
use colinux_devices::ConsoleRings;
use colinux_driver::{GuestMemory, Vm};
use std::sync::Arc;

/// vCPU that is told of input.
const CONSOLE_VCPU: u32 = 0;

/// The input side of a guest that runs.
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
}

impl Keyboard for Input {
    fn push(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
    }

    // The guest tells only sometimes when it has room again.
    fn send(&mut self) -> Result<bool, VmmError> {
        let count = self.rings.put_input(&self.backlog)?;
        self.backlog.drain(..count);
        if count > 0 {
            self.vm.raise(CONSOLE_VCPU, event::CONSOLE)?;
        }
        Ok(!self.backlog.is_empty())
    }

    fn resize(&mut self, size: Size) -> Result<(), VmmError> {
        self.rings.set_size(size.rows, size.columns)?;
        Ok(self.vm.raise(CONSOLE_VCPU, event::CONSOLE)?)
    }
}

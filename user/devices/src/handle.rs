//! A device as the guest sees it, for what serves its queues.

use crate::{MemoryError, registers::Registers};
use colinux_driver::EventFd;
use std::sync::Arc;
use tracing::warn;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;

/// The status and the configuration space of a device, and the interrupt that goes with them.
#[derive(Clone)]
pub struct DeviceHandle {
    name: Arc<str>,
    registers: Registers,
    interrupt: Arc<EventFd>,
}

impl DeviceHandle {
    pub(crate) fn new(name: &str, registers: Registers, interrupt: Arc<EventFd>) -> Self {
        Self { name: name.into(), registers, interrupt }
    }

    /// The device's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device works no more until the guest resets it (virtio 1.2, 2.1.2).
    pub fn fail(&self, reason: &dyn std::fmt::Display) {
        warn!("{}: {reason}; the device stops until the guest resets it", self.name);
        let result = self.registers.update_device_status(|status| status | VIRTIO_CONFIG_S_NEEDS_RESET);
        if let Err(error) = result {
            warn!("{}: {error}", self.name);
        }
        self.interrupt.signal();
    }

    /// Changes `bytes` of the configuration space at `offset` and tells the guest.
    ///
    /// # Errors
    /// The page is not guest memory.
    pub fn change_config(&self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        self.registers.change_config(offset, bytes)?;
        self.interrupt.signal();
        Ok(())
    }
}

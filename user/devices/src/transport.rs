//! The register page's state machine (virtio 1.2, section 3).

use crate::{
    Activation, ActiveQueue, Activity, Bells, DeviceHandle, MemoryError, Negotiated, VirtioDevice,
    registers::{QueueSetup, Registers},
};
use colinux_driver::{EventFd, GuestMemory};
use std::{io, sync::Arc};
use tracing::warn;
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
        VIRTIO_F_VERSION_1,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Error as QueueError, Queue, QueueT};
use vm_memory::GuestAddress;

pub(crate) const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The event lines of a device.
pub struct Wiring {
    /// For each queue: signalled by the guest when it adds buffers.
    pub kicks: Vec<Arc<EventFd>>,
    /// For each queue: interrupts the guest.
    pub interrupts: Vec<Arc<EventFd>>,
    /// Interrupts the guest because of the configuration space or the status.
    pub config_interrupt: Arc<EventFd>,
}

impl Wiring {
    /// Lines for `queues` queues, not yet connected.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn new(queues: usize) -> io::Result<Self> {
        let lines = || (0..queues).map(|_| EventFd::new().map(Arc::new)).collect::<io::Result<Vec<_>>>();
        Ok(Self { kicks: lines()?, interrupts: lines()?, config_interrupt: Arc::new(EventFd::new()?) })
    }
}

/// A device behind its register page.
pub struct Transport {
    name: String,
    device: Box<dyn VirtioDevice>,
    registers: Registers,
    wiring: Wiring,
    bells: Arc<Bells>,
    activities: Vec<Box<dyn Activity>>,
    /// Status that was last acted upon.
    status: u32,
    /// The page is where the guest looks for it, and filled.
    has_page: bool,
}

impl Transport {
    /// A device whose page is at guest-physical address `page`; `name` is for messages.
    pub fn new(
        name: &str,
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        page: u64,
        wiring: Wiring,
    ) -> Self {
        let registers = Registers::new(memory, page);
        let (name, bells) = (name.to_owned(), Arc::default());
        Self { name, device, registers, wiring, bells, activities: Vec::new(), status: 0, has_page: false }
    }

    /// The device's event lines.
    pub fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    /// What to ring when the guest notifies a queue of a device that [`VirtioDevice::has_bells`].
    pub fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    /// Moves the page to guest-physical address `page`, after the guest has been laid out anew. The device must be stopped.
    pub fn relocate(&mut self, page: u64) {
        self.registers = Registers::new(Arc::clone(self.registers.memory()), page);
    }

    /// Fills the page, before the guest starts.
    ///
    /// # Errors
    /// The page is not guest memory.
    pub fn offer(&mut self) -> Result<(), MemoryError> {
        self.stop();
        self.registers.clear()?;
        self.describe()?;
        self.has_page = true;
        Ok(())
    }

    fn describe(&self) -> Result<(), MemoryError> {
        let sizes = self.device.queue_sizes();
        self.registers.describe(self.device.id(), self.offered(), &sizes, &self.device.config())
    }

    fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// Acts on the status that the guest has written. What is in the queues of a device that [`VirtioDevice::has_bells`] needs a
    /// [`Bells::ring_all`] after it.
    ///
    /// # Errors
    /// The page is not guest memory.
    pub fn status_written(&mut self) -> Result<(), MemoryError> {
        let status = self.registers.status()?;
        if status == 0 {
            return self.reset();
        }
        let mut answer = status & !VIRTIO_CONFIG_S_NEEDS_RESET;
        let features = self.registers.driver_features()?;
        if answer & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.accepts(features) {
            warn!("{}: the guest accepted features {features:#x} of {:#x}", self.name, self.offered());
            answer &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        let starts = answer & !self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        if starts && answer & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            answer |= VIRTIO_CONFIG_S_NEEDS_RESET;
        }
        self.status = answer;
        // The answer first: a worker may fail, and say so, as soon as it runs.
        self.registers.update_device_status(|old| answer | old & VIRTIO_CONFIG_S_NEEDS_RESET)?;
        if starts && answer & VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
            self.activate(features)?;
        }
        Ok(())
    }

    /// Lets the device look at the configuration space, which the guest has written.
    pub fn config_written(&mut self) {
        self.device.config_written(&self.registers.config());
    }

    fn accepts(&self, features: u64) -> bool {
        features & !self.offered() == 0 && features >> VIRTIO_F_VERSION_1 & 1 != 0
    }

    fn activate(&mut self, features: u64) -> Result<(), MemoryError> {
        // A guest may take DRIVER_OK back and say it again, without a reset.
        self.end();
        let negotiated = Negotiated { features, config: self.registers.config() };
        let sizes = self.device.queue_sizes();
        let mut queues = Vec::new();
        for (number, size_max) in sizes.iter().enumerate() {
            let setup = self.registers.queue(number)?;
            match self.queue(*size_max, setup, &negotiated) {
                Ok(queue) => queues.push(queue.and_then(|queue| self.wire(number, queue))),
                Err(error) => {
                    self.fail(&format_args!("queue {number}: {error}"));
                    return Ok(());
                }
            }
        }
        let (memory, handle) = (Arc::clone(self.registers.memory()), self.handle());
        let bells = Arc::clone(&self.bells);
        match self.device.activate(Activation { negotiated, memory, queues, handle, bells }) {
            Ok(activities) => {
                self.activities = activities;
            }
            Err(error) => self.fail(&error),
        }
        Ok(())
    }

    fn wire(&self, number: usize, queue: Queue) -> Option<ActiveQueue> {
        let (kick, interrupt) = (self.wiring.kicks.get(number)?, self.wiring.interrupts.get(number)?);
        Some(ActiveQueue { queue, kick: Arc::clone(kick), interrupt: Arc::clone(interrupt) })
    }

    fn handle(&self) -> DeviceHandle {
        DeviceHandle::new(&self.name, self.registers.clone(), Arc::clone(&self.wiring.config_interrupt))
    }

    /// A queue as the guest has set it up; none if it does not use it.
    fn queue(
        &self,
        size_max: u16,
        setup: QueueSetup,
        negotiated: &Negotiated,
    ) -> Result<Option<Queue>, QueueError> {
        if !setup.ready {
            return Ok(None);
        }
        let mut queue = Queue::new(size_max)?;
        queue.try_set_size(setup.size)?;
        queue.try_set_desc_table_address(GuestAddress(setup.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(setup.available))?;
        queue.try_set_used_ring_address(GuestAddress(setup.used))?;
        queue.set_event_idx(negotiated.has(VIRTIO_RING_F_EVENT_IDX));
        queue.set_ready(true);
        let memory: &GuestMemory = self.registers.memory();
        if queue.is_valid(memory) { Ok(Some(queue)) } else { Err(QueueError::FindMemoryRegion) }
    }

    /// The status stays: only a reset makes it whole.
    fn fail(&mut self, reason: &dyn std::fmt::Display) {
        self.end();
        self.handle().fail(reason);
    }

    fn reset(&mut self) -> Result<(), MemoryError> {
        self.end();
        self.status = 0;
        self.describe()?;
        self.registers.clear_interrupts()?;
        self.registers.update_device_status(|_| 0)
    }

    /// Brings `len` bytes of the configuration space from `offset` on to what the device has now, and tells the guest, if a driver knows the device.
    ///
    /// # Errors
    /// The page is not guest memory.
    pub fn refresh_config(&self, offset: usize, len: usize) -> Result<(), MemoryError> {
        let config = self.device.config();
        match config.get(offset..offset.saturating_add(len)) {
            Some(bytes) if self.status != 0 => self.handle().change_config(offset, bytes),
            Some(bytes) if self.has_page => self.registers.change_config(offset, bytes),
            _ => Ok(()),
        }
    }

    /// Ends all activity of the device, and takes its page back: what is there may be something else from now on.
    pub fn stop(&mut self) {
        self.end();
        self.status = 0;
        self.has_page = false;
    }

    /// Ends all activity.
    fn end(&mut self) {
        self.bells.clear();
        self.activities.clear();
    }

    /// Ends all activity and makes everything durable.
    ///
    /// # Errors
    /// Data of the guest may be lost.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stop();
        self.device.finish()
    }
}

#[cfg(test)]
mod tests;

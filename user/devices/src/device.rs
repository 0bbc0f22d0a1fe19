//! What a device model is.

use crate::{BadRequest, Bells, Buffers, ConfigSpace, DeviceHandle};
use colinux_driver::{EventFd, GuestMemory};
use std::{io, sync::Arc};
use virtio_queue::Queue;

/// What the driver in the guest has accepted.
#[derive(Clone)]
pub struct Negotiated {
    /// Feature bits, a subset of those offered.
    pub features: u64,
    /// The configuration space, which the guest may write.
    pub config: ConfigSpace,
}

impl Negotiated {
    /// Whether feature bit `bit` was accepted.
    pub fn has(&self, bit: u32) -> bool {
        self.features >> bit & 1 != 0
    }
}

/// A queue that the driver in the guest has set up.
pub struct ActiveQueue {
    /// Its rings, checked to be guest memory.
    pub queue: Queue,
    /// Signalled when the guest adds buffers.
    pub kick: Arc<EventFd>,
    /// Interrupts the guest when buffers have been used.
    pub interrupt: Arc<EventFd>,
}

/// What a driver that has just said DRIVER_OK gives to its device.
pub struct Activation {
    /// What it has accepted.
    pub negotiated: Negotiated,
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The queues by number; none where the driver does not use one.
    pub queues: Vec<Option<ActiveQueue>>,
    /// The device as the guest sees it.
    pub handle: DeviceHandle,
    /// What vCPUs ring, for a device that [`VirtioDevice::has_bells`].
    pub bells: Arc<Bells>,
}

/// Something that serves queues. Dropping it waits for the requests in progress and ends it: from then on nothing of it touches guest memory.
pub trait Activity: Send {}

/// A device model.
pub trait VirtioDevice: Send {
    /// Virtio device type (virtio 1.2, section 5).
    fn id(&self) -> u32;

    /// Feature bits of this device type; the transport adds its own.
    fn features(&self) -> u64;

    /// Largest size of each queue, powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Initial configuration space.
    fn config(&self) -> Vec<u8>;

    /// Whether the vCPUs' threads ring [`Activation::bells`] for its queues, and kicks stay silent.
    fn has_bells(&self) -> bool {
        false
    }

    /// Begins to serve the queues, until the activities are dropped. [`crate::serve_each`] does it for requests that are answered one after another.
    ///
    /// # Errors
    /// The host lacks what the device needs; the guest sees a failed device.
    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>>;

    /// The driver in the guest has written `config`, at a place and with a value of its own choice.
    fn config_written(&mut self, config: &ConfigSpace) {
        let _ = config;
    }

    /// Makes everything durable, at the end of the VM.
    ///
    /// # Errors
    /// Data of the guest may be lost.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves the requests of one queue, one after another.
pub trait QueueHandler: Send {
    /// Serves a request and returns the number of bytes written to its buffers.
    ///
    /// # Errors
    /// The request is malformed so that the guest cannot even be told.
    fn handle(&mut self, request: Buffers<'_>) -> Result<u32, BadRequest>;
}

//! What a device model is.

use crate::{BadRequest, Buffers, ConfigSpace};
use std::io;

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

    /// Handlers, one for each queue, for a driver that has just said DRIVER_OK. Each runs on a thread of its own until the device is
    /// reset.
    fn handlers(&mut self, negotiated: &Negotiated) -> Vec<Box<dyn QueueHandler>>;

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

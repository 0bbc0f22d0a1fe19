//! Entropy (virtio 1.2, section 5.4).

use crate::{BadRequest, Buffers, Negotiated, QueueHandler, VirtioDevice};
use rustix::rand::{GetRandomFlags, getrandom};
use tracing::warn;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

const QUEUE_SIZE: u16 = 64;
/// Most bytes given for one request.
const MOST: usize = 4096;

/// The host's random numbers.
#[derive(Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn handlers(&mut self, _: &Negotiated) -> Vec<Box<dyn QueueHandler>> {
        vec![Box::new(Self)]
    }
}

impl QueueHandler for Rng {
    fn handle(&mut self, request: Buffers<'_>) -> Result<u32, BadRequest> {
        let mut bytes = [0_u8; MOST];
        let wanted = request.writable.len().min(MOST);
        match getrandom(&mut bytes[..wanted], GetRandomFlags::empty()) {
            Ok(count) => Ok(request.writable.write(&bytes[..count]) as u32),
            Err(error) => {
                warn!("no random numbers: {error}");
                Ok(0)
            }
        }
    }
}

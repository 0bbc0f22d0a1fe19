//! Entropy (virtio 1.2, section 5.4).

use crate::{Activation, Activity, BadRequest, Buffers, QueueHandler, VirtioDevice, Work, serve_each};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
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

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        serve_each(activation, Work::Memory, vec![Box::new(Self)])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, Driver, WRITE, nonsense};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        /// Whatever the ring holds, the device serves it or stops, and a reset makes it whole.
        #[test]
        fn hostile_rings_are_survived(nonsense in nonsense(1, &[64, 4096, 4097])) {
            let mut guest = Driver::new("rng", Box::new(Rng));
            guest.start(0);
            guest.play(&nonsense, &[0]);
            guest.start(0);
            guest.write(DATA, &[0; 64]);
            guest.descriptor(0, 3, DATA, 64, WRITE, 0);
            guest.send(0, 3);
            guest.wait("random numbers after the reset", |guest| guest.used_count(0) == 1);
            prop_assert_eq!(guest.used_entry(0, 0), (3, 64));
            prop_assert_ne!(guest.bytes(DATA, 64), vec![0; 64]);
        }
    }
}

//! A guest's driver for tests and fuzzing, written from the specification (virtio 1.2, sections 2 and 3).
#![cfg_attr(not(test), allow(dead_code, unused_macros, unused_imports))]

use crate::{Transport, VirtioDevice, Wiring};
use colinux_abi::device::{DevicePage, QueueRegisters};
use colinux_driver::GuestMemory;
#[cfg(test)]
use proptest::prelude::*;
use std::{
    mem::{offset_of, size_of},
    sync::Arc,
    time::{Duration, Instant},
};
use virtio_bindings::{virtio_config::VIRTIO_F_VERSION_1, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

/// Where the register page is.
pub(crate) const PAGE: u64 = 0x1000;
/// Memory that is left for buffers, up to its end.
pub(crate) const DATA: u64 = 0x8_0000;
/// Bytes of the guest's memory.
pub(crate) const MEMORY: usize = 0x10_0000;
/// Places of a ring.
pub(crate) const SIZE: u16 = 16;
/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
/// The status bit of a device that has failed.
pub(crate) const NEEDS_RESET: u32 = 0x40;

/// Where the descriptors of a queue are.
pub(crate) const fn descriptors(queue: usize) -> u64 {
    0x1_0000 + 0x3000 * queue as u64
}

/// Where the available ring of a queue is.
pub(crate) const fn available(queue: usize) -> u64 {
    descriptors(queue) + 0x1000
}

/// Where the used ring of a queue is.
pub(crate) const fn used(queue: usize) -> u64 {
    descriptors(queue) + 0x2000
}

/// Lets a type be used as the `driver` that it has.
macro_rules! drives {
    ($guest:ty) => {
        impl std::ops::Deref for $guest {
            type Target = crate::testing::Driver;

            fn deref(&self) -> &Self::Target {
                &self.driver
            }
        }

        impl std::ops::DerefMut for $guest {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.driver
            }
        }
    };
}
pub(crate) use drives;

/// The driver.
pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) transport: Transport,
    /// Buffers made available, for each queue.
    pub(crate) sent: Vec<u16>,
    /// What it was started with last.
    features: u64,
}

impl Driver {
    /// For a device, which it does not touch yet.
    pub(crate) fn new(name: &str, device: Box<dyn VirtioDevice>) -> Self {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        let queues = device.queue_sizes().len();
        let wiring = Wiring::new(queues).unwrap();
        let mut transport = Transport::new(name, device, Arc::clone(&memory), PAGE, wiring);
        transport.offer().unwrap();
        Self { memory, transport, sent: vec![0; queues], features: 0 }
    }

    pub(crate) fn put<T: ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    pub(crate) fn get<T: ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Writes the status and returns what the device makes of it.
    pub(crate) fn status(&mut self, status: u32) -> u32 {
        self.put(PAGE + offset_of!(DevicePage, status) as u64, status);
        self.transport.status_written().unwrap();
        self.transport.bells().ring_all();
        self.device_status()
    }

    pub(crate) fn device_status(&self) -> u32 {
        self.get(PAGE + offset_of!(DevicePage, device_status) as u64)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.device_status() & NEEDS_RESET != 0
    }

    /// Tells the device where a queue is.
    pub(crate) fn set_queue(&self, queue: usize, descriptors: u64, available: u64, used: u64, size: u16) {
        let at = PAGE + (offset_of!(DevicePage, queues) + queue * size_of::<QueueRegisters>()) as u64;
        self.put(at + offset_of!(QueueRegisters, descriptors) as u64, descriptors);
        self.put(at + offset_of!(QueueRegisters, available) as u64, available);
        self.put(at + offset_of!(QueueRegisters, used) as u64, used);
        self.put(at + offset_of!(QueueRegisters, size) as u64, size);
        self.put(at + offset_of!(QueueRegisters, ready) as u64, 1_u32);
    }

    /// Resets the device and says DRIVER_OK to it; returns its status.
    pub(crate) fn negotiate(&mut self, features: u64) -> u32 {
        assert_eq!(self.status(0), 0);
        self.put(PAGE + offset_of!(DevicePage, driver_features) as u64, features);
        for status in [1, 3, 11] {
            assert_eq!(self.status(status), status);
        }
        self.status(15)
    }

    /// Starts the device with empty rings; `features` are those of its type.
    pub(crate) fn start(&mut self, features: u64) {
        self.features = features;
        self.status(0);
        for queue in 0..self.sent.len() {
            self.write(descriptors(queue), &[0; 0x3000]);
            self.set_queue(queue, descriptors(queue), available(queue), used(queue), SIZE);
            self.sent[queue] = 0;
        }
        assert_eq!(self.negotiate(features | 1 << VIRTIO_F_VERSION_1), 15);
    }

    pub(crate) fn descriptor(&self, queue: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = descriptors(queue) + u64::from(index) * 16;
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub(crate) fn send(&mut self, queue: usize, head: u16) {
        self.put(available(queue) + 4 + u64::from(self.sent[queue] % SIZE) * 2, head);
        self.sent[queue] = self.sent[queue].wrapping_add(1);
        self.put(available(queue) + 2, self.sent[queue]);
        self.transport.wiring().kicks[queue].signal();
        if self.transport.bells().ring(queue as u64) {
            self.transport.wiring().interrupts[queue].signal();
        }
    }

    pub(crate) fn used_count(&self, queue: usize) -> u16 {
        self.get(used(queue) + 2)
    }

    /// Head and length of entry `number` of a used ring.
    pub(crate) fn used_entry(&self, queue: usize, number: u16) -> (u32, u32) {
        let at = used(queue) + 4 + u64::from(number % SIZE) * 8;
        (self.get(at), self.get(at + 4))
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    }

    /// Starts the device anew and does what `nonsense` says; afterwards the device has answered all of the queues `answered`, or failed.
    pub(crate) fn play(&mut self, nonsense: &Nonsense, answered: &[usize]) {
        let event_idx = u64::from(nonsense.event_idx) << VIRTIO_RING_F_EVENT_IDX;
        self.start(self.features & !(1 << VIRTIO_RING_F_EVENT_IDX) | event_idx);
        for (queue, table) in nonsense.tables.iter().enumerate().take(self.sent.len()) {
            for (index, (address, len, flags, next)) in (0..).zip(table) {
                self.descriptor(queue, index, *address, *len, *flags, *next);
            }
        }
        self.write(DATA, &nonsense.bytes);
        for (queue, head) in &nonsense.heads {
            self.send(queue % self.sent.len(), *head);
        }
        self.wait("the end of the rings or of the device", |driver| {
            let is_done = |queue: &usize| driver.used_count(*queue) == driver.sent[*queue];
            driver.has_failed() || answered.iter().all(is_done)
        });
    }
}

/// What a hostile or broken guest does to its rings.
#[derive(Clone, Debug)]
pub(crate) struct Nonsense {
    /// Address, length, flags and next of each descriptor, for each queue.
    pub(crate) tables: Vec<Vec<(u64, u32, u16, u16)>>,
    /// What some of the buffers hold.
    pub(crate) bytes: Vec<u8>,
    /// Queue and head of what it makes available.
    pub(crate) heads: Vec<(usize, u16)>,
    /// Whether it says by indices when it is to be told.
    pub(crate) event_idx: bool,
}

/// Nonsense for a device of `queues` queues: addresses in and out of memory and in the rings themselves, lengths around `lens`, loops and indices that do not exist.
#[cfg(test)]
pub(crate) fn nonsense(queues: usize, lens: &[u32]) -> impl Strategy<Value = Nonsense> + use<> {
    let addresses = vec![
        DATA,
        DATA,
        DATA + 5,
        PAGE,
        descriptors(0),
        used(0),
        MEMORY as u64 - 8,
        MEMORY as u64,
        u64::MAX - 4,
    ];
    let lens = [0, 1, 0x1_0000, u32::MAX].into_iter().chain(lens.iter().copied()).collect::<Vec<_>>();
    let descriptor = (prop::sample::select(addresses), prop::sample::select(lens), 0_u16..8, 0_u16..SIZE + 4);
    let table = prop::collection::vec(descriptor, usize::from(SIZE));
    let tables = prop::collection::vec(table, queues);
    let bytes = prop::collection::vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..256);
    let heads = prop::collection::vec((0..queues, 0_u16..SIZE + 4), 1..12);
    let all = (tables, bytes, heads, any::<bool>());
    all.prop_map(|(tables, bytes, heads, event_idx)| Nonsense { tables, bytes, heads, event_idx })
}

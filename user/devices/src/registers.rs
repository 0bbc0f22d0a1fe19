//! Access to the register page of a device ([`colinux_abi::device::DevicePage`]).

use colinux_abi::device::{CONFIG_SIZE, DevicePage, QueueRegisters};
use colinux_driver::GuestMemory;
use std::{
    mem::{offset_of, size_of},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering, fence},
    },
};
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

/// The page is not guest memory: a bug of the daemon, not of the guest.
pub type MemoryError = vm_memory::GuestMemoryError;

/// The page of one device.
#[derive(Clone)]
pub(crate) struct Registers {
    memory: Arc<GuestMemory>,
    page: u64,
    /// Held by whoever changes the configuration space.
    config_lock: Arc<Mutex<()>>,
}

/// Addresses and size of a virtqueue, as the guest wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueSetup {
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) size: u16,
    pub(crate) ready: bool,
}

impl Registers {
    /// The page at guest-physical address `page`.
    pub(crate) fn new(memory: Arc<GuestMemory>, page: u64) -> Self {
        Self { memory, page, config_lock: Arc::default() }
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn load<T: AtomicAccess>(&self, offset: usize) -> Result<T, MemoryError> {
        self.memory.load(GuestAddress(self.page + offset as u64), Ordering::Acquire)
    }

    fn store<T: AtomicAccess>(&self, offset: usize, value: T) -> Result<(), MemoryError> {
        self.memory.store(value, GuestAddress(self.page + offset as u64), Ordering::Release)
    }

    /// Zeroes the page.
    pub(crate) fn clear(&self) -> Result<(), MemoryError> {
        self.memory.write_slice(&[0; size_of::<DevicePage>()], GuestAddress(self.page))
    }

    /// Writes all that the device tells the guest of itself.
    pub(crate) fn describe(
        &self,
        id: u32,
        features: u64,
        sizes: &[u16],
        config: &[u8],
    ) -> Result<(), MemoryError> {
        self.store(offset_of!(DevicePage, device_features), features)?;
        self.store(offset_of!(DevicePage, queue_count), sizes.len() as u32)?;
        self.store(offset_of!(DevicePage, config_len), config.len() as u32)?;
        for (queue, size) in sizes.iter().enumerate() {
            self.store(queue_offset(queue) + offset_of!(QueueRegisters, size_max), *size)?;
        }
        self.change_config(0, config)?;
        self.store(offset_of!(DevicePage, device_id), id)
    }

    /// Changes a part of the configuration space. The generation is odd meanwhile: what was read then, or before, is to be read again.
    pub(crate) fn change_config(&self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let _alone = self.config_lock.lock().unwrap_or_else(PoisonError::into_inner);
        // The guest may have written it, too.
        let generation = self.load::<u32>(offset_of!(DevicePage, config_generation))? & !1;
        self.store(offset_of!(DevicePage, config_generation), generation.wrapping_add(1))?;
        fence(Ordering::Release);
        let written = self.config().write(offset, bytes);
        // The guest waits for an even one, whatever became of the change.
        self.store(offset_of!(DevicePage, config_generation), generation.wrapping_add(2))?;
        written
    }

    pub(crate) fn status(&self) -> Result<u32, MemoryError> {
        self.load(offset_of!(DevicePage, status))
    }

    pub(crate) fn driver_features(&self) -> Result<u64, MemoryError> {
        self.load(offset_of!(DevicePage, driver_features))
    }

    pub(crate) fn clear_interrupts(&self) -> Result<(), MemoryError> {
        self.store(offset_of!(DevicePage, isr), 0_u64)
    }

    /// Changes the status that the guest reads back.
    pub(crate) fn update_device_status(&self, update: impl Fn(u32) -> u32) -> Result<(), MemoryError> {
        let at = self.page + offset_of!(DevicePage, device_status) as u64;
        let slice = self.memory.get_slice(GuestAddress(at), size_of::<u32>())?;
        let status = slice.get_atomic_ref::<AtomicU32>(0)?;
        // The closure always has a new value, so the exchange ends in success.
        let _ = status.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(update(old)));
        Ok(())
    }

    pub(crate) fn queue(&self, queue: usize) -> Result<QueueSetup, MemoryError> {
        let at = queue_offset(queue);
        Ok(QueueSetup {
            descriptors: self.load(at + offset_of!(QueueRegisters, descriptors))?,
            available: self.load(at + offset_of!(QueueRegisters, available))?,
            used: self.load(at + offset_of!(QueueRegisters, used))?,
            size: self.load(at + offset_of!(QueueRegisters, size))?,
            ready: self.load::<u32>(at + offset_of!(QueueRegisters, ready))? == 1,
        })
    }

    pub(crate) fn config(&self) -> ConfigSpace {
        ConfigSpace {
            memory: Arc::clone(&self.memory),
            at: self.page + offset_of!(DevicePage, config) as u64,
        }
    }
}

fn queue_offset(queue: usize) -> usize {
    offset_of!(DevicePage, queues) + queue * size_of::<QueueRegisters>()
}

/// The configuration space of a device.
#[derive(Clone)]
pub struct ConfigSpace {
    memory: Arc<GuestMemory>,
    at: u64,
}

impl ConfigSpace {
    /// The byte at `offset`; 0 outside.
    pub fn byte(&self, offset: usize) -> u8 {
        let inside = offset < CONFIG_SIZE;
        inside
            .then(|| self.memory.read_obj(GuestAddress(self.at + offset as u64)).ok())
            .flatten()
            .unwrap_or(0)
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let offset = offset.min(CONFIG_SIZE);
        let len = bytes.len().min(CONFIG_SIZE - offset);
        self.memory.write_slice(&bytes[..len], GuestAddress(self.at + offset as u64))
    }
}

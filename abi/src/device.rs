//! The register page of a virtio device (virtio 1.2, section 2; this transport stands where section 4 has PCI and MMIO).
//!
//! The daemon offers a device by filling `device_id`, `device_features`, `queue_count`, `size_max` and `config`, before the guest starts.
//! The driver in the guest writes `driver_features`, the queues and, last, `status`; after each write of `status` the guest object makes the hypercall
//! [`crate::hypercall::DEVICE_STATUS`], which returns when the daemon has acted on it (so a reset is complete when it returns). At DRIVER_OK the daemon
//! copies the queue addresses and never reads them again. After a write of `config` comes [`crate::hypercall::CONFIG_WRITTEN`]. Kicks are [`crate::hypercall::NOTIFY`]; completions are bits of `isr`
//! and the event [`crate::page::event::DEVICE`].

use crate::PAGE_SIZE;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// Most queues of one device.
pub const MAX_QUEUES: usize = 32;
/// Most bytes of a device's configuration space.
pub const CONFIG_SIZE: usize = 1024;
/// Bit of [`DevicePage::isr`]: the configuration space changed.
pub const ISR_CONFIG: u64 = 1 << 63;

/// One virtqueue, addresses are guest-physical.
#[repr(C)]
pub struct QueueRegisters {
    /// Descriptor table.
    pub descriptors: AtomicU64,
    /// Available ring (driver area).
    pub available: AtomicU64,
    /// Used ring (device area).
    pub used: AtomicU64,
    /// Largest number of entries that the device takes; 0: no such queue.
    pub size_max: AtomicU16,
    /// Number of entries the driver chose.
    pub size: AtomicU16,
    /// 1 when the driver has set the queue up.
    pub ready: AtomicU32,
}

/// Registers of one device, at [`crate::window::device_page`].
#[repr(C, align(4096))]
pub struct DevicePage {
    /// Virtio device type (2 = block, 4 = entropy, ...); 0: no device.
    pub device_id: AtomicU32,
    /// Virtio vendor.
    pub vendor_id: AtomicU32,
    /// Features that the device offers.
    pub device_features: AtomicU64,
    /// Features that the driver accepted.
    pub driver_features: AtomicU64,
    /// Device status (virtio 1.2, 2.1), written by the guest.
    pub status: AtomicU32,
    /// Device status as the daemon left it: equal to `status`, or with FAILED / DEVICE_NEEDS_RESET, or without FEATURES_OK.
    pub device_status: AtomicU32,
    /// Changes with each change of `config`: the daemon makes it odd before the change, and even behind it. What was read meanwhile is to be read again.
    pub config_generation: AtomicU32,
    /// Number of queues, at most [`MAX_QUEUES`].
    pub queue_count: u32,
    /// Bytes used of `config`.
    pub config_len: u32,
    /// vCPU that gets this device's events.
    pub event_vcpu: u32,
    /// Bit `q`: queue `q` has used buffers; [`ISR_CONFIG`]. Set by the host, taken by the guest.
    pub isr: AtomicU64,
    /// The queues.
    pub queues: [QueueRegisters; MAX_QUEUES],
    /// The device's configuration space.
    pub config: [u8; CONFIG_SIZE],
}

const _: () = {
    assert!(size_of::<QueueRegisters>() == 32);
    assert!(size_of::<DevicePage>() == PAGE_SIZE as usize);
    assert!(offset_of!(DevicePage, status) == 24);
    assert!(offset_of!(DevicePage, isr) == 48);
    assert!(offset_of!(DevicePage, queues) == 56);
    assert!(offset_of!(DevicePage, config) == 56 + 32 * MAX_QUEUES);
};

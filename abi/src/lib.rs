//! The boundary between the three parties of coLinux: the host driver, the guest object and the daemon.
//!
//! Everything here is `repr(C)`, of fixed width, and asserted in size and offset, because the parties are built apart and
//! meet only at run time. Nothing here is trusted: the driver and the daemon read what the guest wrote as hostile input.
//!
//! * [`window`]: the memory map of the 2 MiB window in which the guest object lives
//! * [`page`]: the pages shared between the guest object, the driver and the daemon
//! * [`device`]: the register page of a virtio device
//! * [`hypercall`]: why the guest leaves, and what it asks
//! * [`ioctl`]: the driver's interface, KVM-shaped
#![no_std]
#![forbid(unsafe_code)]

pub mod device;
pub mod hypercall;
pub mod ioctl;
pub mod page;
pub mod window;

/// Version of everything in this crate. Parties of different versions refuse each other.
pub const ABI_VERSION: u32 = 1;

/// Most vCPUs of one VM. Bounded by [`window`]: one shared page and one passage page each.
pub const MAX_VCPUS: usize = 64;

/// Most virtio devices of one VM: one register page each, one bit each in [`page::VmPage::device_pending`].
pub const MAX_DEVICES: usize = 32;

/// Most memory extents of one VM (the extent table is 8 pages of 16-byte entries).
pub const MAX_EXTENTS: usize = 2048;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

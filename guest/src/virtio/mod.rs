//! Virtio devices for the kernel's own drivers, without PCI and without a trap: the registers are a page in the window.
//!
//! * [`bus`]: a bus whose devices carry the alias that makes udev load the drivers, and the wait for the virtio core, which may be a module
//! * [`transport`]: `virtio_config_ops` over a [`colinux_abi::device::DevicePage`]
//! * [`queue`]: virtqueues, kicks and interrupts
//! * [`turn`]: the order in which drivers get their devices

mod bus;
mod queue;
mod transport;
mod turn;

pub use bus::{module_loaded, start};
pub use queue::interrupt;

use crate::hypercall::{device_page, vm};
use crate::room::Room;
use colinux_abi::MAX_DEVICES;
use core::mem::size_of;

const DEVICE_ROOM: usize = 1536;

kbind::sizes! {
    static VIRTIO_DEVICE_SIZE = "virtio_device" <= DEVICE_ROOM;
}

/// A `struct virtio_device` for each device.
static DEVICES: [Room<DEVICE_ROOM>; MAX_DEVICES] = [const { Room::new() }; MAX_DEVICES];

/// Number of the device that a `struct virtio_device` belongs to. All come from [`DEVICES`].
fn number(device: *const u8) -> usize {
    let offset = (device as usize).wrapping_sub(DEVICES.as_ptr() as usize);
    (offset / size_of::<Room<DEVICE_ROOM>>()).min(MAX_DEVICES - 1)
}

/// Numbers of the devices that the daemon offers.
fn offered() -> impl Iterator<Item = usize> {
    let count = (vm().device_count as usize).min(MAX_DEVICES);
    (0..count)
        .filter(|&device| device_page(device).device_id.load(core::sync::atomic::Ordering::Acquire) != 0)
}

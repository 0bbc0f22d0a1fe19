//! Devices of one kind are probed in the order of their numbers, so that `cobd0` is always `/dev/vda`.
//!
//! While one thread registers device after device, another may load their driver: that probes those which are registered, from the first on,
//! and the registering thread the later ones, both at once. Whoever begins with a device therefore sees to those before it.

use super::{DEVICES, offered};
use crate::hypercall::device_page;
use core::sync::atomic::{AtomicU32, Ordering};

kbind::fields! {
    static VIRTIO_DEV: () = "virtio_device.dev";
}

kbind::functions! {
    fn device_attach(device: *mut u8) -> i32;
}

/// A bit for each device that is registered.
static REGISTERED: AtomicU32 = AtomicU32::new(0);
/// A bit for each device that has been probed before.
static BEGUN: AtomicU32 = AtomicU32::new(0);

const _: () = assert!(colinux_abi::MAX_DEVICES <= 32);

/// The device is registered.
pub fn registered(number: usize) {
    REGISTERED.fetch_or(1 << number, Ordering::Release);
}

/// A probe of the device begins: returns when those before it have been probed, by whomever. Later probes, as after an unbind, come as they come.
///
/// Process context; holds the lock of this device (`device_lock()`), and takes only those of earlier ones.
pub fn come(number: usize) {
    if BEGUN.fetch_or(1 << number, Ordering::AcqRel) & (1 << number) != 0 {
        return;
    }
    let registered = REGISTERED.load(Ordering::Acquire);
    for earlier in offered().filter(|&earlier| earlier < number && same_kind(earlier, number)) {
        if registered & (1 << earlier) != 0 {
            // SAFETY: a registered device. It waits for its lock if another thread probes it; a failure is that device's own, and in the log.
            unsafe { device_attach(VIRTIO_DEV.ptr(DEVICES[earlier].ptr()).cast()) };
        }
    }
}

fn same_kind(one: usize, other: usize) -> bool {
    let kind = |number| device_page(number).device_id.load(Ordering::Relaxed);
    kind(one) == kind(other)
}

//! `struct virtio_config_ops` (include/linux/virtio_config.h) over the register page of a device.

use super::bus::VRING_TRANSPORT_FEATURES;
use super::{number, queue, turn};
use crate::hypercall::{call, device_page};
use crate::room::Room;
use crate::waits;
use colinux_abi::device::{CONFIG_SIZE, DevicePage};
use colinux_abi::hypercall::{CONFIG_WRITTEN, DEVICE_STATUS};
use colinux_logic::generation::settled;
use core::sync::atomic::{Ordering, fence};

const OPERATIONS_ROOM: usize = 512;

kbind::sizes! {
    static OPERATIONS_SIZE = "virtio_config_ops" <= OPERATIONS_ROOM;
}

kbind::fields! {
    static GET: u64 = "virtio_config_ops.get" takes 4;
    static SET: u64 = "virtio_config_ops.set" takes 4;
    static GENERATION: u64 = "virtio_config_ops.generation" takes 1;
    static GET_STATUS: u64 = "virtio_config_ops.get_status" takes 1;
    static SET_STATUS: u64 = "virtio_config_ops.set_status" takes 2;
    static RESET: u64 = "virtio_config_ops.reset" takes 1;
    /// Since 6.11 the callbacks, names and flags come in one array.
    static FIND_VQS: overload u64 = "virtio_config_ops.find_vqs" takes 5;
    static FIND_VQS_OF_ARRAYS: overload u64 = "virtio_config_ops.find_vqs" takes 7;
    static DEL_VQS: u64 = "virtio_config_ops.del_vqs" takes 1;
    static GET_FEATURES: u64 = "virtio_config_ops.get_features" takes 1;
    static FINALIZE_FEATURES: u64 = "virtio_config_ops.finalize_features" takes 1;
    static BUS_NAME: u64 = "virtio_config_ops.bus_name" takes 1;
    static FEATURES: u64 = "virtio_device.features";
}

/// VIRTIO_F_VERSION_1 (virtio 1.2, 6).
const VERSION_1: u64 = 1 << 32;
const INVALID: i32 = -22;

static OPERATIONS: Room<OPERATIONS_ROOM> = Room::new();

/// Address of the operations.
pub fn operations() -> u64 {
    OPERATIONS.addr()
}

/// Fills the operations.
pub fn prepare() {
    let operations = OPERATIONS.ptr();
    // SAFETY: the room is large enough, checked by the loader; no device uses it yet.
    unsafe {
        GET.write(operations, get as *const () as u64);
        SET.write(operations, set as *const () as u64);
        GENERATION.write(operations, generation as *const () as u64);
        GET_STATUS.write(operations, get_status as *const () as u64);
        SET_STATUS.write(operations, set_status as *const () as u64);
        RESET.write(operations, reset as *const () as u64);
        FIND_VQS.write_if(operations, queue::find as *const () as u64);
        FIND_VQS_OF_ARRAYS.write_if(operations, queue::find_of_arrays as *const () as u64);
        DEL_VQS.write(operations, queue::delete as *const () as u64);
        GET_FEATURES.write(operations, get_features as *const () as u64);
        FINALIZE_FEATURES.write(operations, finalize_features as *const () as u64);
        BUS_NAME.write(operations, bus_name as *const () as u64);
    }
}

fn page(device: *const u8) -> &'static DevicePage {
    device_page(number(device))
}

/// The part of the configuration space at `offset`, if `length` bytes of it exist.
fn config(device: *const u8, offset: u32, length: u32) -> Option<*mut u8> {
    let (offset, length) = (offset as usize, length as usize);
    let inside = offset.checked_add(length).is_some_and(|end| end <= CONFIG_SIZE);
    inside.then(|| (&raw const page(device).config).cast::<u8>().cast_mut().wrapping_add(offset))
}

extern "C" fn get(device: *const u8, offset: u32, buffer: *mut u8, length: u32) {
    let source = config(device, offset, length);
    for index in 0..length as usize {
        // SAFETY: the driver's buffer holds `length` bytes, `config` has checked the source.
        unsafe { buffer.add(index).write(source.map_or(0, |source| source.add(index).read_volatile())) };
    }
}

/// Returns when the daemon has acted. Drivers write configuration where they may sleep (`virtio_cwrite`).
extern "C" fn set(device: *const u8, offset: u32, buffer: *const u8, length: u32) {
    let Some(target) = config(device, offset, length) else { return };
    for index in 0..length as usize {
        // SAFETY: as in `get`.
        unsafe { target.add(index).write_volatile(buffer.add(index).read()) };
    }
    call(CONFIG_WRITTEN, number(device) as u64, 0);
}

/// Waits while the host changes something: process context, as all that reads configuration (`might_sleep()`).
extern "C" fn generation(device: *const u8) -> u32 {
    let read = || {
        // What was read of the configuration comes before, as with the `smp_rmb()` of a sequence lock.
        fence(Ordering::Acquire);
        page(device).config_generation.load(Ordering::Acquire)
    };
    settled(read, waits::pause)
}

extern "C" fn get_status(device: *const u8) -> u8 {
    page(device).device_status.load(Ordering::Acquire) as u8
}

/// Returns when the daemon has acted: a driver reads the status back at once, and a reset must be over before it frees its rings.
extern "C" fn set_status(device: *const u8, status: u8) {
    page(device).status.store(u32::from(status), Ordering::Release);
    call(DEVICE_STATUS, number(device) as u64, 0);
}

extern "C" fn reset(device: *const u8) {
    set_status(device, 0);
}

/// What a driver's probe begins with (`virtio_dev_probe()`).
extern "C" fn get_features(device: *const u8) -> u64 {
    turn::come(number(device));
    page(device).device_features.load(Ordering::Acquire)
}

/// Without VIRTIO_F_ACCESS_PLATFORM the addresses in the rings are guest-physical, past the DMA API.
extern "C" fn finalize_features(device: *mut u8) -> i32 {
    let Some(limit) = VRING_TRANSPORT_FEATURES.addr() else { return INVALID };
    // SAFETY: a function of this type (drivers/virtio/virtio_ring.c); the virtio core passes one of our devices.
    let features = unsafe {
        core::mem::transmute::<u64, unsafe extern "C" fn(*mut u8)>(limit)(device);
        FEATURES.read(device)
    };
    if features & VERSION_1 == 0 {
        return INVALID;
    }
    page(device).driver_features.store(features, Ordering::Release);
    0
}

extern "C" fn bus_name(_device: *const u8) -> *const u8 {
    c"colinux".as_ptr().cast()
}

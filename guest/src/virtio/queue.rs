//! Virtqueues.

use super::bus::{
    VIRTIO_CONFIG_CHANGED, VIRTQUEUE_GET_AVAIL_ADDR, VIRTQUEUE_GET_DESC_ADDR, VIRTQUEUE_GET_USED_ADDR,
    VIRTQUEUE_GET_VRING_SIZE, VRING_CREATE_VIRTQUEUE, VRING_DEL_VIRTQUEUE, VRING_INTERRUPT,
};
use super::{DEVICES, number};
use crate::hypercall::{call, device_page};
use colinux_abi::device::{ISR_CONFIG, MAX_QUEUES};
use colinux_abi::hypercall::NOTIFY;
use colinux_abi::{MAX_DEVICES, PAGE_SIZE};
use core::sync::atomic::{AtomicU64, Ordering};

kbind::fields! {
    static PRIVATE: u64 = "virtqueue.priv";
    static NUM_MAX: optional u32 = "virtqueue.num_max";
    static INFO_NAME: optional u64 = "virtqueue_info.name";
    static INFO_CALLBACK: optional u64 = "virtqueue_info.callback";
    static INFO_CTX: optional bool = "virtqueue_info.ctx";
}

kbind::sizes! {
    static VIRTQUEUE_SIZE = "virtqueue" <= 4096;
    static INFO_SIZE: optional = "virtqueue_info" <= 4096;
}

kbind::functions! {
    fn synchronize_rcu();
}

type Create = unsafe extern "C" fn(
    u32,
    u32,
    u32,
    *mut u8,
    bool,
    bool,
    bool,
    unsafe extern "C" fn(*mut u8) -> bool,
    u64,
    u64,
) -> *mut u8;

const NO_ENTRY: i32 = -2;
const NO_MEMORY: i32 = -12;

static QUEUES: [[AtomicU64; MAX_QUEUES]; MAX_DEVICES] =
    [const { [const { AtomicU64::new(0) }; MAX_QUEUES] }; MAX_DEVICES];

/// What a driver wants of one queue.
struct Wanted {
    name: u64,
    callback: u64,
    ctx: bool,
}

/// `virtio_config_ops.find_vqs`: what is wanted of the queues is in an array of `struct virtqueue_info`.
pub extern "C" fn find(
    device: *mut u8,
    count: u32,
    queues: *mut *mut u8,
    infos: *const u8,
    _affinity: u64,
) -> i32 {
    let (Some(size), Some(name), Some(callback), Some(ctx)) =
        (INFO_SIZE.get(), INFO_NAME.get(), INFO_CALLBACK.get(), INFO_CTX.get())
    else {
        return NO_ENTRY;
    };
    // SAFETY: the driver's arrays have `count` entries.
    let wanted = |index| unsafe {
        let info = infos.add(index * size);
        Wanted { name: name.read(info), callback: callback.read(info), ctx: ctx.read(info) }
    };
    // SAFETY: as above.
    unsafe { find_each(device, count, queues, wanted) }
}

/// The same where each part has an array of its own; that of the flags may be null.
pub extern "C" fn find_of_arrays(
    device: *mut u8,
    count: u32,
    queues: *mut *mut u8,
    callbacks: *const u64,
    names: *const u64,
    ctx: *const bool,
    _affinity: u64,
) -> i32 {
    // SAFETY: the driver's arrays have `count` entries.
    let wanted = |index| unsafe {
        Wanted {
            name: names.add(index).read(),
            callback: callbacks.add(index).read(),
            ctx: !ctx.is_null() && ctx.add(index).read(),
        }
    };
    // SAFETY: as above.
    unsafe { find_each(device, count, queues, wanted) }
}

/// Makes `count` queues. One without a name is not made and uses no number.
///
/// # Safety
/// `queues` has `count` entries.
unsafe fn find_each(
    device: *mut u8,
    count: u32,
    queues: *mut *mut u8,
    wanted: impl Fn(usize) -> Wanted,
) -> i32 {
    let mut next = 0;
    for index in 0..count as usize {
        let wanted = wanted(index);
        let queue = match wanted.name {
            0 => Ok(core::ptr::null_mut()),
            _ => {
                next += 1;
                create(device, next - 1, &wanted)
            }
        };
        match queue {
            // SAFETY: passed on to the caller.
            Ok(queue) => unsafe { queues.add(index).write(queue) },
            Err(error) => {
                delete(device);
                return error;
            }
        }
    }
    0
}

/// Makes one virtqueue and tells the device of it.
fn create(device: *mut u8, queue: usize, wanted: &Wanted) -> Result<*mut u8, i32> {
    let number = number(device);
    let registers = device_page(number).queues.get(queue).ok_or(NO_ENTRY)?;
    let size = u32::from(registers.size_max.load(Ordering::Acquire));
    let create = VRING_CREATE_VIRTQUEUE.addr().ok_or(NO_ENTRY)?;
    if size == 0 {
        return Err(NO_ENTRY);
    }
    // SAFETY: a function of this type (include/linux/virtio_ring.h), process context.
    unsafe {
        let create = core::mem::transmute::<u64, Create>(create);
        let vq = create(
            queue as u32,
            size,
            PAGE_SIZE as u32,
            device,
            true,
            true,
            wanted.ctx,
            notify,
            wanted.callback,
            wanted.name,
        );
        if vq.is_null() {
            return Err(NO_MEMORY);
        }
        PRIVATE.write(vq, (number as u64) << 32 | queue as u64);
        NUM_MAX.write_if(vq, size);
        registers.descriptors.store(ask(VIRTQUEUE_GET_DESC_ADDR.addr(), vq), Ordering::Relaxed);
        registers.available.store(ask(VIRTQUEUE_GET_AVAIL_ADDR.addr(), vq), Ordering::Relaxed);
        registers.used.store(ask(VIRTQUEUE_GET_USED_ADDR.addr(), vq), Ordering::Relaxed);
        // The size is an unsigned int: the upper half of the register is undefined.
        registers.size.store(ask(VIRTQUEUE_GET_VRING_SIZE.addr(), vq) as u16, Ordering::Relaxed);
        registers.ready.store(1, Ordering::Release);
        QUEUES[number][queue].store(vq as u64, Ordering::Release);
        Ok(vq)
    }
}

/// # Safety
/// `function` takes a virtqueue and returns a number.
unsafe fn ask(function: Option<u64>, vq: *mut u8) -> u64 {
    // SAFETY: the caller vouches for the type.
    function.map_or(0, |function| unsafe {
        core::mem::transmute::<u64, unsafe extern "C" fn(*mut u8) -> u64>(function)(vq)
    })
}

/// `virtio_config_ops.del_vqs`; the driver has reset the device.
pub extern "C" fn delete(device: *mut u8) {
    let number = number(device);
    let old = QUEUES[number].each_ref().map(|queue| queue.swap(0, Ordering::AcqRel));
    for registers in &device_page(number).queues {
        registers.ready.store(0, Ordering::Release);
    }
    // SAFETY: process context. Interrupt handlers on other CPUs that have seen the queues are over afterwards.
    unsafe { synchronize_rcu() };
    for vq in old.into_iter().filter(|&vq| vq != 0) {
        if let Some(delete) = VRING_DEL_VIRTQUEUE.addr() {
            // SAFETY: a function of this type; the queue came from vring_create_virtqueue() and nobody uses it any more.
            unsafe { core::mem::transmute::<u64, unsafe extern "C" fn(u64)>(delete)(vq) };
        }
    }
}

/// The driver has put buffers into a queue.
unsafe extern "C" fn notify(vq: *mut u8) -> bool {
    // SAFETY: one of our queues, `create` has set the word.
    let place = unsafe { PRIVATE.read(vq) };
    call(NOTIFY, place >> 32, place & 0xffff_ffff);
    true
}

/// The event DEVICE. `pending`: bit for each device. Interrupt context.
pub fn interrupt(mut pending: u64) {
    while pending != 0 {
        let device = pending.trailing_zeros() as usize;
        pending &= pending - 1;
        if device < MAX_DEVICES {
            serve(device, device_page(device).isr.swap(0, Ordering::AcqRel));
        }
    }
}

fn serve(device: usize, isr: u64) {
    if let (true, Some(changed)) = (isr & ISR_CONFIG != 0, VIRTIO_CONFIG_CHANGED.addr()) {
        // SAFETY: a function of this type, in interrupt context; the device is registered, else nobody would know the symbol.
        unsafe { core::mem::transmute::<u64, unsafe extern "C" fn(*mut u8)>(changed)(DEVICES[device].ptr()) };
    }
    let Some(interrupt) = VRING_INTERRUPT.addr() else { return };
    for (queue, vq) in QUEUES[device].iter().enumerate() {
        let vq = vq.load(Ordering::Acquire);
        if isr & 1 << queue != 0 && vq != 0 {
            // SAFETY: as above; the queue lives until `delete` has waited for this handler.
            unsafe { core::mem::transmute::<u64, unsafe extern "C" fn(i32, u64) -> i32>(interrupt)(0, vq) };
        }
    }
}

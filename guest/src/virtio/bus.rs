//! The bus `colinux`, and the registration with the virtio core.

use super::{DEVICES, offered, transport, turn};
use crate::console::log;
use crate::hypercall::device_page;
use crate::room::Room;
use crate::thread;
use colinux_abi::MAX_DEVICES;
use core::ffi::CStr;
use core::mem::size_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kbind::Late;

const BUS_ROOM: usize = 384;
const DEVICE_ROOM: usize = 1536;

kbind::sizes! {
    static BUS_SIZE = "bus_type" <= BUS_ROOM;
    static DEVICE_SIZE = "device" <= DEVICE_ROOM;
}

kbind::fields! {
    static BUS_NAME: u64 = "bus_type.name";
    static BUS_UEVENT: u64 = "bus_type.uevent" takes 2;
    static DEVICE_BUS: u64 = "device.bus";
    static DEVICE_INIT_NAME: u64 = "device.init_name";
    static DEVICE_RELEASE: u64 = "device.release" takes 1;
    static VIRTIO_PARENT: u64 = "virtio_device.dev.parent";
    static VIRTIO_RELEASE: u64 = "virtio_device.dev.release" takes 1;
    static VIRTIO_ID: u32 = "virtio_device.id.device";
    static VIRTIO_VENDOR: u32 = "virtio_device.id.vendor";
    static VIRTIO_CONFIG: u64 = "virtio_device.config";
}

kbind::functions! {
    fn bus_register(bus: *mut u8) -> i32;
    fn device_register(device: *mut u8) -> i32;
    variadic fn add_uevent_var(environment: *mut u8, format: *const u8, device: u32, vendor: u32) -> i32;
    fn symbol_get(name: *const u8) -> u64 = "__symbol_get";
}

kbind::late! {
    pub static REGISTER_VIRTIO_DEVICE = "register_virtio_device";
    pub static VRING_CREATE_VIRTQUEUE = "vring_create_virtqueue";
    pub static VRING_DEL_VIRTQUEUE = "vring_del_virtqueue";
    pub static VRING_INTERRUPT = "vring_interrupt";
    pub static VRING_TRANSPORT_FEATURES = "vring_transport_features";
    pub static VIRTQUEUE_GET_DESC_ADDR = "virtqueue_get_desc_addr";
    pub static VIRTQUEUE_GET_AVAIL_ADDR = "virtqueue_get_avail_addr";
    pub static VIRTQUEUE_GET_USED_ADDR = "virtqueue_get_used_addr";
    pub static VIRTQUEUE_GET_VRING_SIZE = "virtqueue_get_vring_size";
    pub static VIRTIO_CONFIG_CHANGED = "virtio_config_changed";
}

/// What is needed of the virtio core, which may be built in or two modules: `virtio`,
static CORE: [(&Late, &CStr); 2] = [
    (&REGISTER_VIRTIO_DEVICE, c"register_virtio_device"),
    (&VIRTIO_CONFIG_CHANGED, c"virtio_config_changed"),
];
/// and `virtio_ring`.
static RING: [(&Late, &CStr); 8] = [
    (&VRING_CREATE_VIRTQUEUE, c"vring_create_virtqueue"),
    (&VRING_DEL_VIRTQUEUE, c"vring_del_virtqueue"),
    (&VRING_INTERRUPT, c"vring_interrupt"),
    (&VRING_TRANSPORT_FEATURES, c"vring_transport_features"),
    (&VIRTQUEUE_GET_DESC_ADDR, c"virtqueue_get_desc_addr"),
    (&VIRTQUEUE_GET_AVAIL_ADDR, c"virtqueue_get_avail_addr"),
    (&VIRTQUEUE_GET_USED_ADDR, c"virtqueue_get_used_addr"),
    (&VIRTQUEUE_GET_VRING_SIZE, c"virtqueue_get_vring_size"),
];

static BUS: Room<BUS_ROOM> = Room::new();
static PARENTS: [Room<DEVICE_ROOM>; MAX_DEVICES] = [const { Room::new() }; MAX_DEVICES];
static REGISTERED: AtomicBool = AtomicBool::new(false);
static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// Makes the bus and its devices; registers the devices with the virtio core if that is built in. Process context.
pub fn start() {
    if offered().next().is_none() {
        return;
    }
    let bus = BUS.ptr();
    // SAFETY: the rooms are large enough (checked by the loader) and live for ever.
    unsafe {
        BUS_NAME.write(bus, c"colinux".as_ptr() as u64);
        BUS_UEVENT.write(bus, uevent as *const () as u64);
        let error = bus_register(bus);
        if error != 0 {
            return log(format_args!("bus_register failed ({error})"));
        }
    }
    offered().for_each(add_parent);
    register_devices();
}

/// The device on our bus: it exists before any driver does, and udev loads the driver by its alias.
fn add_parent(number: usize) {
    let parent = PARENTS[number].ptr();
    let name =
        [b'v', b'i', b'r', b't', b'i', b'o', b'-', b'0' + (number / 10) as u8, b'0' + (number % 10) as u8, 0];
    // SAFETY: as in `start`; device_register() copies the name.
    let error = unsafe {
        DEVICE_BUS.write(parent, BUS.addr());
        DEVICE_INIT_NAME.write(parent, name.as_ptr() as u64);
        DEVICE_RELEASE.write(parent, release as *const () as u64);
        device_register(parent)
    };
    if error != 0 {
        log(format_args!("device {number}: device_register failed ({error})"));
    }
}

/// The rooms are static: nothing to free.
extern "C" fn release(_device: *mut u8) {}

/// `bus_type.uevent`: the alias of `drivers/virtio/virtio.c`, `virtio_uevent()`.
extern "C" fn uevent(parent: *const u8, environment: *mut u8) -> i32 {
    let offset = (parent as usize).wrapping_sub(PARENTS.as_ptr() as usize);
    let number = offset / size_of::<Room<DEVICE_ROOM>>();
    let page = device_page(number);
    let (device, vendor) = (page.device_id.load(Ordering::Relaxed), page.vendor_id.load(Ordering::Relaxed));
    // SAFETY: the kernel passes its environment; two numbers as the format says.
    unsafe { add_uevent_var(environment, c"MODALIAS=virtio:d%08Xv%08X".as_ptr().cast(), device, vendor) }
}

/// A module is live. The two of the virtio core may come in any order, and their symbols can be had only now.
/// Devices are not registered from within the notifier, as that may load further modules.
pub fn module_loaded(name: &[u8]) {
    if !(name == b"virtio" || name == b"virtio_ring") || offered().next().is_none() {
        return;
    }
    if REQUESTS.fetch_add(1, Ordering::AcqRel) == 0 && !thread::start(register_thread, c"colinux_virtio") {
        REQUESTS.store(0, Ordering::Release);
    }
}

/// Looks again when another module came meanwhile.
extern "C" fn register_thread(_data: u64) -> i32 {
    loop {
        let seen = REQUESTS.load(Ordering::Acquire);
        register_devices();
        if REQUESTS.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return 0;
        }
    }
}

/// Registers all devices, once, when the virtio core is there.
fn register_devices() {
    if REGISTERED.load(Ordering::Acquire) || !find_symbols() {
        return;
    }
    REGISTERED.store(true, Ordering::Release);
    transport::prepare();
    offered().for_each(register_device);
}

fn find_symbols() -> bool {
    let (core, ring) = (find_those_of(&CORE), find_those_of(&RING));
    core && ring
}

/// Finds the symbols of a module: none before it is live, all afterwards. One that is missing then is said, as the guest would wait for its disks without a word.
fn find_those_of(module: &[(&Late, &CStr)]) -> bool {
    let missing = || module.iter().filter(|(slot, _)| slot.addr().is_none());
    // The module may become live during the first round.
    for _ in 0..2 {
        for (slot, name) in missing() {
            // SAFETY: process context. Each symbol that is found pins its module.
            match unsafe { symbol_get(name.as_ptr().cast()) } {
                0 => {}
                address => slot.set(address),
            }
        }
    }
    if missing().count() < module.len() {
        missing().for_each(|(_, name)| log(format_args!("no devices: the kernel does not export {name:?}")));
    }
    missing().next().is_none()
}

fn register_device(number: usize) {
    let page = device_page(number);
    let device = DEVICES[number].ptr();
    let Some(register) = REGISTER_VIRTIO_DEVICE.addr() else { return };
    // SAFETY: the room is large enough; the symbol is a function of this type (drivers/virtio/virtio.c).
    let error = unsafe {
        VIRTIO_PARENT.write(device, PARENTS[number].addr());
        VIRTIO_RELEASE.write(device, release as *const () as u64);
        VIRTIO_ID.write(device, page.device_id.load(Ordering::Relaxed));
        VIRTIO_VENDOR.write(device, page.vendor_id.load(Ordering::Relaxed));
        VIRTIO_CONFIG.write(device, transport::operations());
        core::mem::transmute::<u64, unsafe extern "C" fn(*mut u8) -> i32>(register)(device)
    };
    match error {
        0 => turn::registered(number),
        _ => log(format_args!("device {number}: register_virtio_device failed ({error})")),
    }
}

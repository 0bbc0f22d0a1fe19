//! Orders of the daemon that only the kernel can carry out: vCPUs to use, and memory to take. A thread of the kernel does them, because they take long and sleep.

use crate::hypercall::{vcpu_count, vm};
use crate::room::{Room, peek, poke};
use crate::{nopc, smp, thread};
use colinux_abi::page::order;
use core::sync::atomic::{AtomicBool, Ordering};

const COMPLETION_ROOM: usize = 128;
/// `struct lock_class_key`, which is empty without lockdep.
const KEY_ROOM: usize = 64;

kbind::sizes! {
    static COMPLETION_SIZE = "completion" <= COMPLETION_ROOM;
    static KEY_SIZE = "lock_class_key" <= KEY_ROOM;
}

kbind::fields! {
    static WAIT: () = "completion.wait";
}

kbind::symbols! {
    static DEFAULT_ONLINE_TYPE: optional = "mhp_default_online_type";
}

kbind::enums! {
    static ONLINE: optional = "MMOP_ONLINE";
}

kbind::functions! {
    fn init_swait_queue_head(queue: *mut u8, name: *const u8, key: *mut u8) = "__init_swait_queue_head";
    fn wait_for_completion_interruptible(completion: *mut u8) -> i32;
    fn complete(completion: *mut u8);
    optional fn add_cpu(cpu: u32) -> i32;
    optional fn remove_cpu(cpu: u32) -> i32;
    optional fn add_memory(node: i32, start: u64, size: u64, flags: i32) -> i32;
}

/// The node of all memory that a guest has.
const NODE: i32 = 0;
/// MHP_NONE (include/linux/memory_hotplug.h).
const NO_FLAGS: i32 = 0;
/// ENOSYS and EINVAL of the kernel.
const NOT_BUILT: i32 = -38;
const INVALID: i32 = -22;

static COMPLETION: Room<COMPLETION_ROOM> = Room::new();
static KEY: Room<KEY_ROOM> = Room::new();
static READY: AtomicBool = AtomicBool::new(false);

/// Starts the thread. Process context.
pub fn start() {
    let completion = COMPLETION.ptr();
    // SAFETY: the rooms are large enough (checked by the loader) and live for ever; a completion of zeroes lacks its queue only (include/linux/completion.h).
    unsafe { init_swait_queue_head(WAIT.ptr(completion).cast(), c"colinux".as_ptr().cast(), KEY.ptr()) };
    READY.store(true, Ordering::Release);
    thread::start(serve, c"colinux_orders");
}

/// There is an order. Interrupt context.
pub fn ordered() {
    if READY.load(Ordering::Acquire) {
        // SAFETY: initialised; any context.
        unsafe { complete(COMPLETION.ptr()) };
    }
}

extern "C" fn serve(_data: u64) -> i32 {
    let order = &vm().order;
    loop {
        let number = order.number.load(Ordering::Acquire);
        if number == order.done.load(Ordering::Relaxed) {
            // SAFETY: initialised; this thread takes no signals.
            unsafe { wait_for_completion_interruptible(COMPLETION.ptr()) };
            continue;
        }
        let error = obey();
        order.error.store(error, Ordering::Relaxed);
        order.online.store(smp::online().count_ones(), Ordering::Relaxed);
        order.done.store(number, Ordering::Release);
    }
}

fn obey() -> i32 {
    let order = &vm().order;
    let [first, second] = [0, 1].map(|i: usize| order.args[i].load(Ordering::Relaxed));
    match order.kind.load(Ordering::Relaxed) {
        order::CPUS if first == 0 => 0,
        order::CPUS => use_cpus(first.min(vcpu_count() as u64) as u32),
        order::MEMORY => use_memory(first, second),
        _ => INVALID,
    }
}

/// Has the first `count` vCPUs online, and no others; the first one always is. 0 or the kernel's error.
fn use_cpus(count: u32) -> i32 {
    let (Some(add), Some(remove)) = (add_cpu(), remove_cpu()) else { return NOT_BUILT };
    let is_on = |cpu: u32| smp::online() >> cpu & 1 != 0;
    let all = 1..vcpu_count() as u32;
    // SAFETY: process context; what sysfs does, too.
    let take = |cpu: u32| if is_on(cpu) { 0 } else { unsafe { add(cpu) } };
    // SAFETY: as above.
    let leave = |cpu: u32| if is_on(cpu) { unsafe { remove(cpu) } } else { 0 };
    let takes = all.clone().filter(|cpu| *cpu < count).map(take);
    let leaves = all.rev().filter(|cpu| *cpu >= count).map(leave);
    takes.chain(leaves).find(|error| *error < 0).unwrap_or(0)
}

/// Has the kernel use `len` bytes at `gpa`, too. 0 or its error.
fn use_memory(gpa: u64, len: u64) -> i32 {
    let (Some(add), Some(kind), Some(online)) = (add_memory(), DEFAULT_ONLINE_TYPE.addr(), ONLINE.get())
    else {
        return NOT_BUILT;
    };
    // SAFETY: process context. The variable is an int, which says what becomes of new memory: a kernel that leaves it to its programs would leave it unused.
    nopc::with_memory(gpa, len, || unsafe {
        let before = peek::<i32>(kind);
        poke(kind, online as i32);
        let error = add(NODE, gpa, len, NO_FLAGS);
        poke(kind, before);
        error
    })
}

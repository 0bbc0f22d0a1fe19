//! Events whose handlers take locks of drivers. A kernel with PREEMPT_RT makes such locks sleep, so it runs the handlers of real interrupts in threads; what comes by
//! our upcall goes through a tasklet there, which such a kernel runs in a thread too (kernel/softirq.c). Other kernels need no detour.

use crate::room::Room;
use core::sync::atomic::{AtomicU64, Ordering};

const TASKLET_ROOM: usize = 64;

kbind::symbols! {
    /// Only with PREEMPT_RT (kernel/locking/spinlock_rt.c).
    static RT_SPIN_LOCK: optional = "rt_spin_lock";
}

kbind::sizes! {
    static TASKLET_SIZE = "tasklet_struct" <= TASKLET_ROOM;
}

kbind::fields! {
    static STATE: u64 = "tasklet_struct.state";
    static CALLBACK: u64 = "tasklet_struct.callback" takes 1;
}

kbind::enums! {
    static SCHEDULED = "TASKLET_STATE_SCHED";
}

kbind::functions! {
    fn __tasklet_schedule(tasklet: *mut u8);
}

static TASKLET: Room<TASKLET_ROOM> = Room::new();
/// Bits of `colinux_abi::page::event` that the tasklet has to do.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// Makes the tasklet ready: zeroed otherwise, it is enabled, and passes a number that means nothing. Before the first event.
pub fn prepare() {
    // SAFETY: the room is large enough (checked by the loader) and nobody's yet.
    unsafe { CALLBACK.write(TASKLET.ptr(), run as *const () as u64) };
}

/// Does `events` by `crate::irq::handle_devices`: at once, or soon in a thread. Interrupt context.
pub fn handle(events: u64) {
    if events == 0 {
        return;
    }
    if RT_SPIN_LOCK.addr().is_none() {
        return crate::irq::handle_devices(events);
    }
    EVENTS.fetch_or(events, Ordering::AcqRel);
    let tasklet = TASKLET.ptr();
    // SAFETY: the room is large enough (checked by the loader); the word is aligned and of this type in the kernel, which changes it by atomic instructions.
    let state = unsafe { AtomicU64::from_ptr(STATE.ptr(tasklet)) };
    let bit = 1 << SCHEDULED.get();
    if state.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
        // SAFETY: as tasklet_schedule(): the bit was clear, so the tasklet is in no list; `prepare` came before any event.
        unsafe { __tasklet_schedule(tasklet) };
    }
}

extern "C" fn run(_data: u64) {
    crate::irq::handle_devices(EVENTS.swap(0, Ordering::AcqRel));
}

//! NMI rescue: gets a CPU back from a guest that keeps interrupts off.
//!
//! A CPU on which a vCPU is resident is watched by a timer on *another* CPU, because its own timers may be what the guest keeps out. When it has seen no exit for a
//! whole period, the watcher sends it an NMI; the guest's NMI stub leaves even with interrupts off. The watchers of all CPUs form a ring, so that one CPU that still
//! takes interrupts gets all others back, one after the other.
//!
//! The watch is started by the first residency and ends by itself after a period without any.

use crate::bindings::cpu::{self, CALL, CALL_FUNCTION, CALL_INFO, NMI_ACTION, NMI_LOCAL, NMI_VECTOR};
use crate::bindings::memory::{vfree, vmalloc};
use crate::bindings::time::{HRTIMER_NORESTART, HRTIMER_PINNED_HARD, HRTIMER_RESTART};
use crate::bindings::{Room, init_list_head};
use crate::percpu;
use crate::timer::Timer;
use colinux_monitor::HostError;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::*};

/// Nanoseconds that a vCPU may stay in the guest: two or three ticks, so that the tick itself usually gets it out first.
const PERIOD: u64 = 10_000_000;
const NAME: *const u8 = c"colinux".as_ptr().cast();
/// CPUs when the kernel does not say: it was built for a fixed number.
const CPUS_UNKNOWN: u32 = 8192;

/// The watch over one CPU. The timer is first, because callbacks get its address.
#[repr(C, align(128))]
struct Watch {
    timer: Timer,
    call: Room<CALL>,
    cpu: u32,
    resident: AtomicBool,
    armed: AtomicBool,
    /// An NMI of ours is on its way, or has arrived unclaimed.
    sent: AtomicBool,
    /// The last NMI on the CPU was ours.
    claimed: AtomicBool,
    /// Grows with each exit.
    beat: AtomicU64,
    seen: AtomicU64,
}

static WATCHES: AtomicPtr<Watch> = AtomicPtr::new(core::ptr::null_mut());
static COUNT: AtomicU32 = AtomicU32::new(0);
static ACTION: Room<NMI_ACTION> = Room::new();
/// The module goes: nobody is asked to watch any more.
static ENDS: AtomicBool = AtomicBool::new(false);

fn cpu_count() -> u32 {
    if cpu::nr_cpu_ids::present() {
        // SAFETY: constant after boot.
        unsafe { (&raw const cpu::nr_cpu_ids).read() }
    } else {
        CPUS_UNKNOWN
    }
}

fn watch_of(cpu: u32) -> Option<&'static Watch> {
    let base = WATCHES.load(Acquire);
    // SAFETY: the array has COUNT elements and lives until the module goes.
    (!base.is_null() && cpu < COUNT.load(Relaxed)).then(|| unsafe { &*base.add(cpu as usize) })
}

fn watches() -> impl Iterator<Item = &'static Watch> {
    (0..COUNT.load(Relaxed)).filter_map(watch_of)
}

/// Makes the watches and claims our NMIs. At module load.
///
/// # Errors
/// [`HostError`] of the kernel; nothing is left behind.
pub fn start() -> Result<(), HostError> {
    let count = cpu_count();
    let bytes = count as usize * size_of::<Watch>();
    // SAFETY: process context.
    let base = unsafe { vmalloc(bytes as u64) }.cast::<Watch>();
    if base.is_null() {
        return Err(HostError::NoMemory);
    }
    // SAFETY: the memory is ours; all zero is a valid watch.
    unsafe { core::ptr::write_bytes(base.cast::<u8>(), 0, bytes) };
    for cpu in 0..count {
        // SAFETY: within the array; not shared yet.
        unsafe { (*base.add(cpu as usize)).cpu = cpu };
    }
    COUNT.store(count, Relaxed);
    WATCHES.store(base, Release);
    let result = watches().try_for_each(Watch::init).and_then(|()| register());
    if result.is_err() {
        free();
    }
    result
}

fn register() -> Result<(), HostError> {
    let action = ACTION.get();
    // SAFETY: the room is large enough; the fields are where BTF says.
    let result = unsafe {
        init_list_head(cpu::NMI_LIST.ptr(action));
        cpu::NMI_FUNCTION.write(action, nmi as *const () as u64);
        cpu::NMI_NAME.write(action, NAME as u64);
        cpu::register_nmi_handler(NMI_LOCAL.get() as u32, action)
    };
    crate::errno::check(result).map(drop)
}

/// Ends all watching. At module exit, when no vCPU exists.
pub fn stop() {
    ENDS.store(true, SeqCst);
    // The first round ends the timers, whose callbacks may just have asked another CPU to watch; the second one ends what those calls have started.
    for _ in 0..2 {
        finish_calls();
        watches().for_each(|watch| watch.timer.cancel());
    }
    // SAFETY: registered by `start`; waits for handlers that run.
    unsafe { cpu::unregister_nmi_handler(NMI_LOCAL.get() as u32, NAME) };
    free();
}

/// Waits for what any CPU was asked: the call that starts the watch over one CPU is another CPU's, any other's. Calls to a CPU are done in order; an offline CPU has none.
fn finish_calls() {
    for watch in watches() {
        // SAFETY: process context.
        unsafe {
            cpu::smp_call_function_single(
                watch.cpu as i32,
                nothing as *const () as u64,
                core::ptr::null_mut(),
                1,
            )
        };
    }
}

fn free() {
    let base = WATCHES.swap(core::ptr::null_mut(), AcqRel);
    // SAFETY: nobody uses the array any more.
    unsafe { vfree(base.cast()) };
}

unsafe extern "C" fn nothing(_: *mut u8) {}

impl Watch {
    fn init(&self) -> Result<(), HostError> {
        // SAFETY: the room is large enough; the fields are where BTF says.
        unsafe {
            CALL_FUNCTION.write(self.call.get(), arm as *const () as u64);
            CALL_INFO.write(self.call.get(), &raw const *self as u64);
        }
        self.timer.init(tick, HRTIMER_PINNED_HARD.get() as u32)
    }

    /// Asks another CPU to watch this one. Without another one there is nobody to rescue us.
    fn request(&self) {
        let count = COUNT.load(Relaxed);
        let asked = !ENDS.load(SeqCst)
            && (1..count).map(|step| (self.cpu + step) % count).any(|other| {
                // SAFETY: preemption is off; the call is unused, because the watch was not armed. An offline CPU is refused.
                unsafe { cpu::smp_call_function_single_async(other as i32, self.call.get()) == 0 }
            });
        if !asked {
            self.armed.store(false, Release);
        }
    }

    /// One look at the watched CPU; false: the watch ends.
    fn look(&self) -> bool {
        let beat = self.beat.load(Acquire);
        let stuck = self.seen.swap(beat, Relaxed) == beat;
        // One at a time: a second one, sent before the first was claimed, would find nothing to claim.
        if stuck && self.resident.load(Acquire) && !self.sent.swap(true, SeqCst) {
            send_nmi(self.cpu);
        }
        if !stuck || self.resident.load(Acquire) {
            return true;
        }
        self.armed.store(false, SeqCst);
        self.resident.load(SeqCst) && !self.armed.swap(true, SeqCst)
    }
}

/// On the watching CPU, in hard interrupt context.
unsafe extern "C" fn arm(watch: *mut u8) {
    // SAFETY: the info word of the call is the watch.
    let watch = unsafe { &*watch.cast::<Watch>() };
    watch.timer.start(PERIOD, HRTIMER_PINNED_HARD.get() as u32);
}

unsafe extern "C" fn tick(timer: *mut Timer) -> u32 {
    // SAFETY: the timer is the first field of a watch.
    let watch = unsafe { &*timer.cast::<Watch>() };
    if !watch.look() {
        return HRTIMER_NORESTART.get() as u32;
    }
    if watch.cpu == percpu::cpu() {
        // The watching CPU went offline, and its timers came here, where a guest can keep them out.
        watch.request();
        return HRTIMER_NORESTART.get() as u32;
    }
    watch.timer.forward(PERIOD);
    HRTIMER_RESTART.get() as u32
}

/// The kernel asks whose NMI it was; 1 for ours.
unsafe extern "C" fn nmi(_kind: u32, _registers: *mut u8) -> i32 {
    let Some(watch) = watch_of(percpu::cpu()) else { return 0 };
    let ours = watch.sent.swap(false, SeqCst);
    if ours {
        watch.claimed.store(true, Relaxed);
    }
    i32::from(ours)
}

/// Sends an NMI to a CPU.
pub fn send_nmi(cpu: u32) {
    // SAFETY: `apic` points to the driver of the interrupt controller in use, whose `send_IPI` has this signature (arch/x86/include/asm/apic.h) and takes the NMI vector.
    unsafe {
        let apic = (&raw const cpu::apic).read_volatile();
        let send = core::mem::transmute::<u64, unsafe extern "C" fn(i32, i32)>(cpu::APIC_SEND_IPI.read(apic));
        send(cpu as i32, NMI_VECTOR);
    }
}

/// A vCPU takes this CPU. Preemption is off, interrupts are on.
pub fn enter() {
    let Some(watch) = watch_of(percpu::cpu()) else { return };
    watch.beat.fetch_add(1, Relaxed);
    watch.resident.store(true, SeqCst);
    if !watch.armed.swap(true, SeqCst) {
        watch.request();
    }
}

/// What tells the watch of this CPU that the vCPU has left the guest.
#[derive(Clone, Copy, Default)]
pub struct Pulse(Option<&'static Watch>);

impl Pulse {
    /// That of this CPU; good as long as the vCPU stays on it. Preemption is off.
    pub fn here() -> Self {
        Self(watch_of(percpu::cpu()))
    }

    /// The vCPU has left the guest.
    #[inline]
    pub fn beat(self) {
        if let Some(watch) = self.0 {
            // Nobody else writes it while the vCPU is here.
            watch.beat.store(watch.beat.load(Relaxed).wrapping_add(1), Release);
        }
    }
}

/// The vCPU gives this CPU up. Preemption is off.
pub fn leave() {
    if let Some(watch) = watch_of(percpu::cpu()) {
        watch.resident.store(false, Release);
    }
}

/// The last NMI on this CPU was a rescue; forgets it.
pub fn take_claim() -> bool {
    watch_of(percpu::cpu()).is_some_and(|watch| watch.claimed.swap(false, Relaxed))
}

/// Sends this CPU an NMI that will be claimed as ours.
pub fn nmi_self() {
    let cpu = percpu::cpu();
    if watch_of(cpu).is_some_and(|watch| !watch.sent.swap(true, SeqCst)) {
        send_nmi(cpu);
    }
}

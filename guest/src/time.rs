//! The clock: a clock event device in nanoseconds over the host's timer, the TSC as clock source (the kernel's own). The wall clock is in [`crate::wall_clock`].

use crate::hypercall::{call, irqs_off, vcpu_count, vm};
use crate::room::{Room, poke};
use crate::{apic, cpuid, memory};
use colinux_abi::MAX_VCPUS;
use colinux_abi::hypercall::{TIMER, TIMER_OFF};
use core::sync::atomic::{AtomicBool, Ordering};

const ROOM: usize = 384;

kbind::sizes! {
    static CLOCK_EVENT_DEVICE = "clock_event_device" <= ROOM;
    static CPUMASK = "cpumask" <= 4096;
}

kbind::fields! {
    static EVENT_HANDLER: u64 = "clock_event_device.event_handler" takes 1;
    static SET_NEXT_EVENT: u64 = "clock_event_device.set_next_event" takes 2;
    static SET_STATE_SHUTDOWN: u64 = "clock_event_device.set_state_shutdown" takes 1;
    static SET_STATE_ONESHOT_STOPPED: u64 = "clock_event_device.set_state_oneshot_stopped" takes 1;
    static FEATURES: u32 = "clock_event_device.features";
    static NAME: u64 = "clock_event_device.name";
    static RATING: i32 = "clock_event_device.rating";
    static IRQ: i32 = "clock_event_device.irq";
    static CLOCK_CPUMASK: u64 = "clock_event_device.cpumask";
}

kbind::symbols! {
    static CPU_BIT_BITMAP = "cpu_bit_bitmap";
    static TSC_CLOCKSOURCE_RELIABLE: optional = "tsc_clocksource_reliable";
}

kbind::functions! {
    fn clockevents_config_and_register(device: *mut u8, frequency: u32, min: u64, max: u64);
}

kbind::hooks! {
    "x86_init+x86_init_ops.timers.timer_init" = timer_init: 0, was "hpet_time_init";
    "x86_init+x86_init_ops.timers.setup_percpu_clockev" = nothing: 0, was "setup_boot_APIC_clock";
    "x86_init+x86_init_ops.timers.wallclock_init" = nothing: 0, was "x86_wallclock_init";
    "x86_cpuinit+x86_cpuinit_ops.setup_percpu_clockev" = start_secondary_clock: 0, was "setup_secondary_APIC_clock";
    "x86_platform+x86_platform_ops.calibrate_tsc" = tsc_khz: 0, was "native_calibrate_tsc";
    "x86_platform+x86_platform_ops.calibrate_cpu" = tsc_khz: 0, was "native_calibrate_cpu_early";
}

/// CLOCK_EVT_FEAT_ONESHOT, in the device's own features word (include/linux/clockchips.h).
const ONESHOT: u32 = 2;
/// One tick of the device is one nanosecond.
const FREQUENCY: u32 = 1_000_000_000;
const MIN_DELTA: u64 = 1_000;
const MAX_DELTA: u64 = 0x7fff_ffff_ffff;

static DEVICES: [Room<ROOM>; MAX_VCPUS] = [const { Room::new() }; MAX_VCPUS];
static REGISTERED: [AtomicBool; MAX_VCPUS] = [const { AtomicBool::new(false) }; MAX_VCPUS];

extern "C" fn nothing() {}

extern "C" fn tsc_khz() -> u64 {
    vm().tsc_khz
}

/// The TSC needs no watchdog: the host keeps time by it, or says so in its log.
pub fn trust_tsc() {
    if let Some(reliable) = TSC_CLOCKSOURCE_RELIABLE.addr() {
        // SAFETY: an int of the kernel, read when the clock source is registered.
        unsafe { poke(reliable, 1i32) };
    }
}

/// `x86_init.timers.timer_init`, on the boot CPU, after the memory allocators are up.
extern "C" fn timer_init() {
    memory::map_in_user_tables();
    start_clock();
}

/// `x86_cpuinit.setup_percpu_clockev`, on each other CPU when it starts, interrupts on already.
extern "C" fn start_secondary_clock() {
    irqs_off(cpuid::drop_global_pages);
    apic::show();
    start_clock();
}

/// Registers the clock event device of the CPU that runs this.
fn start_clock() {
    let vcpu = crate::hypercall::index();
    let device = DEVICES[vcpu].ptr();
    if REGISTERED[vcpu].load(Ordering::Relaxed) {
        // SAFETY: a CPU that comes back: the core has forgotten the device, so it is ours to fill again.
        unsafe { device.write_bytes(0, CLOCK_EVENT_DEVICE.get()) };
    }
    let mask = CPU_BIT_BITMAP.addr() + ((1 + vcpu) * CPUMASK.get()) as u64;
    // SAFETY: the room is large enough (checked by the loader) and nobody else knows it before it is registered.
    unsafe {
        NAME.write(device, c"colinux".as_ptr() as u64);
        FEATURES.write(device, ONESHOT);
        RATING.write(device, 500);
        IRQ.write(device, -1);
        CLOCK_CPUMASK.write(device, mask);
        SET_NEXT_EVENT.write(device, set_next_event as *const () as u64);
        SET_STATE_SHUTDOWN.write(device, shutdown as *const () as u64);
        SET_STATE_ONESHOT_STOPPED.write(device, shutdown as *const () as u64);
        REGISTERED[vcpu].store(true, Ordering::Release);
        clockevents_config_and_register(device, FREQUENCY, MIN_DELTA, MAX_DELTA);
    }
}

extern "C" fn set_next_event(delta: u64, _device: *mut u8) -> i32 {
    call(TIMER, delta, 0);
    0
}

extern "C" fn shutdown(_device: *mut u8) -> i32 {
    call(TIMER, TIMER_OFF, 0);
    0
}

/// The deadline of this vCPU has passed.
pub fn expired(vcpu: usize) {
    if vcpu >= vcpu_count() || !REGISTERED[vcpu].load(Ordering::Acquire) {
        return;
    }
    let device = DEVICES[vcpu].ptr();
    // SAFETY: the device is registered; its handler is a function of the kernel that takes the device, or null before the core has set it.
    unsafe {
        let handler =
            core::mem::transmute::<u64, Option<unsafe extern "C" fn(*mut u8)>>(EVENT_HANDLER.read(device));
        if let Some(handler) = handler {
            handler(device);
        }
    }
}

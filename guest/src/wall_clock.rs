//! The wall clock follows the host's: set at boot, stepped when the host's was, and slewed while it drifts. It drifts because both kernels count the same TSC, but only the
//! host's is disciplined by NTP.

use crate::console;
use crate::hypercall::{call, tsc, vm};
use crate::room::Room;
use colinux_abi::hypercall::WALL_CLOCK;
use core::sync::atomic::{AtomicBool, Ordering};

const TIMEX_ROOM: usize = 256;
const WORK_ROOM: usize = 128;

kbind::sizes! {
    static TIMEX_SIZE = "__kernel_timex" <= TIMEX_ROOM;
    static EXECUTE_WORK_SIZE = "execute_work" <= WORK_ROOM;
}

kbind::fields! {
    static MODES: u32 = "__kernel_timex.modes";
    static OFFSET: i64 = "__kernel_timex.offset";
    static STATUS: i32 = "__kernel_timex.status";
}

kbind::functions! {
    fn do_settimeofday64(time: *const Timespec) -> i32;
    fn ktime_get_real_ts64(time: *mut Timespec);
    fn do_adjtimex(timex: *mut u8) -> i32;
    fn execute_in_process_context(function: u64, work: *mut u8) -> i32;
}

kbind::hooks! {
    "x86_platform+x86_platform_ops.get_wallclock" = get_wallclock: 1, was "mach_get_cmos_time";
    "x86_platform+x86_platform_ops.set_wallclock" = set_wallclock: 1, was "mach_set_cmos_time";
}

/// `struct timespec64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl Timespec {
    const ZERO: Self = Self { seconds: 0, nanoseconds: 0 };

    /// Nanoseconds from `earlier` to this; saturates after 292 years.
    fn since(&self, earlier: &Self) -> i64 {
        let seconds = self.seconds.saturating_sub(earlier.seconds);
        seconds.saturating_mul(1_000_000_000).saturating_add(self.nanoseconds - earlier.nanoseconds)
    }
}

/// ADJ_OFFSET_SINGLESHOT: slews by 500 ppm until the offset, in microseconds, is made up for; STA_UNSYNC: nobody in the guest disciplines its clock
/// (include/uapi/linux/timex.h).
const SINGLESHOT: u32 = 0x8001;
const UNSYNC: i32 = 0x40;
/// A larger difference is a step of the host's clock, not a drift.
const STEP: u64 = 500_000_000;
/// A smaller one is within what reading two clocks costs.
const NOISE: u64 = 1_000_000;

static TIMEX: Room<TIMEX_ROOM> = Room::new();
static WORK: Room<WORK_ROOM> = Room::new();
/// The work is queued.
static QUEUED: AtomicBool = AtomicBool::new(false);

/// The host's wall clock now.
fn wall_clock() -> Timespec {
    call(WALL_CLOCK, 0, 0);
    let vm = vm();
    let cycles = tsc().saturating_sub(vm.wall_tsc.load(Ordering::Acquire));
    let khz = vm.tsc_khz.max(1);
    let passed = cycles / khz * 1_000_000 + cycles % khz * 1_000_000 / khz;
    let nanoseconds = vm.wall_nsec.load(Ordering::Acquire) + passed;
    let seconds = vm.wall_sec.load(Ordering::Acquire) + nanoseconds / 1_000_000_000;
    Timespec { seconds: seconds as i64, nanoseconds: (nanoseconds % 1_000_000_000) as i64 }
}

extern "C" fn get_wallclock(time: *mut Timespec) {
    // SAFETY: the kernel passes a timespec64 to fill.
    unsafe { time.write(wall_clock()) };
}

/// The host's clock is the host's.
extern "C" fn set_wallclock(_time: *const Timespec) -> i32 {
    0
}

/// Sets the clock right, once the TSC drives it: until then it counted timer ticks, some of which the early boot has lost.
pub fn resync() {
    step(&wall_clock());
}

fn step(time: &Timespec) {
    // SAFETY: process context, as clock_settime().
    unsafe { do_settimeofday64(time) };
}

/// The event CLOCK. The clock can be set in process context only; what is queued already will look at the clocks when it runs.
pub fn look_again() {
    if !QUEUED.swap(true, Ordering::AcqRel) {
        // SAFETY: interrupt context, so the work is queued; it is ours alone, because the flag was clear.
        unsafe { execute_in_process_context(follow as *const () as u64, WORK.ptr()) };
    }
}

/// Compares the clocks, in process context.
extern "C" fn follow(_work: *mut u8) {
    QUEUED.store(false, Ordering::Release);
    let (host, mut own) = (wall_clock(), Timespec::ZERO);
    // SAFETY: it fills the timespec64.
    unsafe { ktime_get_real_ts64(&mut own) };
    let ahead = host.since(&own);
    match ahead.unsigned_abs() {
        STEP.. => {
            console::log(format_args!("the host's clock was set: {} s", ahead / 1_000_000_000));
            step(&host);
        }
        NOISE.. => slew(ahead),
        _ => {}
    }
}

/// Lets the clock run faster or slower for a while, unless somebody in the guest disciplines it.
fn slew(nanoseconds: i64) {
    let timex = TIMEX.ptr();
    // SAFETY: the room is large enough (checked by the loader) and used here only, one work at a time; without modes the call only reads.
    unsafe {
        timex.write_bytes(0, TIMEX_ROOM);
        do_adjtimex(timex);
        if STATUS.read(timex) & UNSYNC != 0 {
            timex.write_bytes(0, TIMEX_ROOM);
            MODES.write(timex, SINGLESHOT);
            OFFSET.write(timex, nanoseconds / 1000);
            do_adjtimex(timex);
        }
    }
}

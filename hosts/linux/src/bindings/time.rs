//! Clocks and timers.

use super::Opaque;

kbind::imports! {
    pub optional fn hrtimer_init(timer: Opaque, clock: i32, mode: u32);
    pub optional fn hrtimer_setup(timer: Opaque, function: u64, clock: i32, mode: u32);
    pub fn hrtimer_start_range_ns(timer: Opaque, time: i64, range: u64, mode: u32);
    pub fn hrtimer_cancel(timer: Opaque) -> i32;
    pub fn hrtimer_try_to_cancel(timer: Opaque) -> i32;
    pub fn hrtimer_forward(timer: Opaque, now: i64, interval: i64) -> u64;
    pub fn ktime_get() -> i64;
    pub fn ktime_get_real_ts64(time: *mut [u64; 2]);
    pub static tsc_khz: u32;
}

kbind::fields! {
    /// Private where `hrtimer_setup` sets it.
    pub static HRTIMER_FUNCTION: optional u64 = "hrtimer.function";
    pub static TIMESPEC_SECONDS: i64 = "timespec64.tv_sec";
    pub static TIMESPEC_NANOSECONDS: i64 = "timespec64.tv_nsec";
}

/// Room for `struct hrtimer`.
pub const HRTIMER: usize = 128;

kbind::sizes! {
    pub static HRTIMER_SIZE = "hrtimer" <= HRTIMER;
    pub static TIMESPEC_SIZE = "timespec64" <= 16;
}

kbind::enums! {
    pub static HRTIMER_RELATIVE = "HRTIMER_MODE_REL";
    pub static HRTIMER_PINNED_HARD = "HRTIMER_MODE_REL_PINNED_HARD";
    pub static HRTIMER_RESTART = "HRTIMER_RESTART";
    pub static HRTIMER_NORESTART = "HRTIMER_NORESTART";
}

/// CLOCK_MONOTONIC, part of the user ABI.
pub const CLOCK_MONOTONIC: i32 = 1;

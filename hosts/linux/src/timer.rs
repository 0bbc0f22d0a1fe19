//! `struct hrtimer`.

use crate::bindings::Room;
use crate::bindings::time::{self, CLOCK_MONOTONIC, HRTIMER, HRTIMER_FUNCTION, HRTIMER_RELATIVE};
use colinux_monitor::HostError;

/// A callback: gets the timer, says whether to run again.
pub type Callback = unsafe extern "C" fn(*mut Timer) -> u32;

/// A timer in memory that does not move. All zero is one that [`Timer::init`] must make usable.
#[repr(transparent)]
pub struct Timer(Room<HRTIMER>);

impl Timer {
    /// Makes it usable, in the mode in which it will be started.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has none of the ways that we know.
    pub fn init(&self, function: Callback, mode: u32) -> Result<(), HostError> {
        let (timer, function) = (self.0.get(), function as usize as u64);
        // SAFETY: the room is large enough (checked by the loader); nobody uses the timer yet.
        unsafe {
            if time::hrtimer_setup::present() {
                time::hrtimer_setup(timer, function, CLOCK_MONOTONIC, mode);
                return Ok(());
            }
            if !time::hrtimer_init::present() {
                return Err(HostError::Unsupported);
            }
            time::hrtimer_init(timer, CLOCK_MONOTONIC, mode);
            if HRTIMER_FUNCTION.write_if(timer, function) { Ok(()) } else { Err(HostError::Unsupported) }
        }
    }

    /// Starts it, or starts it anew. Any context.
    pub fn start(&self, nanoseconds: u64, mode: u32) {
        let nanoseconds = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
        // SAFETY: initialised.
        unsafe { time::hrtimer_start_range_ns(self.0.get(), nanoseconds, 0, mode) };
    }

    /// Moves the deadline on by whole periods; in the callback.
    pub fn forward(&self, period: u64) {
        // SAFETY: initialised, in its callback.
        unsafe { time::hrtimer_forward(self.0.get(), time::ktime_get(), period as i64) };
    }

    /// Stops it, unless its callback runs just now. Any context.
    pub fn try_cancel(&self) {
        // SAFETY: initialised.
        unsafe { time::hrtimer_try_to_cancel(self.0.get()) };
    }

    /// Stops it and waits for its callback. Process context.
    pub fn cancel(&self) {
        // SAFETY: initialised.
        unsafe { time::hrtimer_cancel(self.0.get()) };
    }
}

/// The mode of timers that may fire on any CPU.
pub fn relative() -> u32 {
    HRTIMER_RELATIVE.get() as u32
}

//! The kernel's mutex.

use crate::bindings::Room;
use crate::bindings::sched::{self, MUTEX};
use colinux_monitor::{HostError, ZeroInit};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// Room for `struct lock_class_key`, of which kernels without lockdep use nothing.
static KEY: Room<64> = Room::new();

/// A value behind a `struct mutex`. All zero is one that [`Mutex::init`] must make usable.
#[repr(C)]
pub struct Mutex<T> {
    lock: Room<MUTEX>,
    value: UnsafeCell<T>,
}

// SAFETY: the mutex gives one thread at a time to the value.
unsafe impl<T: Send> Sync for Mutex<T> {}
// SAFETY: bytes, and a value that may be zero.
unsafe impl<T: ZeroInit> ZeroInit for Mutex<T> {}

impl<T> Mutex<T> {
    /// One that [`Self::init`] must make usable.
    pub const fn new(value: T) -> Self {
        Self { lock: Room::new(), value: UnsafeCell::new(value) }
    }

    /// Makes the zeroed mutex usable; before it is shared.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has none of the ways that we know.
    pub fn init(&self) -> Result<(), HostError> {
        let (lock, name, key) = (self.lock.get(), c"colinux".as_ptr().cast(), KEY.get());
        // SAFETY: the room is large enough (checked by the loader) and nobody uses it yet. A zeroed rt_mutex_base is a free one.
        unsafe {
            if sched::mutex_init_generic::present() {
                sched::mutex_init_generic(lock);
            } else if sched::mutex_init::present() {
                sched::mutex_init(lock, name, key);
            } else if sched::mutex_rt_init::present() {
                sched::mutex_rt_init(lock, name, key);
            } else {
                return Err(HostError::Unsupported);
            }
        }
        Ok(())
    }

    /// Waits for it. Process context.
    pub fn lock(&self) -> Guard<'_, T> {
        // SAFETY: initialised before the value was shared.
        unsafe { sched::mutex_lock(self.lock.get()) };
        Guard(self)
    }

    /// Waits for it, unless the thread is killed meanwhile. Process context.
    pub fn lock_killable(&self) -> Option<Guard<'_, T>> {
        // SAFETY: initialised before the value was shared.
        (unsafe { sched::mutex_lock_killable(self.lock.get()) } == 0).then_some(Guard(self))
    }
}

/// Access to the value.
pub struct Guard<'a, T>(&'a Mutex<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mutex is held.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: held by this thread.
        unsafe { sched::mutex_unlock(self.0.lock.get()) };
    }
}

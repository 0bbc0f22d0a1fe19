//! Sleeping until an event or a signal.

use crate::bindings::Room;
use crate::bindings::sched::{self, TASK_INTERRUPTIBLE, TASK_NORMAL, WAIT_ENTRY, WAIT_HEAD};
use colinux_monitor::Interrupted;
use core::ptr::null_mut;

/// Room for `struct lock_class_key`.
static KEY: Room<64> = Room::new();

/// A `struct wait_queue_head`. All zero is one that [`WaitQueue::init`] must make usable.
#[repr(transparent)]
pub struct WaitQueue(Room<WAIT_HEAD>);

impl WaitQueue {
    /// Makes it usable; before it is shared.
    pub fn init(&self) {
        // SAFETY: the room is large enough (checked by the loader).
        unsafe { sched::init_waitqueue_head(self.0.get(), c"colinux".as_ptr().cast(), KEY.get()) };
    }

    /// Wakes all that sleep here. Any context on kernels with spinning locks.
    pub fn wake(&self) {
        // SAFETY: initialised.
        unsafe { sched::wake_up(self.0.get(), TASK_NORMAL, 1, null_mut()) };
    }

    /// A signal is pending for this thread. (The kernel has no exported function that says just this, and the flag's place is a macro that moves.)
    pub fn interrupted(&self) -> bool {
        let entry = Room::new();
        Sleeper::new(self, &entry).prepare().is_err()
    }

    /// Sleeps until `ready`.
    ///
    /// # Errors
    /// [`Interrupted`] when a signal came first.
    pub fn wait(&self, ready: impl Fn() -> bool) -> Result<(), Interrupted> {
        let entry = Room::new();
        let sleeper = Sleeper::new(self, &entry);
        loop {
            let signal = sleeper.prepare();
            if ready() {
                return Ok(());
            }
            signal?;
            // SAFETY: process context, nothing held.
            unsafe { sched::schedule() };
        }
    }
}

/// A thread on the queue; dropping it makes the thread run on as usual.
struct Sleeper<'a> {
    queue: &'a WaitQueue,
    /// Points to itself, so it must not move.
    entry: &'a Room<WAIT_ENTRY>,
}

impl<'a> Sleeper<'a> {
    fn new(queue: &'a WaitQueue, entry: &'a Room<WAIT_ENTRY>) -> Self {
        // SAFETY: the room is large enough (checked by the loader).
        unsafe { sched::init_wait_entry(entry.get(), 0) };
        Self { queue, entry }
    }

    /// Joins the queue, unless a signal is pending.
    fn prepare(&self) -> Result<(), Interrupted> {
        // SAFETY: the queue is initialised; the entry stays in place until `drop` takes it off.
        let result =
            unsafe { sched::prepare_to_wait_event(self.queue.0.get(), self.entry.get(), TASK_INTERRUPTIBLE) };
        if result == 0 { Ok(()) } else { Err(Interrupted) }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `prepare`.
        unsafe { sched::finish_wait(self.queue.0.get(), self.entry.get()) };
    }
}

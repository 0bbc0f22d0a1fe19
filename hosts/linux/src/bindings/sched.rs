//! Scheduling, waiting, preemption.

use super::Opaque;

kbind::imports! {
    pub fn schedule();
    pub fn yield_now() = "yield";
    pub fn kick_process(task: Opaque);
    pub fn prepare_to_wait_event(head: Opaque, entry: Opaque, state: i32) -> i64;
    pub fn finish_wait(head: Opaque, entry: Opaque);
    pub fn init_wait_entry(entry: Opaque, flags: i32);
    pub fn init_waitqueue_head(head: Opaque, name: *const u8, key: Opaque) = "__init_waitqueue_head";
    pub fn wake_up(head: Opaque, mode: u32, count: i32, key: Opaque) = "__wake_up";
    pub fn add_wait_queue(head: Opaque, entry: Opaque);
    pub fn remove_wait_queue(head: Opaque, entry: Opaque);
    pub optional fn preempt_schedule();
    pub optional fn cond_resched() = "__cond_resched|_cond_resched";
    pub optional fn single_task_running() -> bool;
    pub fn mutex_lock(mutex: Opaque);
    pub fn mutex_lock_killable(mutex: Opaque) -> i32;
    pub fn mutex_unlock(mutex: Opaque);
    pub optional fn mutex_init(mutex: Opaque, name: *const u8, key: Opaque) = "__mutex_init";
    pub optional fn mutex_init_generic(mutex: Opaque);
    pub optional fn mutex_rt_init(mutex: Opaque, name: *const u8, key: Opaque) = "__mutex_rt_init";
    pub fn synchronize_rcu();
    pub variadic fn printk(format: *const u8) -> i32 = "_printk|printk";
}

kbind::symbols! {
    /// Per-CPU.
    pub static CURRENT = "current_task|pcpu_hot+pcpu_hot.current_task";
    /// Per-CPU.
    pub static CPU_NUMBER = "cpu_number|pcpu_hot+pcpu_hot.cpu_number";
    /// Per-CPU.
    pub static PREEMPT_COUNT = "__preempt_count|pcpu_hot+pcpu_hot.preempt_count";
}

kbind::fields! {
    /// Called with the lock of the queue.
    pub static WAIT_FUNC: u64 = "wait_queue_entry.func";
    /// A spinlock that has an owner is a sleeping one: PREEMPT_RT.
    pub static SPINLOCK_OWNER: optional u64 = "spinlock.lock.owner";
}

/// Room for `struct wait_queue_head`.
pub const WAIT_HEAD: usize = 64;
/// Room for `struct wait_queue_entry`.
pub const WAIT_ENTRY: usize = 64;
/// Room for `struct mutex`.
pub const MUTEX: usize = 128;

kbind::sizes! {
    pub static WAIT_HEAD_SIZE = "wait_queue_head" <= WAIT_HEAD;
    pub static WAIT_ENTRY_SIZE = "wait_queue_entry" <= WAIT_ENTRY;
    pub static MUTEX_SIZE = "mutex" <= MUTEX;
}

/// Task states (include/linux/sched.h). Macros, the same since Linux 1.0; waits and wake-ups are the only users.
pub const TASK_INTERRUPTIBLE: i32 = 1;
/// TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE.
pub const TASK_NORMAL: u32 = 3;

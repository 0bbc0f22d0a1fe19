//! What others need to reach a vCPU: its thread, its wait queue, its timer, its self-interrupt.

use crate::bindings::cpu::{self, IRQ_WORK, IRQ_WORK_FUNCTION};
use crate::bindings::{Opaque, Room, sched};
use crate::host::LinuxHost;
use crate::percpu;
use crate::timer::{Timer, relative};
use crate::vm::VmObject;
use crate::wait::WaitQueue;
use colinux_abi::page::event;
use colinux_monitor::{HostError, ZeroInit};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// One vCPU's handles. The timer is first, because its callback gets its address. All zero is one that [`Handles::init`] must make usable.
#[repr(C, align(128))]
pub struct Handles {
    timer: Timer,
    queue: WaitQueue,
    work: Room<IRQ_WORK>,
    task: AtomicPtr<u8>,
    vm: *const VmObject,
    index: usize,
    ready: bool,
}

// SAFETY: zero bytes and null pointers.
unsafe impl ZeroInit for Handles {}

impl Handles {
    /// Makes the zeroed handles of vCPU `index` usable.
    ///
    /// # Safety
    /// `this` is part of `vm`, and not shared yet.
    ///
    /// # Errors
    /// [`HostError`] when the kernel has no timers that we know.
    pub unsafe fn init(this: *mut Self, vm: *const VmObject, index: usize) -> Result<(), HostError> {
        // SAFETY: by contract.
        let handles = unsafe { &mut *this };
        (handles.vm, handles.index) = (vm, index);
        handles.queue.init();
        // SAFETY: the room is large enough; all other fields of the structure are zero when idle (include/linux/irq_work.h: IRQ_WORK_INIT).
        unsafe { IRQ_WORK_FUNCTION.write(handles.work.get(), nothing as *const () as u64) };
        handles.timer.init(expired, relative())?;
        handles.ready = true;
        Ok(())
    }

    /// The thread becomes reachable for kicks. Preemption is off.
    pub fn pinned(&self) {
        self.task.store(percpu::current(), Ordering::SeqCst);
    }

    /// And no longer.
    pub fn unpinned(&self) {
        self.task.store(null_mut(), Ordering::SeqCst);
    }

    /// Interrupts the CPU on which the thread runs, if it is another one. (If it is this one, the thread is out of the guest already.)
    pub fn kick(&self) {
        // A task is freed only after all CPUs have been preemptible once (RCU), and this one is published only while its thread runs.
        percpu::preempt_disable();
        let task: Opaque = self.task.load(Ordering::SeqCst);
        if !task.is_null() {
            // SAFETY: alive, see above.
            unsafe { sched::kick_process(task) };
        }
        percpu::preempt_enable();
    }

    /// Where the thread sleeps.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Sets or stops the guest's timer. A callback that runs just now comes through: a guest must bear a spurious event.
    pub fn set_timer(&self, nanoseconds: Option<u64>) {
        match nanoseconds {
            Some(nanoseconds) => self.timer.start(nanoseconds, relative()),
            None => self.timer.try_cancel(),
        }
    }

    /// Sends this CPU an interrupt.
    pub fn interrupt_self(&self) {
        // SAFETY: initialised; a work that is pending already has sent its interrupt.
        unsafe { cpu::irq_work_queue(self.work.get()) };
    }

    /// Waits until no callback can come any more. No vCPU runs.
    pub fn quiesce(&self) {
        if !self.ready {
            return;
        }
        self.timer.cancel();
        // SAFETY: initialised.
        unsafe { cpu::irq_work_sync(self.work.get()) };
    }
}

unsafe extern "C" fn nothing(_: *mut u8) {}

/// The guest's deadline has passed.
unsafe extern "C" fn expired(timer: *mut Timer) -> u32 {
    // SAFETY: the timer is the first field of the handles, which are part of a live VM.
    let (vm, index) = unsafe {
        let handles = &*timer.cast::<Handles>();
        (&*handles.vm, handles.index)
    };
    // Without a window there was nobody to set the timer.
    let _ = vm.vm.raise(&LinuxHost::new(vm), index, event::TIMER);
    crate::bindings::time::HRTIMER_NORESTART.get() as u32
}

//! eventfds that the guest's notifications signal, as ioeventfd in KVM.

use crate::bindings::file::{self, eventfd_signal, eventfd_signal_mask};
use crate::bindings::sched::{SPINLOCK_OWNER, synchronize_rcu};
use crate::bindings::{Opaque, pointer_error};
use crate::percpu;
use colinux_abi::MAX_DEVICES;
use colinux_abi::device::MAX_QUEUES;
use colinux_monitor::{Doorbell, HostError, ZeroInit};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

const COUNT: usize = MAX_DEVICES * MAX_QUEUES + 1;

/// All doorbells of a VM. Signalled without a lock; a context is put back only after all readers have gone (RCU).
pub struct Doorbells([AtomicPtr<u8>; COUNT]);

// SAFETY: null pointers.
unsafe impl ZeroInit for Doorbells {}

fn index(doorbell: Doorbell) -> usize {
    match doorbell {
        Doorbell::Console => MAX_DEVICES * MAX_QUEUES,
        Doorbell::Queue { device, queue } => device * MAX_QUEUES + queue,
    }
}

/// True on PREEMPT_RT, where locks sleep.
pub fn locks_sleep() -> bool {
    SPINLOCK_OWNER.get().is_some()
}

/// The context of an eventfd, which the caller owns.
///
/// # Errors
/// The kernel's, when the descriptor is none of an eventfd.
pub fn context_of(fd: i32) -> Result<Opaque, HostError> {
    let file = eventfd_file(fd)?;
    // SAFETY: an eventfd's file.
    let context = unsafe { file::eventfd_ctx_fileget(file) };
    // SAFETY: our reference.
    unsafe { file::fput(file) };
    pointer_error(context).map_or(Ok(context), |error| Err(HostError::Kernel(error)))
}

/// The file of an eventfd, which the caller owns.
///
/// # Errors
/// The kernel's, when the descriptor is none of an eventfd.
pub fn eventfd_file(fd: i32) -> Result<Opaque, HostError> {
    // SAFETY: process context.
    let file = unsafe { file::eventfd_fget(fd) };
    pointer_error(file).map_or(Ok(file), |error| Err(HostError::Kernel(error)))
}

impl Doorbells {
    /// Registers an eventfd, or with -1 takes the registration back. The caller holds the VM's mutex.
    ///
    /// # Errors
    /// The kernel's, when the descriptor is none of an eventfd.
    pub fn set(&self, doorbell: Doorbell, fd: i32) -> Result<(), HostError> {
        let context = if fd < 0 { null_mut() } else { context_of(fd)? };
        let Some(slot) = self.0.get(index(doorbell)) else { return Err(HostError::Invalid) };
        let old = slot.swap(context, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: process context; after it nobody signals the old one.
            unsafe {
                synchronize_rcu();
                file::eventfd_ctx_put(old);
            }
        }
        Ok(())
    }

    /// Rings; false if there is no eventfd. Where locks spin: any context. Where they sleep: process context, with the VM's mutex held.
    pub fn ring(&self, doorbell: Doorbell) -> bool {
        let bar_preemption = !locks_sleep();
        if bar_preemption {
            percpu::preempt_disable();
        }
        let heard = self.0.get(index(doorbell)).is_some_and(|slot| signal(slot.load(Ordering::Acquire)));
        if bar_preemption {
            percpu::preempt_enable();
        }
        heard
    }
}

fn signal(context: Opaque) -> bool {
    if context.is_null() {
        return false;
    }
    // SAFETY: the context is alive: preemption is off (an RCU reader), or the mutex is held.
    unsafe {
        if eventfd_signal::present() {
            eventfd_signal(context, 1);
        } else if eventfd_signal_mask::present() {
            eventfd_signal_mask(context, 0);
        }
    }
    true
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        for slot in &mut self.0 {
            if !slot.get_mut().is_null() {
                // SAFETY: ours; no vCPU is left to ring it.
                unsafe { file::eventfd_ctx_put(*slot.get_mut()) };
            }
        }
    }
}

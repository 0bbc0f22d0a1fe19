//! What the monitor needs: a kernel to run in, and a crossing.

use crate::call::Doorbell;
use crate::error::Paging;
use colinux_abi::ioctl::VcpuState;
use colinux_cpu::{Arrivals, Exit};

/// The thread has a signal to handle before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// The host's wall clock and the TSC at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Nanoseconds of the second.
    pub nanoseconds: u64,
    /// TSC when it was read.
    pub tsc: u64,
}

/// The kernel that the monitor runs in, as one VM sees it. All methods are about the calling thread, unless they name another vCPU.
pub trait Host {
    /// Begins a residency: the thread stays on this CPU, nothing preempts it, the FPU is free for use; the CPU is watched by the rescue timer.
    fn pin(&self, vcpu: usize);
    /// Ends what [`Self::pin`] began.
    fn unpin(&self, vcpu: usize);
    /// Closes interrupts.
    fn irqs_off(&self);
    /// Opens interrupts, and lets those that wait come in.
    fn irqs_on(&self);
    /// The scheduler wants this CPU for another thread, or the kernel has set breakpoints since [`Self::pin`].
    fn must_yield(&self) -> bool;
    /// No other thread wants this CPU. Not called within a residency.
    fn is_alone(&self) -> bool;
    /// Lets the scheduler choose.
    fn reschedule(&self);
    /// Lets other threads run although this one could go on.
    fn yield_now(&self);
    /// A signal is pending. Not called within a residency.
    fn interrupted(&self, vcpu: usize) -> bool;
    /// Sleeps until `ready`, which is looked at again after each [`Self::wake`].
    ///
    /// # Errors
    /// [`Interrupted`] when a signal came first.
    fn block(&self, vcpu: usize, ready: impl Fn() -> bool) -> Result<(), Interrupted>;
    /// Interrupts the CPU on which a vCPU runs. Any context.
    fn kick(&self, vcpu: usize);
    /// Wakes a vCPU's thread out of [`Self::block`]. Any context, except a residency where [`Self::locks_sleep`].
    fn wake(&self, vcpu: usize);
    /// All of `len` bytes at `gpa` are the guest's memory. May sleep; not called within a residency.
    fn has_memory(&self, gpa: u64, len: u64) -> bool;
    /// Sees to it that `Vm::raise(TIMER)` is called after so many nanoseconds; `None`: not at all.
    fn set_timer(&self, vcpu: usize, nanoseconds: Option<u64>);
    /// Sends this CPU an interrupt of no consequence. Interrupts are off.
    fn interrupt_self(&self, vcpu: usize);
    /// Sends this CPU an NMI.
    fn nmi_self(&self);
    /// Tells the daemon; false if nothing of it listens.
    fn notify(&self, doorbell: Doorbell) -> bool;
    /// Reads the clock.
    fn wall_clock(&self) -> WallClock;
    /// A clock of the CPU.
    fn ticks(&self) -> u64;
    /// Ticks of that clock in a millisecond.
    fn ticks_per_millisecond(&self) -> u64;
    /// True where the kernel's locks are sleeping ones (PREEMPT_RT), so that nobody can be notified or woken within a residency.
    fn locks_sleep(&self) -> bool;
    /// The last NMI on this CPU was the rescue timer's. Reading it forgets it.
    fn rescued(&self) -> bool;
}

/// One vCPU's side of the crossing. The simulator scripts it; [`crate::CpuWorld`] is the real one.
///
/// # Safety
/// An implementation must leave the host's state as it found it.
pub unsafe trait World {
    /// Forgets the guest's registers and sets where it starts.
    fn set_start(&mut self, state: &VcpuState);
    /// Puts the guest's registers on this CPU; DR0-3, guest-virtual, are `breakpoints`, if it has any.
    ///
    /// # Safety
    /// Within [`Host::pin`], interrupts off.
    unsafe fn load(&mut self, breakpoints: Option<[u64; 4]>);
    /// Takes them off again.
    ///
    /// # Safety
    /// After [`Self::load`] on this CPU, interrupts off.
    unsafe fn put(&mut self);
    /// Goes to the guest and returns when it leaves: why, by its own word.
    ///
    /// # Safety
    /// Between [`Self::load`] and [`Self::put`], interrupts off; the window maps the passage.
    unsafe fn cross(&mut self) -> Exit;
    /// Takes what arrived in the passage. To be looked at after each [`Self::cross`], before anything else.
    fn take_arrivals(&mut self) -> Option<Arrivals>;
    /// The host's CPU is in VMX operation, in which CR4 of a guest cannot be loaded. Interrupts are off, so that it stays as it is.
    fn host_in_vmx(&mut self) -> bool;
    /// How the guest pages, if it cannot be entered so.
    fn bad_paging(&mut self) -> Option<Paging>;
    /// Sets what the guest's hypercall returns.
    fn set_return(&mut self, value: u64);
    /// Runs the host's handler of an external interrupt, 0x20 or above.
    ///
    /// # Safety
    /// Interrupts off; the CPU accepted this vector.
    unsafe fn raise_vector(&mut self, vector: u8);
    /// Runs the host's NMI handler.
    ///
    /// # Safety
    /// The CPU accepted an NMI and has had no iret since.
    unsafe fn raise_nmi(&mut self);
    /// Runs the host's machine check handler.
    ///
    /// # Safety
    /// The CPU accepted a machine check.
    unsafe fn raise_machine_check(&mut self);
}

/// Types for which all bytes zero is a valid value, so that large ones can be made in place.
///
/// # Safety
/// All bytes zero must be valid.
pub unsafe trait ZeroInit {}

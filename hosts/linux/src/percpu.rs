//! Per-CPU words of the kernel: the running task, the CPU's number, the preemption count.

use crate::bindings::sched::{self, CPU_NUMBER, CURRENT, PREEMPT_COUNT};
use crate::bindings::{
    Opaque,
    cpu::{BREAKPOINTS, DR7},
};
use core::arch::asm;

/// Bit of the preemption count that is *clear* when a reschedule is wanted (arch/x86/include/asm/preempt.h: PREEMPT_NEED_RESCHED).
const NO_RESCHEDULE: u32 = 1 << 31;

/// The task that runs.
pub fn current() -> Opaque {
    // SAFETY: a per-CPU word of the kernel.
    unsafe { word(CURRENT.addr()) as Opaque }
}

/// This CPU; only of use while preemption is off.
pub fn cpu() -> u32 {
    let cpu: u32;
    // SAFETY: as in `word`, of half its size.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) cpu, in(reg) CPU_NUMBER.addr(), options(nostack, preserves_flags, readonly))
    };
    cpu
}

/// DR7 as the kernel wants it on this CPU; zero: no breakpoint.
pub fn breakpoints() -> u64 {
    // SAFETY: a per-CPU word of the kernel.
    unsafe { word(DR7.addr()) }
}

/// Puts on this CPU what the kernel wants there: `hw_breakpoint_restore()` (arch/x86/kernel/hw_breakpoint.c), which since 6.18 is for KVM's modules alone.
///
/// # Safety
/// Interrupts are off, and no residency is on this CPU.
pub unsafe fn restore_breakpoints() {
    // SAFETY: four per-CPU words of the kernel.
    let addresses = [0, 8, 16, 24].map(|offset| unsafe { word(BREAKPOINTS.addr() + offset) });
    // SAFETY: by contract.
    unsafe { colinux_cpu::put_breakpoints(&addresses, breakpoints()) };
}

/// Reads a per-CPU word.
///
/// # Safety
/// `address` is that of one, as the loader found it.
unsafe fn word(address: u64) -> u64 {
    let value: u64;
    // SAFETY: by contract.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags, readonly))
    };
    value
}

/// Bars preemption.
pub fn preempt_disable() {
    // SAFETY: what preempt_disable() of the kernel is. Not `nomem`, so that nothing moves out of the section.
    unsafe { asm!("inc dword ptr gs:[{}]", in(reg) PREEMPT_COUNT.addr(), options(nostack)) };
}

/// Allows preemption again, and lets it happen where the kernel is preemptible and this was all that barred it.
pub fn preempt_enable() {
    let zero: u8;
    // SAFETY: what preempt_enable() of the kernel is.
    unsafe {
        asm!("dec dword ptr gs:[{}]", "sete {}", in(reg) PREEMPT_COUNT.addr(), out(reg_byte) zero, options(nostack))
    };
    if zero != 0 && sched::preempt_schedule::present() {
        // SAFETY: looks for itself whether it may (interrupts on).
        unsafe { sched::preempt_schedule() };
    }
}

/// The scheduler wants this CPU.
pub fn need_resched() -> bool {
    let count: u32;
    // SAFETY: as in `word`, of half its size.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) count, in(reg) PREEMPT_COUNT.addr(), options(nostack, readonly))
    };
    count & NO_RESCHEDULE == 0
}

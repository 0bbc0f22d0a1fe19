//! The way out: hypercalls, and the pages shared with the host.

use colinux_abi::device::DevicePage;
use colinux_abi::page::{VcpuPage, VmPage};
use colinux_abi::{MAX_VCPUS, hypercall as reason, window};
use core::arch::asm;
use core::sync::atomic::Ordering;

unsafe extern "C" {
    /// In `stubs.s`. Leaves the guest; when events are pending afterwards and interrupts were on, delivers them before it returns.
    fn colinux_hypercall(reason: u64, arg0: u64, arg1: u64) -> u64;
}

/// Makes a hypercall, see [`colinux_abi::hypercall`].
pub fn call(reason: u64, arg0: u64, arg1: u64) -> u64 {
    // SAFETY: the passage keeps all registers of the caller; what the call does is up to the host.
    unsafe { colinux_hypercall(reason, arg0, arg1) }
}

/// Ends the machine; `how` is one of [`colinux_abi::hypercall::shutdown`].
pub fn shutdown(how: u64) -> ! {
    loop {
        call(reason::SHUTDOWN, how, 0);
    }
}

/// The page of the VM.
pub fn vm() -> &'static VmPage {
    // SAFETY: the loader maps and fills the page before the first instruction; what changes later is atomic.
    unsafe { &*((window::BASE + window::VM_PAGE) as *const VmPage) }
}

/// Number of vCPUs, in bounds.
pub fn vcpu_count() -> usize {
    (vm().vcpu_count as usize).clamp(1, MAX_VCPUS)
}

/// The page of a vCPU.
pub fn vcpu_page(index: usize) -> &'static VcpuPage {
    let index = index.min(MAX_VCPUS - 1);
    // SAFETY: all pages of the window are mapped; all fields that are used are atomic.
    unsafe { &*(window::vcpu_page(index) as *const VcpuPage) }
}

/// The page of a device.
pub fn device_page(index: usize) -> &'static DevicePage {
    let index = index.min(colinux_abi::MAX_DEVICES - 1);
    // SAFETY: all pages of the window are mapped; the fields that are not atomic do not change while the guest runs.
    unsafe { &*(window::device_page(index) as *const DevicePage) }
}

/// The vCPU that runs this, from the limit of its IDT (see `irq::load_idt`). Good for as long as preemption is off.
pub fn index() -> usize {
    let mut table = [0u16; 8];
    // SAFETY: sidt stores ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) table.as_mut_ptr(), options(nostack, preserves_flags)) };
    match usize::from(table[0]).checked_sub(0xfff) {
        Some(index) => index.min(MAX_VCPUS - 1),
        None => vm().bringup_vcpu.load(Ordering::Relaxed) as usize,
    }
}

/// Runs `body` with interrupts off.
pub fn irqs_off<R>(body: impl FnOnce() -> R) -> R {
    let flags: u64;
    // SAFETY: the flags come back below.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    let result = body();
    if flags & 0x200 != 0 {
        // SAFETY: interrupts were on.
        unsafe { asm!("sti") };
    }
    result
}

/// The time stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it; the guest never sets CR4.TSD for the kernel.
    unsafe { core::arch::x86_64::_rdtsc() }
}

//! The residency: registers that are switched only when a vCPU takes or leaves a host CPU.
//!
//! While a vCPU thread is in its inner loop (preemption off, the host's FPU state saved), the host kernel runs only interrupt handlers between
//! two crossings. It does not depend then on anything that matters to user space alone: system call entry points, the inactive GS base, FS base, data
//! selectors, LDT, TSC_AUX, extended state. These stay the guest's until the thread gives the CPU up. KVM makes the same cut (vcpu_load / vcpu_put
//! and its user-return MSRs). `docs/crossing.md` has the table of every register and where it is carried.

use crate::XSAVE_AREA_SIZE;
use crate::facts::HostFacts;
use crate::passage::{FLAG_FSGSBASE, FLAG_RELOAD, PassageData};
use crate::regs::{self, *};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// MSRs that the residency carries. TSC_AUX is last because a CPU may lack it.
const MSRS: [u32; 10] = [
    MSR_EFER,
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_SFMASK,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP,
    MSR_KERNEL_GS_BASE,
    MSR_TSC_AUX,
];
const EFER: usize = 0;
const KERNEL_GS_BASE: usize = 8;
/// KVM turns SVM on and off by an interrupt, which may come within a residency: the bit stays as it is on the CPU.
const EFER_SVME: u64 = 1 << 12;

/// XCR0 until the guest sets it: x87 and SSE, because a guest that never turns XSAVE on uses both.
const XCR0_START: u64 = 0b11;

const DR7_ENABLES: u64 = 0xff;
const DR7_OFF: u64 = 0x400;
/// No breakpoint was hit.
pub(crate) const DR6_CLEAR: u64 = 0xffff_0ff0;

/// One vCPU's registers of this kind, the guest's while it is out and the host's while it is in.
pub struct Residency {
    area: *mut u8,
    guest_msrs: [u64; MSRS.len()],
    host_msrs: [u64; MSRS.len()],
    guest_xcr0: u64,
    host_xcr0: u64,
    host_pkru: u32,
    guest_dr6: u64,
    host_dr6: u64,
    host_dr7: u64,
    host_breakpoints: Option<[u64; 4]>,
    host_fs_base: u64,
    host_selectors: [u16; 5],
    facts: HostFacts,
    has_tsc_aux: bool,
    fresh: bool,
}

// SAFETY: the area is owned by the residency; it is used by one CPU at a time, by the contract of `load` and `put`.
unsafe impl Send for Residency {}

impl Residency {
    /// Makes the state of a vCPU that has not run. `area` takes its extended state.
    ///
    /// # Safety
    /// `area` is 64-byte aligned, `XSAVE_AREA_SIZE` bytes, zeroed, the caller's own for as long as the residency lives.
    pub unsafe fn new(area: *mut u8) -> Self {
        let mut this = Self {
            area,
            guest_msrs: [0; MSRS.len()],
            host_msrs: [0; MSRS.len()],
            guest_xcr0: XCR0_START,
            host_xcr0: XCR0_START,
            host_pkru: 0,
            guest_dr6: DR6_CLEAR,
            host_dr6: DR6_CLEAR,
            host_dr7: DR7_OFF,
            host_breakpoints: None,
            host_fs_base: 0,
            host_selectors: [0; 5],
            facts: HostFacts::read(),
            has_tsc_aux: has_tsc_aux(),
            fresh: true,
        };
        this.reset();
        this
    }

    /// Forgets the guest's registers: it will start anew.
    pub fn reset(&mut self) {
        self.guest_msrs = [0; MSRS.len()];
        self.guest_xcr0 = XCR0_START;
        self.guest_dr6 = DR6_CLEAR;
        self.fresh = true;
        // SAFETY: the area is XSAVE_AREA_SIZE bytes of ours; the layout is the SDM's (vol. 1, 13.4): FCW at 0, MXCSR at 24.
        unsafe {
            core::ptr::write_bytes(self.area, 0, XSAVE_AREA_SIZE);
            self.area.cast::<u16>().write(0x37f);
            self.area.add(24).cast::<u32>().write(0x1f80);
        }
    }

    /// Puts the guest's registers on this CPU and notes the host's. `breakpoints` are the guest's DR0-3, guest-virtual, as its kernel last set them, if it did: what is on the
    /// CPU when a residency ends may be what an interrupt handler of the host has put there.
    ///
    /// # Safety
    /// Preemption and interrupts are off and stay so, but for interrupt windows, until [`Self::put`]; the host's FPU state is saved and in-kernel FPU use is barred.
    pub unsafe fn load(&mut self, data: *mut PassageData, breakpoints: Option<[u64; 4]>) {
        // SAFETY: the data page is the vCPU's, which only this thread uses.
        let data = unsafe { &mut *data };
        self.facts = HostFacts::read();
        note_host(data, &self.facts);
        // SAFETY: by contract, the host does not use what follows until `put`; each register exists (checked by `facts` and `has_tsc_aux`).
        unsafe {
            self.swap_in_msrs();
            self.swap_in_state();
            self.swap_in_debug(breakpoints);
            self.host_fs_base = rdmsr(MSR_FS_BASE);
        }
        self.host_selectors = [regs::ds(), regs::es(), regs::fs(), regs::gs(), regs::sldt()];
        data.flags = FLAG_RELOAD | if self.facts.fsgsbase() { FLAG_FSGSBASE } else { 0 };
    }

    /// Puts the host's registers back and keeps the guest's.
    ///
    /// # Safety
    /// As for [`Self::load`], which came before, on the same CPU.
    pub unsafe fn put(&mut self, data: *mut PassageData) {
        // SAFETY: the data page is the vCPU's, which only this thread uses.
        let data = unsafe { &mut *data };
        if data.flags & FLAG_RELOAD == 0 {
            self.keep_segments(data);
        }
        // SAFETY: the values are the host's own, from `load` on this CPU.
        unsafe {
            self.restore_segments();
            self.swap_out_debug();
            self.swap_out_state();
            self.swap_out_msrs();
        }
    }

    fn msrs(&self) -> &'static [u32] {
        if self.has_tsc_aux { &MSRS } else { &MSRS[..MSRS.len() - 1] }
    }

    unsafe fn swap_in_msrs(&mut self) {
        for (i, &msr) in self.msrs().iter().enumerate() {
            // SAFETY: every x86-64 CPU has these; TSC_AUX is left out where it is not.
            unsafe {
                self.host_msrs[i] = rdmsr(msr);
                if self.fresh && i == EFER {
                    self.guest_msrs[i] = self.host_msrs[i];
                }
                let value = carried(i, self.guest_msrs[i], self.host_msrs[i]);
                if value != self.host_msrs[i] {
                    wrmsr(msr, value);
                }
            }
        }
        self.fresh = false;
    }

    unsafe fn swap_out_msrs(&mut self) {
        for (i, &msr) in self.msrs().iter().enumerate() {
            // SAFETY: as in `swap_in_msrs`.
            unsafe {
                self.guest_msrs[i] = rdmsr(msr);
                let value = carried(i, self.host_msrs[i], self.guest_msrs[i]);
                if value != self.guest_msrs[i] {
                    wrmsr(msr, value);
                }
            }
        }
    }

    unsafe fn swap_in_state(&mut self) {
        // SAFETY: the area is of the right size and form; XCR0 values are ones the CPU had.
        unsafe {
            if self.facts.pke() {
                self.host_pkru = rdpkru();
            }
            if !self.facts.xsave() {
                asm!("fxrstor64 [{}]", in(reg) self.area, options(nostack));
                return;
            }
            self.host_xcr0 = xgetbv0();
            if self.guest_xcr0 != self.host_xcr0 {
                xsetbv0(self.guest_xcr0);
            }
            let mask = self.guest_xcr0;
            asm!("xrstor64 [{}]", in(reg) self.area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
        }
    }

    unsafe fn swap_out_state(&mut self) {
        // SAFETY: as in `swap_in_state`.
        unsafe {
            if self.facts.xsave() {
                self.guest_xcr0 = xgetbv0();
                let mask = self.guest_xcr0;
                asm!("xsave64 [{}]", in(reg) self.area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
                if self.guest_xcr0 != self.host_xcr0 {
                    xsetbv0(self.host_xcr0);
                }
            } else {
                asm!("fxsave64 [{}]", in(reg) self.area, options(nostack));
            }
            if self.facts.pke() {
                wrpkru(self.host_pkru);
            }
        }
    }

    unsafe fn swap_in_debug(&mut self, guest: Option<[u64; 4]>) {
        (self.host_dr6, self.host_dr7) = (regs::dr6(), regs::dr7());
        let armed = self.host_dr7 & DR7_ENABLES != 0;
        // SAFETY: DR7 is off before the addresses change; the guest's DR7 is the crossing's.
        unsafe {
            if armed {
                set_dr7(DR7_OFF);
            }
            if armed || guest.is_some() {
                self.host_breakpoints = Some([regs::dr0(), regs::dr1(), regs::dr2(), regs::dr3()]);
            }
            if let Some(guest) = guest {
                set_breakpoints(&guest);
            }
            if self.guest_dr6 != self.host_dr6 {
                set_dr6(self.guest_dr6);
            }
        }
    }

    unsafe fn swap_out_debug(&mut self) {
        self.guest_dr6 = regs::dr6();
        // SAFETY: the crossing left DR7 off; the values are the host's own.
        unsafe {
            if self.guest_dr6 != self.host_dr6 {
                set_dr6(self.host_dr6);
            }
            if let Some(addresses) = self.host_breakpoints.take() {
                set_breakpoints(&addresses);
            }
            if self.host_dr7 & DR7_ENABLES != 0 {
                set_dr7(self.host_dr7);
            }
        }
    }

    /// Notes the guest's selectors and FS base, which are still on the CPU.
    fn keep_segments(&self, data: &mut PassageData) {
        let guest = &mut data.guest;
        (guest.ds, guest.es, guest.fs, guest.gs) = (regs::ds(), regs::es(), regs::fs(), regs::gs());
        guest.ldtr = regs::sldt();
        // SAFETY: FS_BASE exists on every x86-64 CPU.
        guest.fs_base = unsafe { rdmsr(MSR_FS_BASE) };
    }

    unsafe fn restore_segments(&self) {
        let [ds, es, fs, gs, ldtr] = self.host_selectors;
        // SAFETY: the selectors were loaded on this CPU when the residency began, with this GDT; `mov gs` is done between two swapgs, so that an NMI finds either
        // the kernel's base active, or a user's base active and the kernel's inactive, as in the host's own code: without FSGSBASE it tells them by their sign, and the
        // guest's inactive base may be its kernel's. `swap_out_msrs` takes that later, and `mov gs` would spoil it.
        unsafe {
            asm!("lldt {:x}", in(reg) ldtr, options(nostack, preserves_flags));
            asm!("mov ds, {:x}", "mov es, {:x}", in(reg) ds, in(reg) es, options(nostack, preserves_flags));
            asm!("mov fs, {:x}", in(reg) fs, options(nostack, preserves_flags));
            if regs::gs() != gs {
                let guest = rdmsr(MSR_KERNEL_GS_BASE);
                wrmsr(MSR_KERNEL_GS_BASE, self.host_msrs[KERNEL_GS_BASE]);
                asm!("swapgs", "mov gs, {:x}", "swapgs", in(reg) gs, options(nostack, preserves_flags));
                wrmsr(MSR_KERNEL_GS_BASE, guest);
            }
            wrmsr(MSR_FS_BASE, self.host_fs_base);
        }
    }
}

/// What MSR number `i` gets where it holds `now`, so that it is `value` but for bits that are the host's in either world.
fn carried(i: usize, value: u64, now: u64) -> u64 {
    if i == EFER { value & !EFER_SVME | now & EFER_SVME } else { value }
}

/// Notes what is the host's on this CPU and does not change while the vCPU is here.
fn note_host(data: &mut PassageData, facts: &HostFacts) {
    let host = &mut data.host;
    host.gdtr = regs::sgdt();
    host.idtr = regs::sidt();
    host.tr = regs::str();
    host.ss = u32::from(regs::ss());
    host.cr0 = regs::cr0();
    host.cr4 = facts.cr4;
    // SAFETY: GS_BASE exists on every x86-64 CPU.
    host.gs_base = unsafe { rdmsr(MSR_GS_BASE) };
    let index = usize::from(host.tr >> 3);
    let descriptor = host.gdtr.base as *const u64;
    if index + 1 < data.gdt_h.len() {
        // SAFETY: TR was loaded from this GDT, so its descriptor (16 bytes) is there; our copy has room for it by the check.
        unsafe {
            data.gdt_h[index] = descriptor.add(index).read_volatile();
            data.gdt_h[index + 1] = descriptor.add(index + 1).read_volatile();
        }
    }
}

/// Bytes of extended state that XCR0 of the host can make the CPU save.
pub(crate) fn state_size(facts: &HostFacts) -> usize {
    const FXSAVE_SIZE: usize = 512;
    if facts.xsave() { __cpuid_count(0xd, 0).ecx as usize } else { FXSAVE_SIZE }
}

fn has_tsc_aux() -> bool {
    const RDTSCP: u32 = 1 << 27;
    const RDPID: u32 = 1 << 22;
    let extended = __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).edx & RDTSCP != 0;
    extended || __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx & RDPID != 0
}

unsafe fn rdpkru() -> u32 {
    let pkru;
    // SAFETY: the caller checked CR4.PKE.
    unsafe {
        asm!("rdpkru", in("ecx") 0, out("eax") pkru, out("edx") _, options(nomem, nostack, preserves_flags))
    };
    pkru
}

unsafe fn wrpkru(pkru: u32) {
    // SAFETY: the caller checked CR4.PKE; the value is the host's own.
    unsafe { asm!("wrpkru", in("ecx") 0, in("eax") pkru, in("edx") 0, options(nostack, preserves_flags)) };
}

const _: () = assert!(MSRS[KERNEL_GS_BASE] == MSR_KERNEL_GS_BASE && MSRS[EFER] == MSR_EFER);

/// Puts breakpoints on this CPU: DR0-3, and the DR7 that arms them.
///
/// # Safety
/// They are those that the host's kernel wants here; interrupts are off, and no residency is on this CPU.
pub unsafe fn put_breakpoints(addresses: &[u64; 4], dr7: u64) {
    // SAFETY: no breakpoint is armed while they change; the rest by contract.
    unsafe {
        set_dr7(DR7_OFF);
        set_breakpoints(addresses);
        set_dr6(DR6_CLEAR);
        set_dr7(dr7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svm_stays_as_the_host_has_it_now() {
        const HOST: u64 = 0xd01;
        const GUEST: u64 = 0x501;
        assert_eq!(carried(EFER, GUEST, HOST | EFER_SVME), GUEST | EFER_SVME, "on before the residency");
        assert_eq!(carried(EFER, HOST, GUEST | EFER_SVME), HOST | EFER_SVME, "turned on within it");
        assert_eq!(carried(EFER, HOST | EFER_SVME, GUEST), HOST, "turned off within it");
        assert_eq!(carried(EFER, GUEST | EFER_SVME, HOST), GUEST, "turned off since the guest was here");
        assert_eq!(carried(EFER + 1, 1 << 12, 0), 1 << 12, "of EFER alone");
    }
}

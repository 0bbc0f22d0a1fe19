//! `pv_ops.cpu.cpuid`: the kernel sees the features of [`colinux_logic::cpuid`].

use crate::hypercall::{index, vcpu_count, vm};
use colinux_abi::page::feature;
use colinux_logic::cpuid::{Facts, Registers, filter};
use core::arch::x86_64::__cpuid_count;

kbind::hooks! {
    "pv_ops+paravirt_patch_template.cpu.cpuid" = cpuid: 4, was "native_cpuid";
}

kbind::functions! {
    fn cr4_update_irqsoff(set: u64, clear: u64);
}

/// CR4.PGE.
const PGE: u64 = 1 << 7;

/// `head_64.S` sets CR4.PGE on every CPU without asking. The kernel, which sees no PGE, would never flush the global entries that it
/// made meanwhile. Interrupts must be off.
pub fn drop_global_pages() {
    // SAFETY: changes CR4 and the kernel's copy of it alike.
    unsafe { cr4_update_irqsoff(0, PGE) };
}

extern "C" fn cpuid(eax: *mut u32, ebx: *mut u32, ecx: *mut u32, edx: *mut u32) {
    let facts = Facts {
        vcpu: index() as u32,
        vcpu_count: vcpu_count() as u32,
        pcid: vm().features & feature::PCID != 0,
    };
    // SAFETY: the kernel passes four words, as to native_cpuid(): leaf and subleaf come in, all four go out.
    unsafe {
        let (leaf, subleaf) = (eax.read(), ecx.read());
        let raw = __cpuid_count(leaf, subleaf);
        let raw = Registers { eax: raw.eax, ebx: raw.ebx, ecx: raw.ecx, edx: raw.edx };
        let seen = filter(leaf, subleaf, raw, &facts);
        eax.write(seen.eax);
        ebx.write(seen.ebx);
        ecx.write(seen.ecx);
        edx.write(seen.edx);
    }
}

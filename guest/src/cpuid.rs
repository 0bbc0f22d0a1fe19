//! `pv_ops.cpu.cpuid`: the kernel sees the features of [`colinux_logic::cpuid`].

use crate::hypercall::{index, vcpu_count, vm};
use colinux_abi::page::feature;
use colinux_logic::cpuid::{Facts, Registers, filter};
use core::arch::x86_64::__cpuid_count;

kbind::hooks! {
    "pv_ops+paravirt_patch_template.cpu.cpuid" = cpuid: 4, was "native_cpuid";
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

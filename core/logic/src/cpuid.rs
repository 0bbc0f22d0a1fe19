//! Which CPU features a guest sees.
//!
//! An allow-list, leaf by leaf: a feature that this file does not know is hidden. Hidden are those whose state the crossing does not carry
//! (XSAVES, CET, AMX, protection keys for supervisors, LBR), those that belong to the machine (APIC, MTRR, machine checks, power, monitoring,
//! virtualization, mitigation registers), and global pages (see docs/crossing.md). Topology is made up: vCPU `i` is core `i` with APIC ID `i`
//! in one package, whatever CPU it runs on. Bits: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// What the answers depend on besides the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The vCPU that asks.
    pub vcpu: u32,
    /// Number of vCPUs.
    pub vcpu_count: u32,
    /// The host runs with CR4.PCIDE set.
    pub pcid: bool,
}

const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut index) = (0, 0);
    while index < list.len() {
        mask |= 1 << list[index];
        index += 1;
    }
    mask
}

const PCID: u32 = 1 << 17;

/// SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, OSXSAVE, AVX, F16C, RDRAND.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30]);
/// FPU, DE, PSE, TSC, MSR, PAE, CX8, SEP, CMOV, PAT, PSE36, CLFSH, MMX, FXSR, SSE, SSE2, SS, HTT.
const LEAF_1_EDX: u32 = bits(&[0, 2, 3, 4, 5, 6, 8, 11, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28]);

/// FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, ZERO_FCS, AVX512F/DQ, RDSEED, ADX, SMAP, AVX512IFMA, CLFLUSHOPT, CLWB,
/// AVX512CD, SHA, AVX512BW/VL.
const LEAF_7_EBX: u32 = bits(&[0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
/// AVX512VBMI, UMIP, PKU, OSPKE, AVX512VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512VNNI/BITALG/VPOPCNTDQ, LA57, RDPID, CLDEMOTE, MOVDIRI, MOVDIR64B.
const LEAF_7_ECX: u32 = bits(&[1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 14, 16, 22, 25, 27, 28]);
/// FSRM, AVX512_VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512FP16, ARCH_CAPABILITIES.
const LEAF_7_EDX: u32 = bits(&[4, 8, 10, 14, 23, 29]);
/// AVX_VNNI, AVX512_BF16, fast zero-length and short string operations, AVX_IFMA.
const LEAF_7_1_EAX: u32 = bits(&[4, 5, 10, 11, 12, 23]);
/// AVX_VNNI_INT8, AVX_NE_CONVERT, AVX_VNNI_INT16, PREFETCHI.
const LEAF_7_1_EDX: u32 = bits(&[4, 5, 10, 14]);

/// x87, SSE, AVX, the three parts of AVX-512, PKRU: what XCR0 may hold.
const XSTATE: u32 = bits(&[0, 1, 2, 5, 6, 7, 9]);
/// XSAVEOPT, XGETBV with ECX = 1. Not the compacted formats: their size depends on IA32_XSS, which is the host's.
const LEAF_D_1_EAX: u32 = bits(&[0, 2]);

/// LAHF64, CMP_LEGACY, AltMovCr8, ABM, SSE4A, MisAlignSse, 3DNowPrefetch, XOP, FMA4, TBM, TopologyExtensions.
const EXTENDED_1_ECX: u32 = bits(&[0, 1, 4, 5, 6, 7, 8, 11, 16, 21, 22]);
/// Those of leaf 1, and SYSCALL, NX, MmxExt, FFXSR, Page1GB, RDTSCP, LM, 3DNowExt, 3DNow.
const EXTENDED_1_EDX: u32 =
    bits(&[0, 2, 3, 4, 5, 6, 8, 11, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29, 30, 31]);
/// Invariant TSC.
const EXTENDED_7_EDX: u32 = bits(&[8]);
/// CLZERO, RstrFpErrPtrs, WBNOINVD, SsbdNotRequired, BTC_NO.
const EXTENDED_8_EBX: u32 = bits(&[0, 2, 9, 26, 29]);
/// No nested data breakpoints, LFENCE always serializing, null selector clears base, SRSO_NO.
const EXTENDED_21_EAX: u32 = bits(&[0, 2, 6, 29]);

/// Highest basic leaf that is passed on.
const MAX_BASIC: u32 = 0x1f;

/// What the guest sees of `raw`, the CPU's answer for `leaf` and `subleaf`.
pub fn filter(leaf: u32, subleaf: u32, raw: Registers, facts: &Facts) -> Registers {
    match leaf {
        0 => Registers { eax: raw.eax.min(MAX_BASIC), ..raw },
        1 => leaf_1(raw, facts),
        // Cache descriptors.
        2 => raw,
        4 => caches(raw, facts),
        7 => leaf_7(subleaf, raw),
        0xb | 0x1f => topology(subleaf, raw, facts),
        0xd => xstate(subleaf, raw),
        // Vendor and highest leaf, brand string, old cache leaves, page attributes of caches and TLBs.
        0x8000_0000 | 0x8000_0002..=0x8000_0006 | 0x8000_0019 | 0x8000_001a => raw,
        0x8000_0001 => Registers { ecx: raw.ecx & EXTENDED_1_ECX, edx: raw.edx & EXTENDED_1_EDX, ..raw },
        0x8000_0007 => Registers { edx: raw.edx & EXTENDED_7_EDX, ..Registers::default() },
        0x8000_0008 => extended_8(raw, facts),
        0x8000_001d => caches(raw, facts),
        0x8000_001e => Registers { eax: facts.vcpu, ebx: facts.vcpu & 0xff, ecx: 0, edx: 0 },
        0x8000_0021 => Registers { eax: raw.eax & EXTENDED_21_EAX, ..Registers::default() },
        _ => Registers::default(),
    }
}

fn leaf_1(raw: Registers, facts: &Facts) -> Registers {
    let hidden = if facts.pcid { 0 } else { PCID };
    let htt = if facts.vcpu_count > 1 { 1 << 28 } else { 0 };
    Registers {
        // Brand and CLFLUSH size stay; number of logical processors and initial APIC ID are ours.
        ebx: raw.ebx & 0xffff | (facts.vcpu_count & 0xff) << 16 | (facts.vcpu & 0xff) << 24,
        ecx: raw.ecx & LEAF_1_ECX & !hidden,
        edx: raw.edx & LEAF_1_EDX & !(1 << 28) | htt,
        ..raw
    }
}

fn leaf_7(subleaf: u32, raw: Registers) -> Registers {
    match subleaf {
        0 => Registers {
            eax: raw.eax.min(1),
            ebx: raw.ebx & LEAF_7_EBX,
            ecx: raw.ecx & LEAF_7_ECX,
            edx: raw.edx & LEAF_7_EDX,
        },
        1 => Registers { eax: raw.eax & LEAF_7_1_EAX, edx: raw.edx & LEAF_7_1_EDX, ..Registers::default() },
        _ => Registers::default(),
    }
}

/// Deterministic cache parameters: no cache is shared, the package has one core per vCPU.
fn caches(raw: Registers, facts: &Facts) -> Registers {
    if raw.eax & 0x1f == 0 {
        return Registers::default();
    }
    Registers { eax: raw.eax & 0x3fff | (facts.vcpu_count.clamp(1, 64) - 1) << 26, ..raw }
}

/// Extended topology: one thread per core, all cores in one package.
fn topology(subleaf: u32, raw: Registers, facts: &Facts) -> Registers {
    if raw == Registers::default() && subleaf == 0 {
        return raw;
    }
    let count = facts.vcpu_count.max(1);
    let (shift, processors, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (count.next_power_of_two().trailing_zeros(), count, 2),
        _ => (0, 0, 0),
    };
    Registers { eax: shift, ebx: processors, ecx: kind << 8 | subleaf & 0xff, edx: facts.vcpu }
}

fn xstate(subleaf: u32, raw: Registers) -> Registers {
    match subleaf {
        0 => Registers { eax: raw.eax & XSTATE, edx: 0, ..raw },
        1 => Registers { eax: raw.eax & LEAF_D_1_EAX, ..Registers::default() },
        2..=31 if XSTATE & 1 << subleaf != 0 => raw,
        _ => Registers::default(),
    }
}

/// Address widths stay; the numbers of cores and the width of APIC IDs are ours.
fn extended_8(raw: Registers, facts: &Facts) -> Registers {
    let count = facts.vcpu_count.max(1);
    let width = count.next_power_of_two().trailing_zeros();
    Registers { eax: raw.eax, ebx: raw.ebx & EXTENDED_8_EBX, ecx: width << 12 | (count - 1) & 0xff, edx: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Registers = Registers { eax: !0, ebx: !0, ecx: !0, edx: !0 };

    fn facts(vcpu: u32, vcpu_count: u32) -> Facts {
        Facts { vcpu, vcpu_count, pcid: false }
    }

    fn seen(leaf: u32, subleaf: u32) -> Registers {
        filter(leaf, subleaf, ALL, &facts(1, 2))
    }

    #[test]
    fn hides_the_machine() {
        let leaf = seen(1, 0);
        for (name, bit) in [
            ("APIC", 9),
            ("MCE", 7),
            ("MCA", 14),
            ("MTRR", 12),
            ("PGE", 13),
            ("DS", 21),
            ("ACPI", 22),
            ("TM", 29),
        ] {
            assert_eq!(leaf.edx & 1 << bit, 0, "{name}");
        }
        for (name, bit) in
            [("MWAIT", 3), ("VMX", 5), ("x2APIC", 21), ("TSC deadline", 24), ("hypervisor", 31), ("PDCM", 15)]
        {
            assert_eq!(leaf.ecx & 1 << bit, 0, "{name}");
        }
    }

    #[test]
    fn hides_state_that_the_crossing_does_not_carry() {
        let leaf = seen(7, 0);
        assert_eq!(leaf.ecx & (1 << 7 | 1 << 31 | 1 << 5), 0, "SHSTK, PKS, WAITPKG");
        assert_eq!(leaf.edx & (1 << 20 | 1 << 22 | 1 << 24 | 1 << 25), 0, "IBT, AMX");
        assert_eq!(leaf.edx & (1 << 26 | 1 << 27 | 1 << 31), 0, "SPEC_CTRL, STIBP, SSBD");
        assert_eq!(seen(7, 1).eax & (1 << 17 | 1 << 18 | 1 << 26), 0, "FRED, LKGS, LAM");
        assert_eq!(seen(0xd, 1).eax & (1 << 1 | 1 << 3 | 1 << 4), 0, "XSAVEC, XSAVES, XFD");
        assert_eq!(seen(0xd, 0).eax & (1 << 17 | 1 << 18), 0, "AMX state");
        assert_eq!(seen(0xd, 18), Registers::default());
        assert_ne!(seen(0xd, 2), Registers::default());
    }

    #[test]
    fn keeps_what_programs_want() {
        let leaf = seen(1, 0);
        assert_ne!(leaf.ecx & 1 << 28, 0, "AVX");
        assert_ne!(leaf.edx & 1 << 26, 0, "SSE2");
        assert_ne!(seen(7, 0).ebx & 1 << 5, 0, "AVX2");
        assert_ne!(seen(7, 0).ecx & 1 << 2, 0, "UMIP");
        assert_ne!(seen(0x8000_0001, 0).edx & 1 << 29, 0, "long mode");
    }

    #[test]
    fn pcid_follows_the_host() {
        let with = |pcid| filter(1, 0, ALL, &Facts { vcpu: 0, vcpu_count: 1, pcid }).ecx & 1 << 17 != 0;
        assert!(with(true));
        assert!(!with(false));
    }

    #[test]
    fn apic_ids_are_vcpu_numbers() {
        assert_eq!(seen(1, 0).ebx >> 24, 1);
        assert_eq!(seen(0xb, 0).edx, 1);
        assert_eq!(seen(0x1f, 1).edx, 1);
        assert_eq!(seen(0x8000_001e, 0).eax, 1);
        assert_eq!(seen(0x8000_0008, 0).ecx, 1 << 12 | 1);
        assert_eq!(seen(4, 0).eax >> 26, 1);
    }

    #[test]
    fn topology_levels_end() {
        let three = facts(2, 3);
        assert_eq!(filter(0xb, 0, ALL, &three), Registers { eax: 0, ebx: 1, ecx: 0x100, edx: 2 });
        assert_eq!(filter(0xb, 1, ALL, &three), Registers { eax: 2, ebx: 3, ecx: 0x201, edx: 2 });
        assert_eq!(filter(0xb, 2, ALL, &three), Registers { eax: 0, ebx: 0, ecx: 2, edx: 2 });
    }

    #[test]
    fn an_absent_topology_leaf_stays_absent() {
        assert_eq!(filter(0xb, 0, Registers::default(), &facts(0, 1)), Registers::default());
    }

    #[test]
    fn unknown_and_hypervisor_leaves_are_empty() {
        for leaf in [
            3,
            5,
            6,
            0xa,
            0x12,
            0x14,
            0x20,
            0x4000_0000,
            0x4000_0100,
            0x8000_000a,
            0x8000_001f,
            0x8000_0026,
            0xc000_0000,
        ] {
            assert_eq!(seen(leaf, 0), Registers::default(), "{leaf:#x}");
        }
    }
}

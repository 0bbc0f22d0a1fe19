//! Which model-specific registers a guest reaches.
//!
//! An allow-list. The guest has the CPU only for a while: what belongs to the machine (microcode, power, machine checks, performance counters,
//! APIC, mitigations) is the host's. What the crossing carries over belongs to the guest. Numbers: Intel SDM volume 4, AMD APM volume 2, appendix A.

/// What a read gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The register, which every CPU has.
    Hardware,
    /// The register if this CPU has it, else 0: facts of the machine that are the same on all CPUs.
    IfPresent,
    /// A made-up value.
    Value(u64),
    /// As if the CPU did not have it: 0, and an error where the kernel asks carefully.
    Absent,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It writes the register.
    Hardware,
    /// Nothing, and the kernel is told that it worked.
    Dropped,
    /// As if the CPU did not have it.
    Absent,
}

const SYSENTER: core::ops::RangeInclusive<u32> = 0x174..=0x176;
const EFER: u32 = 0xc000_0080;
/// STAR, LSTAR, CSTAR, SFMASK.
const SYSCALL: core::ops::RangeInclusive<u32> = 0xc000_0081..=0xc000_0084;
/// FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX.
const BASES: core::ops::RangeInclusive<u32> = 0xc000_0100..=0xc000_0103;
const TSC: u32 = 0x10;
const APIC_BASE: u32 = 0x1b;
const PAT: u32 = 0x277;

/// The local APIC at its usual place, enabled, on the boot CPU: 6.9 and later take a CPU without the last bit for that of a crash kernel.
const APIC_BASE_VALUE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 8;

/// Registers that the crossing carries for the guest.
fn carried(msr: u32) -> bool {
    msr == EFER || SYSENTER.contains(&msr) || SYSCALL.contains(&msr) || BASES.contains(&msr)
}

/// Facts about the CPU that the guest's choice of mitigations and quirks depends on: platform ID, microcode level, platform info,
/// architectural capabilities, MISC_ENABLE, HWCR, DE_CFG.
fn machine_fact(msr: u32) -> bool {
    matches!(msr, 0x17 | 0x8b | 0xce | 0x10a | 0x1a0 | 0xc001_0015 | 0xc001_1029)
}

/// What reading `msr` gives.
pub fn read(msr: u32) -> Read {
    match msr {
        _ if carried(msr) => Read::Hardware,
        // The host's PAT is in force, so the guest must know it as it is.
        TSC | PAT => Read::Hardware,
        APIC_BASE => Read::Value(APIC_BASE_VALUE),
        _ if machine_fact(msr) => Read::IfPresent,
        _ => Read::Absent,
    }
}

/// What writing `msr` does.
pub fn write(msr: u32) -> Write {
    match msr {
        _ if carried(msr) => Write::Hardware,
        TSC | PAT | APIC_BASE => Write::Dropped,
        _ if machine_fact(msr) => Write::Dropped,
        _ => Write::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_what_the_crossing_carries() {
        let written: [u32; 12] = [
            0x174,
            0x175,
            0x176,
            0xc000_0080,
            0xc000_0081,
            0xc000_0082,
            0xc000_0083,
            0xc000_0084,
            0xc000_0100,
            0xc000_0101,
            0xc000_0102,
            0xc000_0103,
        ];
        for msr in (0..0x2000).chain(0xc000_0000..0xc000_2000).chain(0xc001_0000..0xc001_2000) {
            assert_eq!(write(msr) == Write::Hardware, written.contains(&msr), "{msr:#x}");
        }
    }

    #[test]
    fn boot_cpu_bit_is_set_on_every_cpu() {
        let Read::Value(value) = read(0x1b) else {
            panic!("APIC_BASE must not come from the CPU that happens to run the guest")
        };
        assert_eq!(value & 1 << 8, 1 << 8);
    }

    #[test]
    fn machine_registers_are_out_of_reach() {
        // SPEC_CTRL, PRED_CMD, X2APIC ICR, MTRR type, machine check status, DEBUGCTL, PMU control, XSS, performance counter.
        for msr in [0x48, 0x49, 0x830, 0x2ff, 0x401, 0x1d9, 0x38f, 0xda0, 0xc1] {
            assert_eq!(read(msr), Read::Absent, "{msr:#x}");
            assert_ne!(write(msr), Write::Hardware, "{msr:#x}");
        }
    }

    #[test]
    fn page_attribute_table_is_the_hosts() {
        assert_eq!((read(0x277), write(0x277)), (Read::Hardware, Write::Dropped));
    }
}

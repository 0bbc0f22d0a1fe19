//! Descriptor tables (Intel SDM vol. 3, chapters 3, 6 and 8).

/// Vector of the non-maskable interrupt.
pub const NMI_VECTOR: usize = 2;
/// Vector of the machine check.
pub const MACHINE_CHECK_VECTOR: usize = 18;
/// Gates of the passage's IDTs: up to the machine check.
pub(crate) const IDT_GATES: usize = MACHINE_CHECK_VECTOR + 1;
/// Entries of the passage's GDTs: room for any selector at which an operating system keeps its TSS.
pub(crate) const GDT_ENTRIES: usize = 16;

/// 64-bit kernel code, flat, accessed.
pub(crate) const KERNEL_CODE: u64 = 0x00af_9b00_0000_ffff;
/// Kernel data, flat, accessed.
pub(crate) const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
/// Selector of [`KERNEL_CODE`] in the passage's GDTs, the same as in Linux and Windows.
pub(crate) const KERNEL_CODE_SELECTOR: u16 = 0x10;

/// Operand of LGDT, LIDT, SGDT and SIDT.
#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
pub(crate) struct DescriptorPointer {
    /// Size of the table less one.
    pub limit: u16,
    /// Linear address of the table.
    pub base: u64,
}

impl DescriptorPointer {
    pub(crate) const fn new(bytes: usize, base: u64) -> Self {
        Self { limit: bytes as u16 - 1, base }
    }
}

/// A 64-bit interrupt gate.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// A present interrupt gate, DPL 0, no IST, into the kernel's code segment.
    pub(crate) const fn interrupt(handler: u64) -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
        let low = handler & 0xffff | (KERNEL_CODE_SELECTOR as u64) << 16 | PRESENT_INTERRUPT_GATE;
        Self { low: low | (handler >> 16 & 0xffff) << 48, high: handler >> 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_holds_all_address_bits() {
        let gate = Gate::interrupt(0x1234_5678_9abc_def0);
        assert_eq!(gate.low & 0xffff, 0xdef0);
        assert_eq!(gate.low >> 16 & 0xffff, 0x10);
        assert_eq!(gate.low >> 32 & 0xffff, 0x8e00);
        assert_eq!(gate.low >> 48, 0x9abc);
        assert_eq!(gate.high, 0x1234_5678);
    }
}

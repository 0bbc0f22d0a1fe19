//! What the host's CPU is and how the host uses it: read once, decides whether a guest can run.

use crate::regs;

const CR0_START_MASK: u64 = 0x8005_0033;
const CR4_PAE: u64 = 1 << 5;
const CR4_PSE: u64 = 1 << 4;
const CR4_MCE: u64 = 1 << 6;
const CR4_LA57: u64 = 1 << 12;
const CR4_VMXE: u64 = 1 << 13;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// The host's control registers, as far as the crossing cares.
#[derive(Clone, Copy, Debug)]
pub struct HostFacts {
    /// CR0 with only the bits that a kernel starts with.
    pub cr0: u64,
    /// CR4.
    pub cr4: u64,
}

/// Why no guest can run on this host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CR4.VMXE is set: a kernel's start code clears it, which faults while the CPU is in VMX operation.
    VmxOperation,
    /// The extended state is larger than the driver keeps for a vCPU.
    StateTooLarge,
}

impl HostFacts {
    /// Reads them on this CPU.
    pub fn read() -> Self {
        Self { cr0: regs::cr0() & CR0_START_MASK, cr4: regs::cr4() }
    }

    /// The host pages with five levels.
    pub fn la57(&self) -> bool {
        self.cr4 & CR4_LA57 != 0
    }

    /// The host uses PCIDs.
    pub fn pcid(&self) -> bool {
        self.cr4 & CR4_PCIDE != 0
    }

    /// The host is in VMX operation, or about to be.
    pub fn vmx(&self) -> bool {
        self.cr4 & CR4_VMXE != 0
    }

    /// As [`Self::vmx`], on this CPU at this moment.
    #[inline]
    pub fn vmx_now() -> bool {
        regs::cr4() & CR4_VMXE != 0
    }

    pub(crate) fn fsgsbase(&self) -> bool {
        self.cr4 & CR4_FSGSBASE != 0
    }

    pub(crate) fn xsave(&self) -> bool {
        self.cr4 & CR4_OSXSAVE != 0
    }

    pub(crate) fn pke(&self) -> bool {
        self.cr4 & CR4_PKE != 0
    }

    /// CR4 of a vCPU's first instruction: long mode's needs, the host's paging depth, machine checks as the host has them.
    pub(crate) fn guest_start_cr4(&self) -> u64 {
        CR4_PAE | CR4_PSE | self.cr4 & (CR4_MCE | CR4_LA57)
    }

    /// Whether a vCPU that left with these values can be entered again: the paging mode is the host's, PCIDs only where the host has them, and no VMX.
    pub fn can_reenter(&self, cr3: u64, cr4: u64) -> bool {
        let same_depth = (cr4 ^ self.cr4) & CR4_LA57 == 0;
        let pcid = cr4 & CR4_PCIDE == 0 || self.pcid();
        same_depth && pcid && cr4 & CR4_PAE != 0 && cr4 & CR4_VMXE == 0 && Self::is_root(cr3)
    }

    /// Whether CR3 can be loaded: it has an address, perhaps a PCID, and none of the bits above.
    pub fn is_root(cr3: u64) -> bool {
        cr3 >> 52 == 0
    }

    #[cfg(test)]
    pub(crate) fn with_cr4(cr4: u64) -> Self {
        Self { cr0: CR0_START_MASK, cr4 }
    }
}

/// Checks that guests can run on this CPU.
///
/// # Errors
/// [`Refusal`] says what is in the way.
pub fn preflight() -> Result<HostFacts, Refusal> {
    check(HostFacts::read())
}

fn check(facts: HostFacts) -> Result<HostFacts, Refusal> {
    if facts.vmx() {
        return Err(Refusal::VmxOperation);
    }
    if crate::residency::state_size(&facts) > crate::XSAVE_AREA_SIZE {
        return Err(Refusal::StateTooLarge);
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CR4_PGE: u64 = 1 << 7;
    const HOST: u64 = CR4_PAE | CR4_PGE | CR4_MCE;

    #[test]
    fn start_cr4_has_no_global_pages_and_the_host_depth() {
        assert_eq!(HostFacts::with_cr4(HOST).guest_start_cr4(), CR4_PAE | CR4_PSE | CR4_MCE);
        assert_ne!(HostFacts::with_cr4(HOST | CR4_LA57).guest_start_cr4() & CR4_LA57, 0);
    }

    #[test]
    fn a_host_in_vmx_operation_is_refused() {
        assert!(matches!(check(HostFacts::with_cr4(HOST | CR4_VMXE)), Err(Refusal::VmxOperation)));
        assert!(check(HostFacts::with_cr4(HOST)).is_ok());
    }

    #[test]
    fn a_guest_in_another_paging_mode_is_not_entered() {
        let host = HostFacts::with_cr4(HOST);
        assert!(host.can_reenter(0x1000, CR4_PAE | CR4_PGE));
        assert!(!host.can_reenter(0x1000, CR4_PAE | CR4_LA57));
        assert!(!host.can_reenter(0x1000, CR4_PAE | CR4_PCIDE));
        assert!(!host.can_reenter(0x1000, 0));
        assert!(!host.can_reenter(1 << 63, CR4_PAE));
        assert!(HostFacts::with_cr4(HOST | CR4_PCIDE).can_reenter(1, CR4_PAE | CR4_PCIDE));
    }
}

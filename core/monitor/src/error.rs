//! Who is to blame: the host ([`HostError`]) or the guest ([`Fault`]).

use colinux_abi::ioctl::{RunExit, exit};
use colinux_cpu::Refusal;

/// What the host could not do for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// There is not enough memory.
    NoMemory,
    /// The memory is in more pieces than the list of extents has room for.
    TooManyPieces,
    /// A signal came in; run again to go on.
    Interrupted,
    /// The vCPU is in `RUN` already, runs, or the VM is being reset.
    Busy,
    /// The argument is out of range, misaligned, or not allowed in this state.
    Invalid,
    /// No such vCPU, device or memory.
    NotFound,
    /// It exists already.
    Exists,
    /// A user address cannot be read or written.
    BadAddress,
    /// Caller and driver are of different ABI versions.
    Version,
    /// Another hypervisor uses the CPU (VMX operation).
    VmxOperation,
    /// The CPU's extended state is larger than the driver keeps for a vCPU.
    StateTooLarge,
    /// The kernel has none of the functions that we know for something.
    Unsupported,
    /// The kernel refused; its own error number (positive).
    Kernel(i32),
}

impl From<Refusal> for HostError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::VmxOperation => Self::VmxOperation,
            Refusal::StateTooLarge => Self::StateTooLarge,
        }
    }
}

/// The registers by which a guest pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Its CR3.
    pub cr3: u64,
    /// Its CR4.
    pub cr4: u64,
}

/// What a guest did wrong. It ends the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An unknown reason to leave.
    Reason(u64),
    /// A reason with a bad argument: both.
    Argument(u64, u64),
    /// The guest left with a page table or in a paging mode in which it cannot be entered again.
    Paging(Paging),
}

impl Fault {
    /// What `RUN` returns.
    pub fn exit(self) -> RunExit {
        let (reason, arg0, arg1) = match self {
            Self::Reason(reason) => (exit::FAILED, reason, 0),
            Self::Argument(reason, argument) => (exit::FAILED, reason, argument),
            Self::Paging(Paging { cr3, cr4 }) => (exit::PAGING, cr3, cr4),
        };
        RunExit { reason, reserved: 0, arg0, arg1 }
    }
}

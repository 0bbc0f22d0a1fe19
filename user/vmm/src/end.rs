//! How a VM ends.

use colinux_abi::hypercall::shutdown;
use colinux_control::Ending;

/// How a VM ended, other than by a failure of the host or of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    PowerOff,
    /// The guest halted.
    Halt,
    /// The guest wants to be started again.
    Restart,
    /// The guest's kernel panicked.
    Panic,
    /// The guest object refused to go on.
    Refused,
    /// The guest misbehaved and was ended by the driver.
    Failed {
        /// Its reason to leave.
        reason: u64,
        /// The argument of it that is bad.
        detail: u64,
    },
    /// The guest cannot be entered with its page table or in its paging mode, and was ended by the driver.
    Paging {
        /// Its CR3.
        cr3: u64,
        /// Its CR4.
        cr4: u64,
    },
    /// The VM was stopped from outside, without the guest's consent.
    Stopped,
}

impl End {
    /// The end that the guest asked for by `arg0` of a shutdown.
    pub(crate) fn of_shutdown(how: u64) -> Self {
        match how {
            shutdown::POWER_OFF => Self::PowerOff,
            shutdown::HALT => Self::Halt,
            shutdown::RESTART => Self::Restart,
            shutdown::PANIC => Self::Panic,
            shutdown::REFUSED => Self::Refused,
            other => Self::Failed { reason: other, detail: 0 },
        }
    }

    /// In words of the protocol.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::PowerOff | Self::Halt | Self::Restart => Ending::Orderly,
            Self::Panic => Ending::Panic,
            Self::Refused => Ending::Refused,
            Self::Failed { .. } | Self::Paging { .. } => Ending::Misbehaved,
            Self::Stopped => Ending::Stopped,
        }
    }
}

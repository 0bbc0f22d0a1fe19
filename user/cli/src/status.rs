//! Exit statuses.

use crate::{config::ConfigError, driver::DriverError, kernel::KernelError};
use colinux_driver::OpenError;
use colinux_loader::{LoadError, MachineError};
use colinux_vmm::{End, VmmError};
use std::{io, process::ExitCode};

/// The table for `--help`.
pub const HELP: &str = "\
Exit status:
   0  done; of `run`: the guest powered off or halted
   1  something else failed
   2  wrong usage, or a wrong word in a configuration
  64  the guest's kernel panicked
  65  the guest misbehaved and was ended
  66  the guest refused to run; the reason is on the console
  67  the guest was stopped from outside without its consent
  70  the driver is missing, of another version, or cannot run here
  71  a disk image or file cannot be used
  72  the kernel cannot be used
  73  not enough memory
  74  a disk image, or the driver, is busy
  77  no permission";

/// What the program says to its caller. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done; the guest powered off or halted.
    Ok = 0,
    /// Any other failure.
    Failure = 1,
    /// Wrong usage.
    Usage = 2,
    /// The guest's kernel panicked.
    Panic = 64,
    /// The guest misbehaved and was ended.
    GuestFailed = 65,
    /// The guest object refused to go on.
    GuestRefused = 66,
    /// Stopped from outside.
    Stopped = 67,
    /// The driver cannot be used.
    Driver = 70,
    /// A disk image or file cannot be used.
    Image = 71,
    /// The kernel cannot be used.
    Kernel = 72,
    /// Not enough memory.
    Memory = 73,
    /// A disk image or the driver is busy.
    Busy = 74,
    /// No permission.
    Permission = 77,
}

/// Everything that can end a command early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong words.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A VM cannot run.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The driver cannot be loaded.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A kernel is not fit.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

impl From<&End> for Status {
    fn from(end: &End) -> Self {
        match end {
            End::PowerOff | End::Halt | End::Restart => Self::Ok,
            End::Panic => Self::Panic,
            End::Refused => Self::GuestRefused,
            End::Failed { .. } => Self::GuestFailed,
            End::Stopped => Self::Stopped,
        }
    }
}

impl Status {
    /// The status for a failure.
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Config(ConfigError::Read { source, .. }) => Self::of_file(source),
            Failure::Config(_) => Self::Usage,
            Failure::Kernel(error) | Failure::Driver(DriverError::Kernel(error)) => Self::of_kernel(error),
            Failure::Driver(DriverError::Permission | DriverError::Unusable(OpenError::Permission(_))) => {
                Self::Permission
            }
            Failure::Driver(DriverError::Busy) => Self::Busy,
            Failure::Driver(_) => Self::Driver,
            Failure::Vmm(error) => Self::of_vmm(error),
        }
    }

    fn of_file(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Permission } else { Self::Image }
    }

    fn of_kernel(error: &KernelError) -> Self {
        match error {
            KernelError::Read { source, .. } => Self::of_file(source),
            _ => Self::Kernel,
        }
    }

    fn of_vmm(error: &VmmError) -> Self {
        match error {
            VmmError::Open(OpenError::Permission(_)) => Self::Permission,
            VmmError::OneCpu => Self::Usage,
            VmmError::Open(_) | VmmError::Vmx | VmmError::Driver(_) | VmmError::UnknownExit(_) => {
                Self::Driver
            }
            VmmError::Load(error) => Self::of_load(error),
            VmmError::Storage(colinux_vmm::StorageError::Busy(_)) => Self::Busy,
            VmmError::Storage(_) | VmmError::Flush { .. } => Self::Image,
            _ => Self::Failure,
        }
    }

    fn of_load(error: &LoadError) -> Self {
        match error {
            LoadError::Image(_) | LoadError::Initrd(_) => Self::Image,
            LoadError::Kernel { .. } | LoadError::NoFiveLevel | LoadError::BadKernel(_) => Self::Kernel,
            LoadError::MemoryTooSmall { .. } | LoadError::Grown(_) => Self::Memory,
            LoadError::Machine(MachineError::NoMemory(_)) => Self::Memory,
            LoadError::CommandLine { .. } => Self::Usage,
            LoadError::Machine(MachineError::Other(_)) => Self::Driver,
            _ => Self::Failure,
        }
    }
}

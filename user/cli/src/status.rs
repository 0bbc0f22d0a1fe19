//! Exit statuses.

use crate::{
    agent::AgentError, config::ConfigError, desktop::DesktopError, driver::DriverError, kernel::KernelError,
    start::StartError, symbols::SymbolsError,
};
use colinux_control::ControlError;
use colinux_driver::OpenError;
use colinux_image::ImageError as MakeError;
use colinux_loader::{ImageError, LoadError, MachineError};
use colinux_vmm::{End, StorageError, VmmError, VsockError};
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
  68  a thread that serves the guest did what is none of its work, and was stopped
  70  the driver is missing, of another version, or cannot run here
  71  a disk image, a file or a folder cannot be used
  72  the kernel cannot be used
  73  not enough memory
  74  a disk image, a name or the driver is busy
  75  no such guest runs
  76  a network device cannot be connected
  77  no permission
  78  the guest has no agent for `exec` and `cp`
`exec` ends with the status of the command, and with 128 + N if signal N ended it.";

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
    /// A thread that is shut in did what it must not.
    BrokenOut = 68,
    /// The driver cannot be used.
    Driver = 70,
    /// A disk image, a file or a folder cannot be used.
    Image = 71,
    /// The kernel cannot be used.
    Kernel = 72,
    /// Not enough memory.
    Memory = 73,
    /// A disk image or the driver is busy.
    Busy = 74,
    /// No such guest runs.
    NotRunning = 75,
    /// A network device cannot be connected.
    Network = 76,
    /// No permission.
    Permission = 77,
    /// The guest has no agent.
    NoAgent = 78,
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
    /// A VM cannot be found or talked to.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An image cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A disk image cannot be used.
    #[error(transparent)]
    Disk(#[from] ImageError),
    /// The agent in the guest cannot do it.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A VM cannot be started in the background.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no desktop to show.
    #[error(transparent)]
    Desktop(#[from] DesktopError),
    /// Symbols cannot be written.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
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
            End::Failed { .. } | End::Paging { .. } => Self::GuestFailed,
            End::Stopped => Self::Stopped,
        }
    }
}

impl Status {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::Panic,
        Self::GuestFailed,
        Self::GuestRefused,
        Self::Stopped,
        Self::BrokenOut,
        Self::Driver,
        Self::Image,
        Self::Kernel,
        Self::Memory,
        Self::Busy,
        Self::NotRunning,
        Self::Network,
        Self::Permission,
        Self::NoAgent,
    ];

    /// The status with the number `code`.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == code)
    }

    /// The status for a failure.
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Config(ConfigError::Read { source, .. } | ConfigError::Write { source, .. }) => {
                Self::of_file(source)
            }
            Failure::Config(_) => Self::Usage,
            Failure::Kernel(error) | Failure::Driver(DriverError::Kernel(error)) => Self::of_kernel(error),
            Failure::Driver(DriverError::Permission | DriverError::Unusable(OpenError::Permission(_))) => {
                Self::Permission
            }
            Failure::Driver(DriverError::Busy) => Self::Busy,
            Failure::Driver(_) => Self::Driver,
            Failure::Vmm(error) => Self::of_vmm(error),
            Failure::Control(error) => Self::of_control(error),
            Failure::Make(MakeError::Word { .. } | MakeError::Shrink { .. }) => Self::Usage,
            Failure::Make(MakeError::Exists(_)) => Self::Busy,
            Failure::Make(MakeError::Write { source, .. } | MakeError::Read { source, .. }) => {
                Self::of_file(source)
            }
            Failure::Make(
                MakeError::Archive { .. }
                | MakeError::Container(_)
                | MakeError::NoSystem { .. }
                | MakeError::NoRoom { .. }
                | MakeError::Name(_),
            ) => Self::Image,
            Failure::Make(MakeError::Package { .. }) => Self::Kernel,
            Failure::Make(MakeError::HasKernel { .. }) => Self::Busy,
            Failure::Make(MakeError::Storage(error)) => Self::of_storage(error),
            Failure::Make(MakeError::Disk(error)) => Self::of_disk(error),
            Failure::Make(MakeError::NotRaw(_) | MakeError::NotFile(_) | MakeError::NotClean { .. }) => {
                Self::Image
            }
            Failure::Make(_) => Self::Failure,
            Failure::Disk(error) => Self::of_disk(error),
            Failure::Agent(AgentError::NoSockets(_) | AgentError::NoAnswer { .. }) => Self::NoAgent,
            Failure::Agent(AgentError::Paths | AgentError::Unnamed(_)) => Self::Usage,
            Failure::Agent(AgentError::Refused(_)) | Failure::Start(_) => Self::Failure,
            Failure::Desktop(
                DesktopError::BadDisplay(_) | DesktopError::NoSockets | DesktopError::Nothing,
            ) => Self::Usage,
            Failure::Desktop(_) => Self::Failure,
            Failure::Symbols(error) => Self::of_symbols(error),
        }
    }

    fn of_symbols(error: &SymbolsError) -> Self {
        match error {
            SymbolsError::Kernel(error) => Self::of_kernel(error),
            SymbolsError::NotLoaded { .. } | SymbolsError::Hidden => Self::Driver,
            SymbolsError::Write { source, .. } => Self::of_file(source),
            SymbolsError::Damaged(_) | SymbolsError::Make(_) => Self::Failure,
        }
    }

    fn of_disk(error: &ImageError) -> Self {
        match error {
            ImageError::Io { source, .. } => Self::of_file(source),
            _ => Self::Image,
        }
    }

    fn of_storage(error: &StorageError) -> Self {
        match error {
            StorageError::Busy(_) | StorageError::Loop { .. } => Self::Busy,
            StorageError::Io { source, .. } => Self::of_file(source),
            _ => Self::Image,
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
            VmmError::VcpuCount { .. } | VmmError::MemorySize { .. } | VmmError::TooManyDevices { .. } => {
                Self::Usage
            }
            VmmError::Open(_) | VmmError::Vmx | VmmError::Driver(_) | VmmError::UnknownExit(_) => {
                Self::Driver
            }
            VmmError::Load(error) => Self::of_load(error),
            VmmError::Storage(StorageError::Busy(_) | StorageError::Loop { .. }) => Self::Busy,
            VmmError::Vsock(VsockError::Taken(_)) => Self::Busy,
            VmmError::Vsock(VsockError::Open(source)) if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::Permission
            }
            VmmError::Storage(_) | VmmError::Flush { .. } | VmmError::NoVirtiofsd | VmmError::NoUidMap => {
                Self::Image
            }
            VmmError::Folder { source, .. } => Self::of_file(source),
            VmmError::Control(error) => Self::of_control(error),
            VmmError::Passt { .. } | VmmError::Tap { .. } => Self::Network,
            VmmError::Log { source, .. } | VmmError::Serial { source, .. } => Self::of_file(source),
            VmmError::TooManyPorts(_) => Self::Usage,
            _ => Self::Failure,
        }
    }

    fn of_control(error: &ControlError) -> Self {
        match error {
            ControlError::NoneRuns | ControlError::NotRunning { .. } => Self::NotRunning,
            ControlError::Which(_) | ControlError::BadName(_) => Self::Usage,
            ControlError::Taken(_) => Self::Busy,
            ControlError::Place { source, .. } => Self::of_file(source),
            _ => Self::Failure,
        }
    }

    fn of_load(error: &LoadError) -> Self {
        match error {
            LoadError::Image(_) | LoadError::Initrd(_) => Self::Image,
            LoadError::Kernel { .. }
            | LoadError::Package(_)
            | LoadError::NoFiveLevel
            | LoadError::BadKernel(_) => Self::Kernel,
            LoadError::MemoryTooSmall { .. } | LoadError::Grown(_) | LoadError::Lent => Self::Memory,
            LoadError::Machine(MachineError::NoMemory(_)) => Self::Memory,
            LoadError::CommandLine { .. } => Self::Usage,
            LoadError::Machine(MachineError::Other(_)) => Self::Driver,
            _ => Self::Failure,
        }
    }
}

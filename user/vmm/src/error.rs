//! Why a VM cannot run: failures of the host, of its files or of this program.

use colinux_control::ControlError;
use colinux_devices::{MemoryError, PasstError, StorageError, TapError, VsockError};
use colinux_driver::OpenError;
use colinux_loader::LoadError;
use std::{io, path::PathBuf};

/// A VM cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// The driver cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another hypervisor owns the CPU.
    #[error(
        "the host is in VMX operation (CR4.VMXE): another hypervisor is active; end its virtual machines and unload it \
         (KVM: `sudo modprobe -r kvm_intel`)"
    )]
    Vmx,
    /// The driver refuses something.
    #[error(transparent)]
    Driver(colinux_driver::Error),
    /// The guest cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A disk cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A network device cannot be connected by address translation.
    #[error("{name}: {source}")]
    Passt {
        /// The device.
        name: String,
        /// Why.
        source: PasstError,
    },
    /// A network device cannot be connected to a TAP device.
    #[error("{name}: {source}")]
    Tap {
        /// The device.
        name: String,
        /// Why.
        source: TapError,
    },
    /// The guest cannot have sockets to the host.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// A folder cannot be served.
    #[error("cannot give the guest the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What serves folders is missing.
    #[error(
        "folders need the program virtiofsd, which is not installed: `sudo apt install virtiofsd` (Debian 12 has it in \
         `qemu-system-common`)"
    )]
    NoVirtiofsd,
    /// What gives a user's folders other owners is missing.
    #[error(
        "folders of users other than root need the program newuidmap, which is not installed: `sudo apt install uidmap`"
    )]
    NoUidMap,
    /// A disk could not be made durable.
    #[error("the disk {name} could not be flushed: {source}; data of the guest may be lost")]
    Flush {
        /// The disk.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// More devices than the window has pages for.
    #[error(
        "a guest has at most {most} devices, and this one would have {count}: leave {excess} of the disks (cobdN=), networks \
         (ethN=) and folders (cofsN=) out"
    )]
    TooManyDevices {
        /// Most devices.
        most: usize,
        /// Devices that were asked for.
        count: usize,
        /// Devices too many.
        excess: usize,
    },
    /// A size that a guest's memory cannot have.
    #[error("a guest needs {} MiB of memory at least", least >> 20)]
    MemorySize {
        /// Least bytes.
        least: u64,
    },
    /// A guest gets more only when it has all that it had.
    #[error(
        "the host still uses {} MiB of the guest's memory: give them back first (`colinux memory {}M`), and wait until it has them",
        lent >> 20,
        total >> 20
    )]
    StillLent {
        /// Bytes that the host has.
        lent: u64,
        /// Bytes of the guest in all.
        total: u64,
    },
    /// The host has got memory at addresses that it did not have when the guest was started.
    #[error("the host's new memory lies above {} GiB, which is of use to guests that are started from now on only", _0 >> 30)]
    BeyondSpan(u64),
    /// A number of vCPUs that a guest cannot have.
    #[error("this guest can use from 1 to {most} vCPUs; its cpus= says how many it has")]
    VcpuCount {
        /// Those it was made with.
        most: u32,
    },
    /// The guest's kernel will not.
    #[error("the guest's kernel cannot {what}: {source}; its log may tell more (`dmesg` there)")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The guest's kernel does not answer.
    #[error(
        "the guest's kernel does not answer; it is still booting, or hangs, or is busy with what it was asked before: try again, \
         and see `colinux logs`"
    )]
    NoAnswer,
    /// A disk that is not there.
    #[error("there is no disk {0}")]
    NoDisk(String),
    /// A network device that is not there.
    #[error("there is no network device {0}")]
    NoNet(String),
    /// A cable that leads nowhere.
    #[error("what {0} was connected to is gone, so its link stays down; start the guest again")]
    DeadNet(String),
    /// A disk does not become larger.
    #[error("the disk {name} cannot grow: {source}")]
    Grow {
        /// The disk.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The VM's name is taken, or its directory cannot be used.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The console's log cannot be written.
    #[error("cannot write the console's log {}: {source}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What a serial port is to be connected to cannot be opened.
    #[error("cannot connect {name}=: {source}")]
    Serial {
        /// The port.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// More serial ports than the device has.
    #[error("a guest has at most {0} serial ports")]
    TooManyPorts(usize),
    /// The window is not where it should be.
    #[error("guest memory is not where it should be: {0}; this is a bug of colinux")]
    Memory(#[from] MemoryError),
    /// The driver returned something unknown.
    #[error("the driver returned the unknown reason {0}; load the driver of this version")]
    UnknownExit(u32),
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl From<colinux_driver::Error> for VmmError {
    fn from(error: colinux_driver::Error) -> Self {
        match error {
            colinux_driver::Error::Vmx => Self::Vmx,
            other => Self::Driver(other),
        }
    }
}

impl VmmError {
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_that_comes_later_is_named_like_one_that_was_there() {
        assert!(matches!(colinux_driver::Error::Vmx.into(), VmmError::Vmx));
    }
}

//! Why a VM cannot run: failures of the host, of its files or of this program.

use colinux_devices::{MemoryError, StorageError};
use colinux_driver::OpenError;
use colinux_loader::LoadError;
use std::io;

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
    /// Several vCPUs on one CPU: one that waits for another with interrupts off would hold the host, and nobody could interrupt it.
    #[error("the host has one CPU, and the guest may have no more than that; run it with cpus=1")]
    OneCpu,
    /// The driver refuses something.
    #[error(transparent)]
    Driver(#[from] colinux_driver::Error),
    /// The guest cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A disk cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A disk could not be made durable.
    #[error("the disk {name} could not be flushed: {source}; data of the guest may be lost")]
    Flush {
        /// The disk.
        name: String,
        /// What the system said.
        source: io::Error,
    },
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

impl VmmError {
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

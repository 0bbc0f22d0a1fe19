//! What the loader needs of a VM.

use colinux_abi::ioctl::Extent;
use std::error::Error;

/// Why a [`Machine`] does not do what it is asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum MachineError {
    /// The host has not enough memory in pieces of that size.
    NoMemory(Box<dyn Error + Send + Sync>),
    /// Anything else.
    Other(Box<dyn Error + Send + Sync>),
}

/// A VM whose memory is taken piece by piece.
pub trait Machine {
    /// Takes `size` bytes in pieces of at least `min_piece` bytes, aligned to 2 MiB; returns the guest-physical address
    /// of the first piece. All sizes are multiples of 2 MiB.
    ///
    /// # Errors
    /// [`MachineError::NoMemory`]: nothing was taken.
    fn add_memory(&self, size: u64, min_piece: u64) -> Result<u64, MachineError>;

    /// All memory, sorted by address.
    ///
    /// # Errors
    /// The VM is broken.
    fn extents(&self) -> Result<Vec<Extent>, MachineError>;

    /// Says where the window is, after its page table has been written.
    ///
    /// # Errors
    /// The VM refuses the address.
    fn set_window(&self, gpa: u64) -> Result<(), MachineError>;
}

//! What can go wrong between the daemon and the driver.

use std::{io, path::PathBuf};

/// Why the driver cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The device node does not exist.
    #[error("{} does not exist: the coLinux driver is not loaded; run `sudo colinux driver load`", .0.display())]
    Missing(PathBuf),
    /// The caller may not open the device.
    #[error("no permission to open {}: run as root, or join the group `colinux` and log in again", .0.display())]
    Permission(PathBuf),
    /// The driver was built for another version of the interface.
    #[error(
        "the loaded driver speaks version {driver} of the interface, this program version {program}; \
         run `sudo colinux driver unload` and `sudo colinux driver load`"
    )]
    OtherVersion {
        /// Version of the driver.
        driver: u32,
        /// Version of this program.
        program: u32,
    },
    /// Something else answers at the device's path.
    #[error("{} is not the coLinux driver ({source}); remove it and run `sudo colinux driver load`", path.display())]
    NotTheDriver {
        /// Path that was opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the system.
    #[error("cannot open {}: {source}", path.display())]
    Io {
        /// Path that was opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A request to the driver failed. All of these are failures of the host or of this program, none of the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host has not enough memory that can be taken in pieces of the wanted size.
    #[error(
        "the host cannot give {} MiB of memory to the guest ({} MiB found in pieces of at least {} MiB); \
         use a smaller mem=, or free memory on the host", wanted >> 20, found >> 20, min_piece >> 20
    )]
    NoMemory {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes found.
        found: u64,
        /// Smallest useful piece in bytes.
        min_piece: u64,
    },
    /// A request was refused.
    #[error("the driver refused to {what}: {source}; see `dmesg` on the host")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// What the driver said.
        source: io::Error,
    },
    /// Guest memory could not be mapped into this process.
    #[error("cannot map guest memory at {gpa:#x}: {reason}")]
    Map {
        /// Guest-physical address of the extent.
        gpa: u64,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn call(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Call { what, source }
    }
}

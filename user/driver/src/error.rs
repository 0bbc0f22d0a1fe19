//! What can go wrong between the daemon and the driver.

use crate::sys;
use colinux_abi::MAX_EXTENTS;
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
        "the host cannot give {} MiB of memory to the guest in {} ({} MiB found); {}",
        wanted >> 20, pieces(*wanted, *min_piece), found >> 20, cure(*wanted, *min_piece)
    )]
    NoMemory {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes found.
        found: u64,
        /// Smallest useful piece in bytes.
        min_piece: u64,
    },
    /// The list of extents is full.
    #[error(
        "the guest's memory would be in more than {MAX_EXTENTS} pieces, the most that a guest can have: free memory on the host, or use a smaller mem="
    )]
    TooManyPieces,
    /// Another hypervisor uses the CPU.
    #[error(
        "the host is in VMX operation: another hypervisor uses the CPU; end its virtual machines and unload it"
    )]
    Vmx,
    /// The CPU has more state than the driver keeps.
    #[error(
        "this CPU's extended state (XSAVE) is larger than the driver keeps for a vCPU: no guest can run on it"
    )]
    StateTooLarge,
    /// A request was refused.
    #[error("the driver refused to {what}: {source}")]
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
        move |source| match source.raw_os_error() {
            Some(sys::TOO_MANY_PIECES) => Self::TooManyPieces,
            Some(sys::VMX_OPERATION) => Self::Vmx,
            Some(sys::STATE_TOO_LARGE) => Self::StateTooLarge,
            _ => Self::Call { what, source },
        }
    }
}

fn pieces(wanted: u64, min_piece: u64) -> String {
    if min_piece == wanted {
        "one piece".into()
    } else {
        format!("pieces of at least {} MiB", min_piece >> 20)
    }
}

fn cure(wanted: u64, min_piece: u64) -> &'static str {
    if min_piece == wanted {
        "free memory on the host, or start the guest sooner after the host's boot"
    } else {
        "use a smaller mem=, or free memory on the host"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_words() {
        let words = |number| Error::call("make a VM")(io::Error::from_raw_os_error(number)).to_string();
        assert!(words(libc::EOPNOTSUPP).contains("VMX operation"));
        assert!(words(libc::ENOSPC).contains("more than 2048 pieces"));
        assert!(words(libc::EOVERFLOW).contains("XSAVE"));
        let other = words(libc::EINVAL);
        assert!(
            other.starts_with("the driver refused to make a VM: ") && !other.contains("dmesg"),
            "{other}"
        );
    }

    #[test]
    fn a_refusal_says_how_much_there_was_and_in_which_pieces() {
        let words = |wanted: u64, found: u64, min_piece: u64| {
            Error::NoMemory { wanted: wanted << 20, found: found << 20, min_piece: min_piece << 20 }
                .to_string()
        };
        let one = words(62, 30, 62);
        assert!(one.contains("62 MiB of memory to the guest in one piece (30 MiB found)"), "{one}");
        let many = words(1024, 500, 2);
        assert!(
            many.contains("in pieces of at least 2 MiB (500 MiB found)") && many.contains("mem="),
            "{many}"
        );
    }
}

//! Why a disk image cannot be opened.

use super::Format;
use std::{io, path::PathBuf};

/// A disk image cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Somebody else uses it.
    #[error("{} is in use by another program, or mounted; stop that program (`fuser {}` names it), or `umount` it; an image file may be shared if all use it read-only (`,ro`)", .0.display(), .0.display())]
    Busy(PathBuf),
    /// A loop device is made of it.
    #[error("{} is the file of {}; end that (`losetup -d {}`), or give the guest the device instead", path.display(), device.display(), device.display())]
    Loop {
        /// The image.
        path: PathBuf,
        /// The device.
        device: PathBuf,
    },
    /// It may not be written.
    #[error("{} cannot be written; change its permissions, or use it read-only (`cobd0=FILE,ro`)", .0.display())]
    ReadOnly(PathBuf),
    /// Any other failure.
    #[error("cannot open the disk {}: {source}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A partition that is not there.
    #[error("{} has no partition {number}; it has: {has}", path.display())]
    NoPartition {
        /// The image.
        path: PathBuf,
        /// The number.
        number: u32,
        /// The partitions that it has.
        has: String,
    },
    /// Its contents are not what they should be.
    #[error("cannot use {} as a {format} image: {reason}", path.display())]
    Format {
        /// The image.
        path: PathBuf,
        /// What it was taken for.
        format: Format,
        /// What is wrong.
        reason: String,
    },
}

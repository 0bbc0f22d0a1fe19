//! `colinux kernel`.

use crate::status::{Failure, Status};
use colinux_objects::{GUEST_OBJECT, HOST_OBJECT};
use kbind_resolve::{ImageError, KernelImage, LinkError, link_guest, make_module};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What is wrong with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be used at all.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ImageError,
    },
    /// It cannot be used for what was wanted.
    #[error("{}: {source}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What differs.
        source: LinkError,
    },
    /// The running kernel's image was not found.
    #[error(
        "no image of the running kernel {release} in /boot; install its package again, or name it with --kernel"
    )]
    NoImage {
        /// Its release.
        release: String,
    },
    /// Another build is running.
    #[error(
        "{} is not the kernel that is running (another build id): reboot into it, or name the right one with --kernel",
        path.display()
    )]
    NotRunning {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a kernel.
pub fn read(path: &Path) -> Result<KernelImage, KernelError> {
    let bytes = fs::read(path).map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
    KernelImage::parse(bytes).map_err(|source| KernelError::Image { path: path.to_owned(), source })
}

/// Checks a kernel for both parts.
pub fn check(path: &Path) -> Result<Status, Failure> {
    let image = read(path)?;
    println!("{}: Linux {}", path.display(), image.release());
    let guest = link_guest(&image, GUEST_OBJECT);
    match &guest {
        Ok(link) => println!("  guest: fits, {} hooks", link.pokes.len()),
        Err(error) => println!("  guest: does not fit: {error}"),
    }
    match make_module(&image, HOST_OBJECT) {
        Ok(module) => println!("  host:  fits, module of {} KiB", module.len() / 1024),
        Err(error) => println!("  host:  does not fit: {error}"),
    }
    Ok(if guest.is_ok() { Status::Ok } else { Status::Kernel })
}

//! A guest that is ready to be loaded: a kernel joined with the guest object, its initrd and its command line.

use crate::{LoadError, kernel::KernelLayout};
use kbind_resolve::{GuestLink, KernelImage, link_guest};
use std::io::{self, Read};

/// No initrd is larger.
const MAX_INITRD: u64 = 2 << 30;

/// An initrd that is read when it is loaded.
pub struct Initrd {
    /// Bytes.
    pub len: u64,
    /// Its bytes.
    pub reader: Box<dyn Read>,
}

/// A guest.
pub struct Guest {
    pub(crate) image: KernelImage,
    pub(crate) link: GuestLink,
    pub(crate) initrd: Option<Initrd>,
    pub(crate) command_line: String,
}

impl Guest {
    /// Joins the kernel `image` (called `name` in messages) with the guest `object`.
    ///
    /// # Errors
    /// The kernel cannot be a guest, or the initrd is absurdly large.
    pub fn new(
        name: &str,
        image: KernelImage,
        object: &[u8],
        initrd: Option<Initrd>,
        command_line: String,
    ) -> Result<Self, LoadError> {
        let kernel = |source| LoadError::Kernel { name: name.to_owned(), source };
        let link = link_guest(&image, object).map_err(kernel)?;
        if initrd.as_ref().is_some_and(|initrd| initrd.len > MAX_INITRD) {
            return Err(LoadError::Initrd(io::Error::other("it is larger than 2 GiB")));
        }
        Ok(Self { image, link, initrd, command_line })
    }

    /// The kernel's release.
    pub fn release(&self) -> &str {
        self.image.release()
    }

    /// Bytes of memory that the kernel takes.
    ///
    /// # Errors
    /// Its segments make no sense.
    pub fn kernel_len(&self) -> Result<u64, LoadError> {
        Ok(KernelLayout::new(self.image.segments())?.len)
    }

    /// Bytes of the initrd, 0 without one.
    pub fn initrd_len(&self) -> u64 {
        self.initrd.as_ref().map_or(0, |initrd| initrd.len)
    }
}

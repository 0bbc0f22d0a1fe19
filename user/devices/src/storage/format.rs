//! Images with a format, through the library imago.

use super::{Storage, too_short};
use crate::Slices;
use imago::{
    FormatAccess,
    file::File,
    format::PreallocateMode,
    io_buffers::{IoVector, IoVectorMut},
};
use std::{
    io,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// An image with a format.
pub(super) struct FormatImage {
    /// Exclusive for what moves the places of blocks in the image.
    image: RwLock<FormatAccess<File>>,
}

impl FormatImage {
    pub(super) fn new(image: FormatAccess<File>) -> Self {
        Self { image: RwLock::new(image) }
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<File>> {
        self.image.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, FormatAccess<File>> {
        self.image.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for FormatImage {
    fn len(&self) -> u64 {
        self.shared().size()
    }

    fn grow(&self, len: Option<u64>) -> io::Result<u64> {
        let image = self.shared();
        if let Some(len) = len {
            if len < image.size() {
                return Err(too_short(image.size()));
            }
            image.resize_grow(len, PreallocateMode::None)?;
            image.flush()?;
        }
        Ok(image.size())
    }

    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        let (vector, _mapped) = IoVectorMut::from_volatile_slice(data.pieces());
        self.shared().readv(vector, offset)
    }

    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        let (vector, _mapped) = IoVector::from_volatile_slice(data.pieces());
        self.shared().writev(vector, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let image = self.shared();
        image.flush()?;
        image.sync()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.alone().discard_to_any(offset, len) {
            // A hint that the format does not know is no failure.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            self.alone().discard_to_zero(offset, len)
        } else {
            self.shared().write_zeroes(offset, len)
        }
    }
}

//! Images with a format, through the library imago.

use super::{Storage, too_short, zero_by_writing};
use crate::Slices;
use imago::{
    FormatAccess,
    file::File,
    format::PreallocateMode,
    io_buffers::{IoVector, IoVectorMut},
};
use std::{
    io,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// An image with a format.
pub(super) struct FormatImage {
    /// Exclusive for what moves the places of blocks in the image.
    image: RwLock<FormatAccess<File>>,
    /// Beside it, because vCPUs ask for it and must not wait.
    len: AtomicU64,
}

impl FormatImage {
    pub(super) fn new(image: FormatAccess<File>) -> Self {
        let len = AtomicU64::new(image.size());
        Self { image: RwLock::new(image), len }
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
        self.len.load(Ordering::Acquire)
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
        let len = image.size();
        // Of several that grow it at once, the last to come here may have been the first to look.
        self.len.fetch_max(len, Ordering::AcqRel);
        Ok(len)
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
        let result = if unmap {
            self.alone().discard_to_zero(offset, len)
        } else {
            self.shared().write_zeroes(offset, len)
        };
        match result {
            // Images of QEMU before 1.1 have no clusters of zeros.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => zero_by_writing(self, offset, len),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, create_image};
    use imago::qcow2::Qcow2;

    #[test]
    fn the_length_needs_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        drop(create_image(&path, Format::Qcow2, 1 << 20).unwrap());
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let image: Qcow2<File> = Qcow2::open_image(File::try_from(file).unwrap(), true).unwrap();
        let image = FormatImage::new(FormatAccess::new(image));
        let held = image.alone();
        assert_eq!(image.len(), 1 << 20);
        drop(held);
        assert_eq!((image.grow(Some(2 << 20)).unwrap(), image.len()), (2 << 20, 2 << 20));
    }
}

//! A partition of a disk, as a disk of its own.

use super::{Storage, StorageError};
use crate::Slices;
use colinux_loader::{Medium, Part, partitions};
use std::{io, path::Path, sync::Arc};

/// A disk as the loader reads it.
struct StorageMedium(Arc<dyn Storage>);

impl Medium for StorageMedium {
    fn size(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// A disk for the loader.
pub fn medium(disk: &Arc<dyn Storage>) -> Arc<dyn Medium> {
    Arc::new(StorageMedium(Arc::clone(disk)))
}

/// Where partition `number` of the disk in the image `path` is.
///
/// # Errors
/// There is none, or the disk cannot be read.
pub fn find_partition(path: &Path, disk: &Arc<dyn Storage>, number: u32) -> Result<Part, StorageError> {
    let parts =
        partitions(&medium(disk)).map_err(|source| StorageError::Io { path: path.to_owned(), source })?;
    let names: Vec<_> =
        parts.iter().filter_map(|part| part.number).map(|number| number.to_string()).collect();
    parts.into_iter().find(|part| part.number == Some(number)).ok_or_else(|| {
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        StorageError::NoPartition { path: path.to_owned(), number, has }
    })
}

/// One partition. Its size is that which the table says, as long as it is open.
pub(super) struct Partition {
    disk: Arc<dyn Storage>,
    start: u64,
    len: u64,
}

impl Partition {
    pub(super) fn new(disk: Arc<dyn Storage>, part: &Part) -> Self {
        Self { disk, start: part.start, len: part.len }
    }

    /// Where on the disk `len` bytes from `offset` are, if the partition has so many.
    fn place(&self, offset: u64, len: u64) -> io::Result<u64> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Storage for Partition {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_memory(&self) -> bool {
        self.disk.is_memory()
    }

    fn read_now(&self, data: &Slices<'_>, offset: u64) -> io::Result<bool> {
        self.disk.read_now(data, self.place(offset, data.len() as u64)?)
    }

    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        let place = self.place(offset, data.len() as u64)?;
        self.disk.read(data, place)
    }

    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        let place = self.place(offset, data.len() as u64)?;
        self.disk.write(data, place)
    }

    fn grow(&self, len: Option<u64>) -> io::Result<u64> {
        match len {
            Some(len) if len != self.len => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is a partition, whose size is fixed; give the guest the whole disk, and let it grow the partition",
            )),
            _ => Ok(self.len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.discard(self.place(offset, len)?, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.disk.write_zeroes(self.place(offset, len)?, len, unmap)
    }
}

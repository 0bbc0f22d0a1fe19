//! Raw images.

use super::{Storage, StorageError, too_short};
use crate::Slices;
use colinux_driver::{read_cached_at, read_vectored_at, write_vectored_at};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock, fstatfs};
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::sleep,
    time::Duration,
};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)): what lies there is in memory.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// How often a device is asked for that is busy, and how long to wait before it is asked for again.
const MOST_ATTEMPTS: u32 = 5;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// A raw image: a file or block device whose bytes are the disk's.
pub struct RawImage {
    file: File,
    len: AtomicU64,
    is_memory: bool,
    /// The file system can tell what is in the page cache, as far as we know.
    tells_cached: AtomicBool,
}

impl RawImage {
    /// Opens and locks an image, see [`open_locked`].
    ///
    /// # Errors
    /// It is missing, busy, or may not be written.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, StorageError> {
        let (mut file, is_device) = open_locked(path, read_only)?;
        let io_error = |source| StorageError::Io { path: path.to_owned(), source };
        // Seeking gives the size of block devices too.
        let len = file.seek(SeekFrom::End(0)).map_err(io_error)?;
        let kind = fstatfs(&file).map_err(|error| io_error(error.into()))?.f_type;
        let is_memory = !is_device && MEMORY_FILE_SYSTEMS.contains(&(kind as i64));
        Ok(Self { file, len: AtomicU64::new(len), is_memory, tells_cached: AtomicBool::new(true) })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn zero_by_writing(&self, mut offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
        let end = offset + len;
        while offset < end {
            let piece = (end - offset).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..piece as usize], offset)?;
            offset += piece;
        }
        Ok(())
    }
}

/// Opens and locks a file; also whether it is a block device.
///
/// A file is locked by flock(2), which is advisory: one writer or any number of readers. A block device that is written is opened exclusively
/// (O_EXCL), which also keeps it from being mounted, and fails where it is; udev locks such devices briefly by flock, so that would not tell users apart.
///
/// # Errors
/// It is missing, busy, or may not be written.
pub(super) fn open_locked(path: &Path, read_only: bool) -> Result<(File, bool), StorageError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !read_only => {
            StorageError::ReadOnly(path.to_owned())
        }
        io::ErrorKind::ResourceBusy => StorageError::Busy(path.to_owned()),
        _ => StorageError::Io { path: path.to_owned(), source },
    };
    let is_device = std::fs::metadata(path).map_err(io_error)?.file_type().is_block_device();
    let exclusive = if is_device && !read_only { OFlags::EXCL } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only).custom_flags(exclusive.bits() as i32);
    let file = options.open(path).map_err(io_error)?;
    if !is_device {
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, lock) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StorageError::Busy(path.to_owned())),
            result => result.map_err(|error| io_error(error.into()))?,
        }
    }
    Ok((file, is_device))
}

/// Makes sure that nobody has a block device for himself, as mounts, swap, RAIDs and guests that write to it do. Files are never refused.
///
/// # Errors
/// Somebody has, or the device cannot be read.
pub(super) fn check_free(path: &Path) -> Result<(), StorageError> {
    let io_error = |source| StorageError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io_error)?.file_type().is_block_device() {
        return Ok(());
    }
    for attempt in 1.. {
        match OpenOptions::new().read(true).custom_flags(OFlags::EXCL.bits() as i32).open(path) {
            // Another guest may ask just now.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < MOST_ATTEMPTS => {
                sleep(BETWEEN_ATTEMPTS);
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => break,
            result => return result.map(drop).map_err(io_error),
        }
    }
    Err(StorageError::Busy(path.to_owned()))
}

/// Repeats `step`, which moves a part of the data, until all has moved.
fn all(
    mut data: Slices<'_>,
    mut offset: u64,
    step: impl Fn(&Slices<'_>, u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !data.is_empty() {
        match step(&data, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                data.advance(count);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Storage for RawImage {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn grow(&self, len: Option<u64>) -> io::Result<u64> {
        if let Some(len) = len {
            if len < self.len() {
                return Err(too_short(self.len()));
            }
            self.file.set_len(len)?;
        }
        let len = (&self.file).seek(SeekFrom::End(0))?;
        self.len.store(len, Ordering::Release);
        Ok(len)
    }

    fn is_memory(&self) -> bool {
        self.is_memory
    }

    fn read_now(&self, data: &Slices<'_>, offset: u64) -> io::Result<bool> {
        if !self.tells_cached.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match read_cached_at(&self.file, data.pieces(), offset) {
            Ok(count) => Ok(count == data.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.tells_cached.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        all(data, offset, |data, offset| read_vectored_at(&self.file, data.pieces(), offset))
    }

    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        all(data, offset, |data, offset| write_vectored_at(&self.file, data.pieces(), offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            // A hint that the medium does not know is no failure.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let flags = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.zero_by_writing(offset, len),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_image_is_refused_but_readers_share() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = RawImage::open(file.path(), false).unwrap();
        assert!(matches!(RawImage::open(file.path(), false), Err(StorageError::Busy(_))));
        assert!(matches!(RawImage::open(file.path(), true), Err(StorageError::Busy(_))));
        drop(writer);
        let _reader = RawImage::open(file.path(), true).unwrap();
        assert!(RawImage::open(file.path(), true).is_ok());
        assert!(matches!(RawImage::open(file.path(), false), Err(StorageError::Busy(_))));
    }

    #[test]
    fn zeroes_are_zeroes_in_each_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 0x3_0000]).unwrap();
        let image = RawImage::open(file.path(), false).unwrap();
        image.write_zeroes(100, 0x1_1000, false).unwrap();
        image.write_zeroes(0x2_0000, 512, true).unwrap();
        image.zero_by_writing(0x2_2000, 0x1_0001 - 0x1000).unwrap();
        image.discard(0, 50).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let ones = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 1);
        let zeros = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        assert!(ones(50..100) && zeros(100..0x1_1064) && ones(0x1_1064..0x2_0000));
        assert!(zeros(0x2_0000..0x2_0200) && ones(0x2_0200..0x2_2000) && zeros(0x2_2000..0x3_0000));
    }
}

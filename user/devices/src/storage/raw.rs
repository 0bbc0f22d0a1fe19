//! Raw images.

use super::{
    Storage, StorageError,
    lock::{lock_bytes, loop_device},
    too_short, zero_by_writing,
};
use crate::Slices;
use colinux_driver::{discard_at, read_cached_at, read_vectored_at, write_vectored_at};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock, fstatfs};
use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
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
    is_device: bool,
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
        Ok(Self { file, len: AtomicU64::new(len), is_device, is_memory, tells_cached: AtomicBool::new(true) })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Opens and locks a file; also whether it is a block device.
///
/// It is locked as QEMU does (see [`lock_bytes`]) and, if it is a file, by flock(2), both advisory: one writer or any number of readers. A block device that is written is opened exclusively
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
    // Before it is opened: whoever opens a pipe waits for its other end.
    let kind = std::fs::metadata(path).map_err(io_error)?.file_type();
    let is_device = kind.is_block_device();
    if !is_device && !kind.is_file() {
        return Err(io_error(io::Error::new(io::ErrorKind::InvalidInput, no_disk(kind))));
    }
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
        if let Some(device) = loop_device(&file, read_only).map_err(io_error)? {
            return Err(StorageError::Loop { path: path.to_owned(), device });
        }
    }
    if !lock_bytes(&file, read_only).map_err(io_error)? {
        return Err(StorageError::Busy(path.to_owned()));
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

fn no_disk(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "it is a folder; a file or a block device is needed (`cofs0=` shares a folder)"
    } else {
        "it is a pipe, a socket or a character device; a file or a block device is needed"
    }
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
        if len < self.len() {
            return Err(too_short(self.len()));
        }
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
        const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
        let result = if self.is_device {
            // A hole in a device would be zeros that it has to write, on many.
            discard_at(&self.file, offset, len)
        } else {
            fallocate(&self.file, HOLE, offset, len).map_err(io::Error::from)
        };
        match result {
            // A hint that the medium does not know, or not for parts of its blocks, is no failure.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(error) if self.is_device && error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let flags = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => zero_by_writing(self, offset, len),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, Mode};

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
    fn what_is_no_disk_is_refused_by_its_kind_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (path, word) in [(&*pipe, "pipe"), (folder.path(), "folder"), (Path::new("/dev/null"), "device")]
        {
            for read_only in [true, false] {
                let error = RawImage::open(path, read_only).err().unwrap().to_string();
                assert!(error.contains(word) && error.contains("is needed"), "{error}");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_makes_no_disk_shorter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let image = RawImage::open(file.path(), false).unwrap();
        file.as_file().set_len(4096).unwrap();
        assert!(image.grow(None).unwrap_err().to_string().contains("only grows"));
        assert_eq!(image.len(), 8192);
        assert_eq!((image.grow(Some(16384)).unwrap(), image.len()), (16384, 16384));
    }

    #[test]
    fn zeroes_are_zeroes_in_each_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 0x3_0000]).unwrap();
        let image = RawImage::open(file.path(), false).unwrap();
        image.write_zeroes(100, 0x1_1000, false).unwrap();
        image.write_zeroes(0x2_0000, 512, true).unwrap();
        zero_by_writing(&image, 0x2_2000, 0x1_0001 - 0x1000).unwrap();
        image.discard(0, 50).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let ones = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 1);
        let zeros = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        assert!(ones(50..100) && zeros(100..0x1_1064) && ones(0x1_1064..0x2_0000));
        assert!(zeros(0x2_0000..0x2_0200) && ones(0x2_0200..0x2_2000) && zeros(0x2_2000..0x3_0000));
    }
}

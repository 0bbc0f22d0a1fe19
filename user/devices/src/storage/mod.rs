//! What a disk stores its bytes in.

mod blocks;
mod create;
mod error;
mod format;
mod lock;
mod open;
mod partition;
mod raw;

use crate::Slices;
pub use create::create_image;
pub use error::StorageError;
pub use open::{Format, ImageOptions, Overlay};
pub use partition::{find_partition, medium};
pub use raw::RawImage;
use std::io;

/// A small image of each format.
#[cfg(feature = "fuzz")]
pub(crate) fn samples() -> Vec<(Format, Vec<u8>)> {
    use blocks::samples::*;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let disk = create_image(&path, Format::Qcow2, 1 << 21).unwrap();
    disk.write(Slices::from(&mut [1; 4096][..]), 1 << 20).unwrap();
    disk.sync().unwrap();
    drop(disk);
    let mut images = vec![(Format::Qcow2, std::fs::read(path).unwrap())];
    for (format, image) in
        [(Format::Vdi, vdi()), (Format::Vhd, vhd()), (Format::Vmdk, vmdk()), (Format::Vhdx, vhdx())]
    {
        let (mut file, mut bytes) = (&image.0, Vec::new());
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        images.push((format, bytes));
    }
    images
}

/// For media that know no other way.
fn zero_by_writing(storage: &impl Storage, offset: u64, len: u64) -> io::Result<()> {
    let mut zeros = vec![0; len.min(0x1_0000) as usize];
    let end = offset + len;
    for at in (offset..end).step_by(zeros.len().max(1)) {
        let piece = (end - at).min(zeros.len() as u64) as usize;
        storage.write(Slices::from(&mut zeros[..piece]), at)?;
    }
    Ok(())
}

fn too_short(len: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it has {len} bytes already, and a disk only grows"))
}

/// Bytes on a disk. All offsets and lengths are in bytes.
pub trait Storage: Send + Sync {
    /// Bytes of the disk.
    fn len(&self) -> u64;

    /// Whether the disk has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every request ends at once, because the bytes are in the host's memory.
    fn is_memory(&self) -> bool {
        false
    }

    /// Fills all of `data` from `offset` if that needs no wait for the medium; false if it does, and then the contents of `data` are undefined.
    ///
    /// # Errors
    /// As the medium.
    fn read_now(&self, _data: &Slices<'_>, _offset: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Fills all of `data` from `offset`.
    ///
    /// # Errors
    /// As the medium.
    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()>;

    /// Fills all of `buffer` from `offset`, if the disk has so much.
    ///
    /// # Errors
    /// The disk ends before that, or the medium fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inside = offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.len());
        if inside {
            self.read(Slices::from(buffer), offset)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Writes all of `data` to `offset`.
    ///
    /// # Errors
    /// As the medium.
    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()>;

    /// Makes the disk `len` bytes long, or without a length as long as its medium has become meanwhile; returns its length.
    ///
    /// # Errors
    /// It would become shorter, or the medium has a length of its own.
    fn grow(&self, len: Option<u64>) -> io::Result<u64>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// Data may be lost.
    fn sync(&self) -> io::Result<()>;

    /// The bytes are no longer needed.
    ///
    /// # Errors
    /// As the medium.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Sets the bytes to zero; with `unmap` their space may be given back.
    ///
    /// # Errors
    /// As the medium.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

//! Disks in blocks that lie anywhere in one file: VHD, VHDX, VDI and sparse VMDK, for reading.
//!
//! The table of blocks is read and checked when the image is opened.

mod source;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use super::{Format, RawImage, Storage};
use crate::Slices;
use source::{Source, damaged, refused};
use std::io;

/// Most blocks of a disk: their table is in memory.
const MOST_BLOCKS: u64 = 1 << 24;
/// Place of a block that is not in the file: it is zero.
const ABSENT: u64 = u64::MAX;
const SECTOR: u64 = 512;
static ZEROS: [u8; 0x1000] = [0; 0x1000];

/// Where a disk's blocks are in its file.
#[derive(Debug)]
pub(super) struct BlockMap {
    /// Bytes of the disk.
    len: u64,
    /// Bytes of a block; the last may be longer than what is left of the disk.
    block: u64,
    /// Offset of each block in the file.
    places: Vec<u64>,
}

/// Reads the table of an image.
pub(super) type Reader = fn(&Source<'_>) -> io::Result<BlockMap>;

/// The reader of an image, if it is one of these.
pub(super) fn reader(format: Format, image: &RawImage) -> Option<Reader> {
    match format {
        Format::Raw | Format::Qcow2 => None,
        Format::Vmdk => {
            Source::new(image.file()).is_ok_and(|source| vmdk::is_sparse(&source)).then_some(vmdk::read)
        }
        Format::Vhd => Some(vhd::read),
        Format::Vhdx => Some(vhdx::read),
        Format::Vdi => Some(vdi::read),
    }
}

impl BlockMap {
    fn new(source: &Source<'_>, len: u64, block: u64, places: Vec<u64>) -> io::Result<Self> {
        if places.len() as u64 != count_blocks(len, block)? {
            return Err(damaged("its table does not have an entry for each block"));
        }
        for (begin, place) in (0..len).step_by(block as usize).zip(&places) {
            let end = place.checked_add(block.min(len - begin));
            if *place != ABSENT && end.is_none_or(|end| end > source.len()) {
                return Err(damaged("it is cut short, or a block lies behind its end"));
            }
        }
        Ok(Self { len, block, places })
    }

    /// Place in the file of a byte of the disk, and how many bytes follow it there.
    fn find(&self, offset: u64) -> Option<(u64, u64)> {
        let within = offset % self.block;
        let place = *self.places.get(usize::try_from(offset / self.block).ok()?)?;
        let place = if place == ABSENT { ABSENT } else { place.checked_add(within)? };
        Some((place, self.block - within))
    }
}

/// Blocks of a disk.
fn count_blocks(len: u64, block: u64) -> io::Result<u64> {
    if len == 0 || len > i64::MAX as u64 || block == 0 {
        return Err(damaged("it says that it has no length, or an absurd one"));
    }
    match len.div_ceil(block) {
        count if count > MOST_BLOCKS => Err(refused("it has too many blocks for its table")),
        count => Ok(count),
    }
}

/// An image whose blocks are found by its table.
pub(super) struct Blocks {
    image: RawImage,
    map: BlockMap,
}

impl Blocks {
    /// Reads the table of an image.
    ///
    /// # Errors
    /// It is damaged, or of a kind that is not supported.
    pub fn new(image: RawImage, read: Reader) -> io::Result<Self> {
        let map = read(&Source::new(image.file())?)?;
        Ok(Self { image, map })
    }
}

fn clear(mut data: Slices<'_>) {
    while !data.is_empty() {
        let count = data.write(&ZEROS);
        data.advance(count);
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Storage for Blocks {
    fn len(&self) -> u64 {
        self.map.len
    }

    fn is_memory(&self) -> bool {
        self.image.is_memory()
    }

    fn read(&self, mut data: Slices<'_>, mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let (place, follow) = self.map.find(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = follow.min(data.len() as u64);
            let (part, rest) = data.split_at(count as usize).ok_or(io::ErrorKind::InvalidInput)?;
            if place == ABSENT {
                clear(part)
            } else {
                self.image.read(part, place)?
            }
            (data, offset) = (rest, offset + count);
        }
        Ok(())
    }

    fn write(&self, _: Slices<'_>, _: u64) -> io::Result<()> {
        read_only()
    }

    fn grow(&self, len: Option<u64>) -> io::Result<u64> {
        if len.is_some() { read_only() } else { Ok(self.len()) }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        read_only()
    }
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) mod samples;
#[cfg(test)]
mod tests;

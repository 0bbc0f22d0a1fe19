//! Microsoft's first disk images (Virtual Hard Disk Image Format Specification 1.0). All numbers are big-endian.

use super::{
    ABSENT, BlockMap, SECTOR, count_blocks,
    source::{Bytes, Source, damaged, refused},
};
use std::io;

const FOOTER: u64 = 512;
const HEADER: u64 = 1024;
/// Offsets of the checksums in both.
const FOOTER_SUM: usize = 64;
const HEADER_SUM: usize = 36;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const UNUSED: u32 = u32::MAX;

pub(super) fn read(source: &Source<'_>) -> io::Result<BlockMap> {
    let end = source.len().saturating_sub(FOOTER);
    let footer = source.bytes(end, FOOTER)?;
    if footer.array(0) != *b"conectix" {
        return Err(damaged("it does not end as one"));
    }
    check_sum(&footer, FOOTER_SUM)?;
    let len = footer.be64(48);
    match footer.be32(60) {
        FIXED if len > end => Err(damaged("it is cut short")),
        FIXED => BlockMap::new(source, len, len, vec![0]),
        DYNAMIC => dynamic(source, len, footer.be64(16)),
        _ => Err(refused("it lies on another image")),
    }
}

fn dynamic(source: &Source<'_>, len: u64, header: u64) -> io::Result<BlockMap> {
    let header = source.bytes(header, HEADER)?;
    if header.array(0) != *b"cxsparse" {
        return Err(damaged("it has no header of a dynamic disk"));
    }
    check_sum(&header, HEADER_SUM)?;
    let (table, entries, block) = (header.be64(16), header.be32(28), u64::from(header.be32(32)));
    let count = count_blocks(len, block)?;
    if !block.is_multiple_of(SECTOR) || count > entries.into() {
        return Err(damaged("its table is too small"));
    }
    // A bit for each sector comes first, in whole sectors; what was never written is zero in the file, too.
    let bitmap = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    let place = |word| match u32::from_be_bytes(word) {
        UNUSED => ABSENT,
        sector => u64::from(sector) * SECTOR + bitmap,
    };
    let table = source.bytes(table, count * 4)?;
    BlockMap::new(source, len, block, table.words().map(place).collect())
}

/// The one's complement of the sum of all other bytes.
fn check_sum(bytes: &Bytes, at: usize) -> io::Result<()> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    let others = sum(&bytes.0).wrapping_sub(sum(&bytes.array::<4>(at)));
    if bytes.be32(at) == !others { Ok(()) } else { Err(damaged("a checksum is wrong")) }
}

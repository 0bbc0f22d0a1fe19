//! VirtualBox's disk images (layout as in QEMU's block/vdi.c).

use super::{
    ABSENT, BlockMap, SECTOR, count_blocks,
    source::{Source, damaged, refused},
};
use std::io;

const HEADER: u64 = 512;
const SIGNATURE: u32 = 0xbeda_107f;
/// Major version in the upper half.
const VERSION: u32 = 1;
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;
/// Numbers of blocks from here on say that it is not in the file.
const FIRST_ABSENT: u32 = 0xffff_fffe;

pub(super) fn read(source: &Source<'_>) -> io::Result<BlockMap> {
    let header = source.bytes(0, HEADER)?;
    if header.le32(0x40) != SIGNATURE {
        return Err(damaged("it does not begin as one"));
    }
    if header.le32(0x44) >> 16 != VERSION {
        return Err(refused("it is of another version"));
    }
    if !matches!(header.le32(0x4c), DYNAMIC | FIXED) {
        return Err(refused("it lies on another image"));
    }
    let (table, data) = (u64::from(header.le32(0x154)), u64::from(header.le32(0x158)));
    let (len, block) = (header.le64(0x170), u64::from(header.le32(0x178)));
    if !block.is_multiple_of(SECTOR) || header.le32(0x17c) != 0 {
        return Err(refused("its blocks have an unusual form"));
    }
    let table = source.bytes(table, count_blocks(len, block)? * 4)?;
    let place = |word| match u32::from_le_bytes(word) {
        FIRST_ABSENT.. => ABSENT,
        number => data + u64::from(number) * block,
    };
    BlockMap::new(source, len, block, table.words().map(place).collect())
}

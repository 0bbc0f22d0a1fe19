//! VMware's sparse extents in one file with their descriptor (Virtual Disk Format 5.0, "Hosted Sparse Extents").

use super::{
    ABSENT, BlockMap, SECTOR, count_blocks,
    source::{Bytes, Source, damaged, refused},
};
use std::io;

const MAGIC: [u8; 4] = *b"KDMV";
const HEADER: u64 = 512;
/// A grain table's entry 1 is a grain of zeros.
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// Most sectors of a grain, and entries of a table.
const MOST: u64 = 1 << 16;
const MOST_DESCRIPTOR: u64 = 1 << 20;

/// Whether a VMDK is a sparse extent, not a descriptor.
pub(super) fn is_sparse(source: &Source<'_>) -> bool {
    source.bytes(0, HEADER).is_ok_and(|header| header.array(0) == MAGIC)
}

pub(super) fn read(source: &Source<'_>) -> io::Result<BlockMap> {
    let header = source.bytes(0, HEADER)?;
    if header.array(0) != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let (flags, capacity, grain) = (header.le32(8), header.le64(12), header.le64(20));
    if flags & COMPRESSED != 0 {
        return Err(refused("it is compressed"));
    }
    check_descriptor(source, &header)?;
    let entries = u64::from(header.le32(44));
    if !(1..=MOST).contains(&grain) || !(1..=MOST).contains(&entries) {
        return Err(damaged("its grains or tables have an absurd size"));
    }
    let len = capacity.checked_mul(SECTOR).ok_or_else(|| damaged("it is absurdly long"))?;
    let count = count_blocks(len, grain * SECTOR)?;
    let directory = source.bytes(sector(header.le64(56))?, count.div_ceil(entries) * 4)?;
    let mut places = Vec::with_capacity(count as usize);
    for word in directory.words() {
        let wanted = entries.min(count - places.len() as u64);
        match u32::from_le_bytes(word) {
            0 => places.resize(places.len() + wanted as usize, ABSENT),
            table => {
                let table = source.bytes(sector(table.into())?, wanted * 4)?;
                places.extend(table.words().map(|word| place(u32::from_le_bytes(word), flags)));
            }
        }
    }
    BlockMap::new(source, len, grain * SECTOR, places)
}

fn sector(number: u64) -> io::Result<u64> {
    number.checked_mul(SECTOR).ok_or_else(|| damaged("a table lies behind its end"))
}

fn place(entry: u32, flags: u32) -> u64 {
    match entry {
        0 => ABSENT,
        1 if flags & ZERO_GRAINS != 0 => ABSENT,
        sector => u64::from(sector) * SECTOR,
    }
}

/// The text within says whether the disk is all here.
fn check_descriptor(source: &Source<'_>, header: &Bytes) -> io::Result<()> {
    let len = sector(header.le64(36))?.min(MOST_DESCRIPTOR);
    let text = source.bytes(sector(header.le64(28))?, len)?;
    let text = String::from_utf8_lossy(&text.0);
    let value =
        |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix('='));
    if value("parentCID").is_some_and(|parent| !parent.trim().eq_ignore_ascii_case("ffffffff")) {
        return Err(refused("it lies on another image"));
    }
    match value("createType").map(|kind| kind.trim().trim_matches('"')) {
        Some("monolithicSparse") => Ok(()),
        _ => Err(refused("it is a part of a disk, or made for streaming")),
    }
}

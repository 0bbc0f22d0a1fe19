//! Microsoft's newer disk images ([MS-VHDX]: Virtual Hard Disk v2 File Format).

use super::{
    ABSENT, BlockMap, count_blocks,
    source::{Bytes, Source, damaged, refused},
};
use crc::{CRC_32_ISCSI, Crc};
use std::io;

/// Offsets of the two copies of the header and of the region table, and their bytes.
const HEADERS: [u64; 2] = [0x1_0000, 0x2_0000];
const HEADER: u64 = 0x1000;
const REGIONS: [u64; 2] = [0x3_0000, 0x4_0000];
const REGION_TABLE: u64 = 0x1_0000;
/// Bytes of an entry of the region table and of the metadata table, and where they begin.
const ENTRY: usize = 32;
const FIRST_REGION: usize = 16;
const METADATA_TABLE: u64 = 0x1_0000;
const MOST_ENTRIES: u32 = 2047;

const BAT: u128 = 0x2dc27766_f623_4200_9d64_115e9bfd4a08;
const METADATA: u128 = 0x8b7ca206_4790_4b9a_b8fe_575f050f886e;
const FILE_PARAMETERS: u128 = 0xcaa16737_fa36_4d43_b3b6_33f0aa44e76b;
const DISK_SIZE: u128 = 0x2fa54224_cd1b_4876_b211_5dbed83bf4b8;
const LOGICAL_SECTOR: u128 = 0x8141bf1d_a96f_4709_ba47_f233a8faab5f;
const PHYSICAL_SECTOR: u128 = 0xcda348c7_445d_4471_9cc9_e9885251c556;
const DISK_IDENTITY: u128 = 0xbeca12ab_b2e6_4523_93ef_c309e000c746;

const HAS_PARENT: u32 = 1 << 1;
/// Whoever does not know this item cannot use the image.
const REQUIRED: u32 = 1 << 2;
const BLOCKS: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;
/// Sectors that one block of a sector bitmap tells of; its entry follows those of its payload blocks.
const BITMAP_SECTORS: u64 = 1 << 23;
/// Low bits of an entry: the state of a payload block.
const STATE: u64 = 7;
const PRESENT: u64 = 6;
const PARTLY_PRESENT: u64 = 7;
/// The others are a file offset, in units of 1 MiB.
const OFFSET: u64 = !0xf_ffff;

pub(super) fn read(source: &Source<'_>) -> io::Result<BlockMap> {
    if source.bytes(0, 8)?.array(0) != *b"vhdxfile" {
        return Err(damaged("it does not begin as one"));
    }
    check_log(&header(source)?)?;
    let regions = REGIONS.iter().find_map(|offset| checked(source, *offset, REGION_TABLE, *b"regi"));
    let regions = regions.ok_or_else(|| damaged("both its region tables are damaged"))?;
    let (metadata, _) = region(&regions, METADATA)?;
    let disk = Disk::read(source, metadata)?;
    let (table, table_len) = region(&regions, BAT)?;
    let count = count_blocks(disk.len, disk.block)?;
    let ratio = BITMAP_SECTORS * disk.sector / disk.block;
    let words = (count + (count - 1) / ratio) * 8;
    if words > table_len {
        return Err(damaged("its table is too small"));
    }
    let table = source.bytes(table, words)?;
    let payload = table.words().enumerate().filter(|(i, _)| !(*i as u64 + 1).is_multiple_of(ratio + 1));
    let places = payload.map(|(_, word)| place(u64::from_le_bytes(word))).collect::<io::Result<_>>()?;
    BlockMap::new(source, disk.len, disk.block, places)
}

fn place(entry: u64) -> io::Result<u64> {
    match entry & STATE {
        PRESENT => Ok(entry & OFFSET),
        PARTLY_PRESENT => Err(refused("it lies on another image")),
        _ => Ok(ABSENT),
    }
}

/// A structure with its signature and a right checksum.
fn checked(source: &Source<'_>, offset: u64, len: u64, signature: [u8; 4]) -> Option<Bytes> {
    let bytes = source.bytes(offset, len).ok().filter(|bytes| bytes.array(0) == signature)?;
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut digest = crc.digest();
    digest.update(bytes.0.get(..4)?);
    digest.update(&[0; 4]);
    digest.update(bytes.0.get(8..)?);
    (digest.finalize() == bytes.le32(4)).then_some(bytes)
}

/// The newer of those that are whole.
fn header(source: &Source<'_>) -> io::Result<Bytes> {
    let headers = HEADERS.iter().filter_map(|offset| checked(source, *offset, HEADER, *b"head"));
    headers.max_by_key(|header| header.le64(8)).ok_or_else(|| damaged("both its headers are damaged"))
}

fn check_log(header: &Bytes) -> io::Result<()> {
    if header.le16(66) != 1 {
        return Err(refused("it is of another version"));
    }
    if header.array(48) != [0; 16] {
        return Err(refused("it was not closed in an orderly way, and its log must be replayed first"));
    }
    Ok(())
}

/// A GUID as it is written down.
fn guid(bytes: &Bytes, at: usize) -> u128 {
    let [first, second] = [bytes.le16(at + 4), bytes.le16(at + 6)].map(u128::from);
    let last = u128::from(u64::from_be_bytes(bytes.array(at + 8)));
    u128::from(bytes.le32(at)) << 96 | first << 80 | second << 64 | last
}

/// File offset and length of a region.
fn region(regions: &Bytes, wanted: u128) -> io::Result<(u64, u64)> {
    let entries = || (0..regions.le32(8).min(MOST_ENTRIES) as usize).map(|i| FIRST_REGION + i * ENTRY);
    if entries().any(|at| regions.le32(at + 28) & 1 != 0 && ![BAT, METADATA].contains(&guid(regions, at))) {
        return Err(refused("it has parts of an unknown kind"));
    }
    let at = entries().find(|at| guid(regions, *at) == wanted);
    let at = at.ok_or_else(|| damaged("a region is missing"))?;
    Ok((regions.le64(at + 16), regions.le32(at + 24).into()))
}

/// What the metadata say. All in bytes.
struct Disk {
    len: u64,
    block: u64,
    sector: u64,
}

impl Disk {
    fn read(source: &Source<'_>, metadata: u64) -> io::Result<Self> {
        let table = source.bytes(metadata, METADATA_TABLE)?;
        if table.array(0) != *b"metadata" {
            return Err(damaged("it has no metadata"));
        }
        let entries = || (1..=usize::from(table.le16(10)).min(MOST_ENTRIES as usize)).map(|i| i * ENTRY);
        let known = [FILE_PARAMETERS, DISK_SIZE, LOGICAL_SECTOR, PHYSICAL_SECTOR, DISK_IDENTITY];
        let parameters = Self::item(source, metadata, &table, entries(), FILE_PARAMETERS)?;
        if parameters.le32(4) & HAS_PARENT != 0 {
            return Err(refused("it lies on another image"));
        }
        if entries().any(|at| table.le32(at + 24) & REQUIRED != 0 && !known.contains(&guid(&table, at))) {
            return Err(refused("it has metadata of an unknown kind"));
        }
        let item = |wanted| Self::item(source, metadata, &table, entries(), wanted);
        let (len, block) = (item(DISK_SIZE)?.le64(0), u64::from(parameters.le32(0)));
        let sector = u64::from(item(LOGICAL_SECTOR)?.le32(0));
        if !BLOCKS.contains(&block) || !block.is_power_of_two() || ![512, 4096].contains(&sector) {
            return Err(damaged("its blocks or sectors have a size that cannot be"));
        }
        Ok(Self { len, block, sector })
    }

    /// The first 8 bytes of an item.
    fn item(
        source: &Source<'_>,
        metadata: u64,
        table: &Bytes,
        mut entries: impl Iterator<Item = usize>,
        wanted: u128,
    ) -> io::Result<Bytes> {
        let at = entries
            .find(|at| guid(table, *at) == wanted)
            .ok_or_else(|| damaged("its metadata lack an item"))?;
        let offset = metadata.checked_add(table.le32(at + 16).into());
        source.bytes(offset.ok_or_else(|| damaged("an item lies behind its end"))?, 8)
    }
}

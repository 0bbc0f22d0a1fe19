//! Partition tables.

use gpt::{GptConfig, disk::LogicalBlockSize};
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

const SECTOR: u64 = 512;
/// Offsets in a master boot record.
const MBR_TABLE: usize = 446;
const MBR_ENTRY: usize = 16;
const MBR_MAGIC: [u8; 2] = [0x55, 0xaa];

/// A place where a file system may be, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: Option<u32>,
    pub(super) start: u64,
    pub(super) len: u64,
}

/// All partitions of a disk; the whole disk if there are none.
pub(super) fn list(file: &Arc<File>) -> io::Result<Vec<Part>> {
    let len = io::Seek::seek(&mut &**file, io::SeekFrom::End(0))?;
    let mut parts = gpt(file);
    if parts.is_empty() {
        let mut sector = [0; SECTOR as usize];
        file.read_exact_at(&mut sector, 0)?;
        parts = mbr(&sector);
    }
    parts.retain(|part| part.len > 0 && part.start.checked_add(part.len).is_some_and(|end| end <= len));
    if parts.is_empty() {
        parts.push(Part { number: None, start: 0, len });
    }
    Ok(parts)
}

fn gpt(file: &Arc<File>) -> Vec<Part> {
    let config = GptConfig::new().writable(false).logical_block_size(LogicalBlockSize::Lb512);
    let Ok(disk) = config.open_from_device(Arc::clone(file)) else { return Vec::new() };
    let used = disk.partitions().iter().filter(|(_, entry)| entry.is_used());
    let part = |(number, entry): (&u32, &gpt::partition::Partition)| {
        let sectors = entry.last_lba.checked_sub(entry.first_lba)?.checked_add(1)?;
        let start = entry.first_lba.checked_mul(SECTOR)?;
        Some(Part { number: Some(*number), start, len: sectors.checked_mul(SECTOR)? })
    };
    used.filter_map(part).collect()
}

/// The primary partitions of a master boot record.
fn mbr(sector: &[u8; SECTOR as usize]) -> Vec<Part> {
    if !sector.ends_with(&MBR_MAGIC) {
        return Vec::new();
    }
    let entries = sector[MBR_TABLE..].chunks_exact(MBR_ENTRY);
    let part = |(number, entry): (u32, &[u8])| {
        let word = |at: usize| {
            entry.get(at..at + 4).and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)))
        };
        let (kind, start, sectors) = (entry[4], word(8)?, word(12)?);
        let part =
            Part { number: Some(number), start: u64::from(start) * SECTOR, len: u64::from(sectors) * SECTOR };
        (kind != 0).then_some(part)
    };
    (1..).zip(entries).filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_boot_record_is_read() {
        let mut sector = [0; 512];
        assert!(mbr(&sector).is_empty());
        sector[510..].copy_from_slice(&MBR_MAGIC);
        sector[446 + 16 + 4] = 0x83;
        sector[446 + 16 + 8..446 + 32].copy_from_slice(&[0, 8, 0, 0, 0, 0, 1, 0]);
        let part = Part { number: Some(2), start: 2048 * 512, len: 65536 * 512 };
        assert_eq!(mbr(&sector), [part]);
    }
}

//! Partition tables.

use super::Medium;
use gpt::{GptConfig, disk::LogicalBlockSize};
use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

const SECTOR: u64 = 512;
/// Most logical partitions; the chain of them could be a ring.
const MAX_LOGICAL: usize = 60;
/// Kinds of a partition that holds others (CHS, LBA, Linux).
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Offsets in a master boot record.
const MBR_TABLE: usize = 446;
const MBR_ENTRY: usize = 16;
const MBR_MAGIC: [u8; 2] = [0x55, 0xaa];

/// A place where a file system may be, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the partition; none for the whole disk.
    pub number: Option<u32>,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub len: u64,
}

/// All partitions of a disk; the whole disk if there are none.
///
/// # Errors
/// As the medium.
pub fn list(medium: &Arc<dyn Medium>) -> io::Result<Vec<Part>> {
    let len = medium.size();
    let mut parts = gpt(medium);
    if parts.is_empty() {
        parts = mbr(&**medium)?;
    }
    parts.retain(|part| part.len > 0 && part.start.checked_add(part.len).is_some_and(|end| end <= len));
    if parts.is_empty() {
        parts.push(Part { number: None, start: 0, len });
    }
    Ok(parts)
}

/// A medium as the library for GPT wants it.
struct Cursor {
    medium: Arc<dyn Medium>,
    at: u64,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.medium.size().saturating_sub(self.at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.medium.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(distance) => self.medium.size().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.at.checked_add_signed(distance),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Write for Cursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gpt(medium: &Arc<dyn Medium>) -> Vec<Part> {
    let config = GptConfig::new().writable(false).logical_block_size(LogicalBlockSize::Lb512);
    let Ok(disk) = config.open_from_device(Cursor { medium: Arc::clone(medium), at: 0 }) else {
        return Vec::new();
    };
    let used = disk.partitions().iter().filter(|(_, entry)| entry.is_used());
    let part = |(number, entry): (&u32, &gpt::partition::Partition)| {
        let sectors = entry.last_lba.checked_sub(entry.first_lba)?.checked_add(1)?;
        let start = entry.first_lba.checked_mul(SECTOR)?;
        Some(Part { number: Some(*number), start, len: sectors.checked_mul(SECTOR)? })
    };
    used.filter_map(part).collect()
}

/// An entry of a master or extended boot record, in sectors.
struct Entry {
    kind: u8,
    start: u64,
    len: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }

    fn part(&self, number: u32, base: u64) -> Part {
        Part { number: Some(number), start: (base + self.start) * SECTOR, len: self.len * SECTOR }
    }
}

/// The used entries of the boot record at sector `at`, by their number from 0.
fn boot_record(medium: &dyn Medium, at: u64) -> io::Result<Vec<(u32, Entry)>> {
    let mut sector = [0; SECTOR as usize];
    medium.read_exact_at(&mut sector, at * SECTOR)?;
    if !sector.ends_with(&MBR_MAGIC) {
        return Ok(Vec::new());
    }
    let entry = |(number, bytes): (u32, &[u8])| {
        let word = |at: usize| Some(u64::from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)));
        let entry = Entry { kind: bytes[4], start: word(8)?, len: word(12)? };
        (entry.kind != 0).then_some((number, entry))
    };
    Ok((0..).zip(sector[MBR_TABLE..].chunks_exact(MBR_ENTRY)).filter_map(entry).collect())
}

/// Primary and logical partitions of a master boot record.
fn mbr(medium: &dyn Medium) -> io::Result<Vec<Part>> {
    let entries = boot_record(medium, 0)?;
    let primary = entries.iter().filter(|(_, entry)| !entry.is_extended());
    let mut parts: Vec<_> = primary.map(|(number, entry)| entry.part(number + 1, 0)).collect();
    if let Some((_, extended)) = entries.iter().find(|(_, entry)| entry.is_extended()) {
        parts.extend(logical(medium, extended.start));
    }
    Ok(parts)
}

/// Logical partitions: a chain of boot records, each with one partition (relative to the record) and the next record (relative to the extended partition). Linux
/// counts them from 5. The chain ends where it cannot be read.
fn logical(medium: &dyn Medium, extended: u64) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), extended);
    for number in (5..).take(MAX_LOGICAL) {
        let Ok(entries) = boot_record(medium, at) else { break };
        let own = entries.iter().find(|(_, entry)| !entry.is_extended());
        parts.extend(own.map(|(_, entry)| entry.part(number, at)));
        match entries.iter().find(|(_, entry)| entry.is_extended()) {
            Some((_, next)) => at = extended + next.start,
            None => break,
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawMedium;
    use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt};

    const DISK: u64 = 64 << 20;

    fn disk() -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(DISK).unwrap();
        Arc::new(file)
    }

    /// Writes a boot record of `entries` (kind, first sector, sectors).
    fn record(file: &File, at: u64, entries: &[(u8, u32, u32)]) {
        let mut sector = [0; SECTOR as usize];
        sector[510..].copy_from_slice(&MBR_MAGIC);
        for (bytes, (kind, start, len)) in sector[MBR_TABLE..].chunks_exact_mut(MBR_ENTRY).zip(entries) {
            bytes[4] = *kind;
            bytes[8..12].copy_from_slice(&start.to_le_bytes());
            bytes[12..].copy_from_slice(&len.to_le_bytes());
        }
        file.write_all_at(&sector, at * SECTOR).unwrap();
    }

    fn parts(file: &Arc<File>) -> io::Result<Vec<Part>> {
        let medium: Arc<dyn Medium> = Arc::new(RawMedium { file: file.try_clone()?, len: DISK });
        list(&medium)
    }

    fn part(number: u32, start: u64, sectors: u64) -> Part {
        Part { number: Some(number), start: start * SECTOR, len: sectors * SECTOR }
    }

    #[test]
    fn a_master_boot_record_is_read() {
        let file = disk();
        assert_eq!(parts(&file).unwrap(), [Part { number: None, start: 0, len: DISK }]);
        record(&file, 0, &[(0, 0, 0), (0x83, 2048, 65536)]);
        assert_eq!(parts(&file).unwrap(), [part(2, 2048, 65536)]);
    }

    #[test]
    fn logical_partitions_are_found_and_their_chain_ends() {
        let file = disk();
        record(&file, 0, &[(0x83, 63, 1000), (0x05, 2000, 50_000)]);
        record(&file, 2000, &[(0x83, 10, 500), (0x05, 3000, 700)]);
        record(&file, 5000, &[(0x82, 20, 600)]);
        assert_eq!(parts(&file).unwrap(), [part(1, 63, 1000), part(5, 2010, 500), part(6, 5020, 600)]);
        // A ring, and a record beyond the disk.
        record(&file, 5000, &[(0x83, 20, 600), (0x05, 0, 1)]);
        assert_eq!(parts(&file).unwrap().len(), 1 + MAX_LOGICAL);
        record(&file, 5000, &[(0x83, 20, 600), (0x05, u32::MAX, u32::MAX)]);
        assert_eq!(parts(&file).unwrap().len(), 3);
    }

    #[test]
    fn a_gpt_comes_before_its_protective_record() {
        let file = disk();
        let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
        gpt::mbr::ProtectiveMBR::with_lb_size(0x1_ffff).overwrite_lba0(&mut &*file).unwrap();
        let mut table = config.create_from_device(Arc::clone(&file), None).unwrap();
        table.update_partitions(BTreeMap::new()).unwrap();
        table.add_partition("boot", 1 << 20, gpt::partition_types::EFI, 0, None).unwrap();
        table.add_partition("root", 8 << 20, gpt::partition_types::LINUX_FS, 0, None).unwrap();
        table.write().unwrap();
        let parts = parts(&file).unwrap();
        assert_eq!(
            parts.iter().map(|part| (part.number, part.len)).collect::<Vec<_>>(),
            [(Some(1), 1 << 20), (Some(2), 8 << 20)]
        );
        assert!(parts[0].start + parts[0].len <= parts[1].start);
    }
}

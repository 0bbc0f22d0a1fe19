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
/// How a header of a GPT begins, and where it has number and size of the entries (UEFI 2.10, 5.3.2).
const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";
const GPT_COUNT: usize = 80;
const GPT_SIZE: usize = 84;
/// Size of the entries that the library reads; it panics on others.
const GPT_ENTRY: u32 = 128;
/// Most entries, many times what programs make.
const MAX_GPT: u32 = 4096;
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

impl Part {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        self.number.map_or("whole disk".to_owned(), |number| format!("partition {number}"))
    }

    /// The byte behind it; none when there is no such number.
    pub(super) fn end(&self) -> Option<u64> {
        self.start.checked_add(self.len)
    }
}

/// All partitions of a disk, also those that reach beyond its end; the whole disk if none lies in it.
///
/// # Errors
/// As the medium, or a table that makes no sense.
pub fn list(medium: &Arc<dyn Medium>) -> io::Result<Vec<Part>> {
    let len = medium.size();
    check_gpt(&**medium)?;
    let mut parts = gpt(medium);
    if parts.is_empty() {
        parts = mbr(&**medium)?;
    }
    parts.retain(|part| part.len > 0 && part.end().is_some());
    if !parts.iter().any(|part| part.end().is_some_and(|end| end <= len)) {
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

/// Looks at both headers of a GPT before the library does: a guest can write them.
fn check_gpt(medium: &dyn Medium) -> io::Result<()> {
    let backup = (medium.size() / SECTOR).saturating_sub(1) * SECTOR;
    for at in [SECTOR, backup] {
        let mut sector = [0; SECTOR as usize];
        // What cannot be read the library cannot read either.
        if medium.read_exact_at(&mut sector, at).is_err() || !sector.starts_with(&GPT_SIGNATURE) {
            continue;
        }
        let [count, size] = [GPT_COUNT, GPT_SIZE]
            .map(|at| sector[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        if size != GPT_ENTRY || count > MAX_GPT {
            return Err(io::Error::other(format!(
                "the GPT header at byte {at} has {count} entries of {size} bytes, at most {MAX_GPT} of {GPT_ENTRY} can be read; \
                 write the table anew (sgdisk), or give kernel= and initrd="
            )));
        }
    }
    Ok(())
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

    fn write_gpt(file: &Arc<File>) {
        let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
        gpt::mbr::ProtectiveMBR::with_lb_size(0x1_ffff).overwrite_lba0(&mut &**file).unwrap();
        let mut table = config.create_from_device(Arc::clone(file), None).unwrap();
        table.update_partitions(BTreeMap::new()).unwrap();
        table.add_partition("boot", 1 << 20, gpt::partition_types::EFI, 0, None).unwrap();
        table.add_partition("root", 8 << 20, gpt::partition_types::LINUX_FS, 0, None).unwrap();
        table.write().unwrap();
    }

    #[test]
    fn a_gpt_comes_before_its_protective_record() {
        let file = disk();
        write_gpt(&file);
        let parts = parts(&file).unwrap();
        assert_eq!(
            parts.iter().map(|part| (part.number, part.len)).collect::<Vec<_>>(),
            [(Some(1), 1 << 20), (Some(2), 8 << 20)]
        );
        assert!(parts[0].start + parts[0].len <= parts[1].start);
    }

    #[test]
    fn a_gpt_with_odd_or_countless_entries_is_refused() {
        for (header, count, size) in
            [(SECTOR, 128, 256), (DISK - SECTOR, 128, 256), (SECTOR, u32::MAX, 128), (SECTOR, 128, 0)]
        {
            let file = disk();
            write_gpt(&file);
            let mut bytes = [0; 92];
            file.read_exact_at(&mut bytes, header).unwrap();
            bytes[GPT_COUNT..][..4].copy_from_slice(&u32::to_le_bytes(count));
            bytes[GPT_SIZE..][..4].copy_from_slice(&u32::to_le_bytes(size));
            // The library looks at what has the right checksum only.
            bytes[16..20].fill(0);
            let sum = crc32fast::hash(&bytes);
            bytes[16..20].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&bytes, header).unwrap();
            let error = parts(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("{count} entries of {size} bytes")), "{error}");
        }
    }

    #[test]
    fn partitions_beyond_the_end_are_kept() {
        let file = disk();
        let sectors = (DISK / SECTOR) as u32;
        record(&file, 0, &[(0x83, 2048, 4096), (0x83, 8192, sectors)]);
        assert_eq!(parts(&file).unwrap(), [part(1, 2048, 4096), part(2, 8192, u64::from(sectors))]);
        // A record of nothing that is on the disk may be no table: a file system with a boot loader in its first sector.
        record(&file, 0, &[(0x83, 8192, sectors)]);
        let whole = Part { number: None, start: 0, len: DISK };
        assert_eq!(parts(&file).unwrap(), [part(1, 8192, u64::from(sectors)), whole]);
    }
}

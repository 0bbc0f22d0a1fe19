//! Partitions, by what the table of their disk says about them.

use super::root::{LEN, uuid};
use gpt::{
    disk::LogicalBlockSize,
    header::{Header, read_header_from_arbitrary_device as read_header},
    partition::{Partition as Entry, file_read_partitions as read_entries},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirEntry, File},
    io::{Cursor, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

/// Where a master boot record has the number of its disk, and how it ends.
const SIGNATURE: usize = 440;
const MAGIC: [u8; 2] = [0x55, 0xaa];
const SECTOR: usize = 512;
/// Size of the entries of a GPT; Linux takes no other (block/partitions/efi.c, `is_gpt_valid()`), and the library panics on others.
const ENTRY: u32 = 128;
/// Most entries: Linux takes no table of more than 4 MiB.
const MAX_ENTRIES: u32 = (4 << 20) / ENTRY;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Partition {
    /// That of a GPT with this GUID, its bytes as they are written.
    Guid([u8; LEN]),
    /// One of the disk whose master boot record has this signature.
    Numbered {
        /// The signature.
        signature: u32,
        /// Linux's number of the partition.
        number: u32,
    },
    /// That of a GPT with this name.
    Label(String),
}

impl Partition {
    /// Reads the value of `PARTUUID=`: a GUID, or eight digits of a disk and two of the partition's number, hexadecimal (Linux, block/partitions/msdos.c).
    pub(super) fn by_id(text: &str) -> Option<Self> {
        let hexadecimal = |digits: &str, len: usize| {
            let fits = digits.len() == len && digits.chars().all(|digit| digit.is_ascii_hexdigit());
            u32::from_str_radix(digits, 16).ok().filter(|_| fits)
        };
        let numbered = || {
            let (signature, number) = text.split_once('-')?;
            Some(Self::Numbered { signature: hexadecimal(signature, 8)?, number: hexadecimal(number, 2)? })
        };
        uuid(text).map(Self::Guid).or_else(numbered)
    }

    /// Its name, if it is on the disk `device`, whose folder in sysfs is `folder`. What Linux made no partition of is none.
    pub(super) fn find(&self, folder: &Path, device: &Path) -> Option<OsString> {
        let number = self.number(device)?;
        let is = |entry: &DirEntry| {
            let text = fs::read_to_string(entry.path().join("partition"));
            text.is_ok_and(|text| text.trim().parse() == Ok(number))
        };
        fs::read_dir(folder).ok()?.flatten().find(is).map(|entry| entry.file_name())
    }

    /// Its number on a disk.
    fn number(&self, disk: &Path) -> Option<u32> {
        match (self, table(disk)) {
            (Self::Numbered { signature, number }, None) => {
                (self::signature(disk)? == *signature).then_some(*number)
            }
            (_, Some(entries)) => entries.iter().find(|(_, entry)| self.is(entry)).map(|(number, _)| *number),
            _ => None,
        }
    }

    fn is(&self, entry: &Entry) -> bool {
        entry.is_used()
            && match self {
                Self::Guid(guid) => entry.part_guid.as_bytes() == guid,
                Self::Label(name) => entry.name == *name,
                Self::Numbered { .. } => false,
            }
    }
}

/// The GPT of a disk, whose sectors may have either size: its entries by their numbers.
fn table(disk: &Path) -> Option<BTreeMap<u32, Entry>> {
    let mut disk = File::open(disk).ok()?;
    [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096].into_iter().find_map(|size| {
        let header = header(&mut disk, size)?;
        read_entries(&mut disk, &header, size).ok()
    })
}

/// The header of a GPT, or the backup of a broken one. A guest's disk may say anything: what Linux would not take is none.
fn header(disk: &mut File, size: LogicalBlockSize) -> Option<Header> {
    let usable = |header: &Header| header.part_size == ENTRY && header.num_parts <= MAX_ENTRIES;
    let backup = |disk: &mut File| {
        // The library looks behind the first sector.
        let mut copy = vec![0; 2 * size.as_usize()];
        let end = disk.seek(SeekFrom::End(0)).ok()?;
        let last = (end / u64::from(size)).checked_sub(1)?.checked_mul(size.into())?;
        disk.read_exact_at(&mut copy[size.as_usize()..], last).ok()?;
        read_header(&mut Cursor::new(copy), size).ok()
    };
    let first = read_header(disk, size).ok().filter(usable);
    first.or_else(|| backup(disk).filter(usable))
}

/// The number of a disk with a master boot record.
fn signature(disk: &Path) -> Option<u32> {
    let mut sector = [0; SECTOR];
    File::open(disk).and_then(|file| file.read_exact_at(&mut sector, 0)).ok()?;
    let bytes = sector.get(SIGNATURE..SIGNATURE + 4)?.try_into().ok()?;
    sector.ends_with(&MAGIC).then_some(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::root::Root;
    use gpt::GptConfig;
    use std::path::PathBuf;

    const DISK: u64 = 16 << 20;
    /// Where the headers of a GPT are, on a disk with sectors of 512 bytes.
    const HEADERS: [u64; 2] = [512, DISK - 512];
    /// Where a header has its checksum, and where the table, the number and the size of the entries are (UEFI 2.10, 5.3.2).
    const SUM: usize = 16;
    const TABLE: usize = 72;
    const COUNT: usize = 80;
    const SIZE: usize = 84;

    /// Devices, and folders of sysfs with as many partitions as Linux would make.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            [machine.blocks(), machine.devices()].iter().for_each(|path| fs::create_dir(path).unwrap());
            machine
        }

        fn blocks(&self) -> PathBuf {
            self.0.path().join("blocks")
        }

        fn devices(&self) -> PathBuf {
            self.0.path().join("devices")
        }

        /// Makes a disk with partitions of these numbers.
        fn disk(&self, name: &str, numbers: &[u32]) -> File {
            let folder = self.blocks().join(name);
            fs::create_dir_all(folder.join("queue")).unwrap();
            for number in numbers {
                let part = folder.join(format!("{name}{number}"));
                fs::create_dir(&part).unwrap();
                fs::write(part.join("partition"), format!("{number}\n")).unwrap();
                File::create(self.devices().join(format!("{name}{number}"))).unwrap();
            }
            let path = self.devices().join(name);
            let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
            file.set_len(DISK).unwrap();
            file
        }

        fn find(&self, root: &str) -> Option<PathBuf> {
            Root::parse(root).unwrap().find(&self.blocks(), &self.devices())
        }
    }

    /// Writes a GPT with the partitions `names`, and returns their GUIDs.
    fn write_gpt(file: &File, names: &[&str], size: LogicalBlockSize) -> Vec<String> {
        let sectors = u32::try_from(DISK / u64::from(size)).unwrap();
        gpt::mbr::ProtectiveMBR::with_lb_size(sectors - 1).overwrite_lba0(&mut &*file).unwrap();
        let config = GptConfig::new().writable(true).logical_block_size(size);
        let mut table = config.create_from_device(file, None).unwrap();
        table.update_partitions(BTreeMap::new()).unwrap();
        for name in names {
            table.add_partition(name, 1 << 20, gpt::partition_types::LINUX_FS, 0, None).unwrap();
        }
        let guids = table.partitions().values().map(|entry| entry.part_guid.to_string()).collect();
        table.write().unwrap();
        guids
    }

    #[test]
    fn a_partition_is_found_by_what_a_gpt_says() {
        let machine = Machine::new();
        let guids = write_gpt(&machine.disk("vda", &[1, 2]), &["boot", "root"], LogicalBlockSize::Lb512);
        let others = write_gpt(&machine.disk("vdb", &[1]), &["other"], LogicalBlockSize::Lb4096);
        let found = |name: &str| Some(machine.devices().join(name));
        assert_eq!(machine.find(&format!("PARTUUID={}", guids[1])), found("vda2"));
        assert_eq!(machine.find(&format!("PARTUUID={}", guids[0].to_uppercase())), found("vda1"));
        assert_eq!(machine.find(&format!("PARTUUID={}", others[0])), found("vdb1"));
        assert_eq!(machine.find("PARTLABEL=root"), found("vda2"));
        assert_eq!(machine.find("PARTLABEL=other"), found("vdb1"));
        for missing in ["PARTLABEL=roo", &format!("PARTUUID={}", "00".repeat(16)), "PARTUUID=00000000-01"] {
            assert_eq!(machine.find(missing), None, "{missing}");
        }
        // Linux has not made it yet.
        fs::remove_file(machine.devices().join("vda2")).unwrap();
        assert_eq!(machine.find("PARTLABEL=root"), None);
    }

    #[test]
    fn a_partition_is_found_by_the_number_of_its_disk() {
        let machine = Machine::new();
        for (name, signature) in [("vda", 0xbeef_u32), ("vdb", 0x12ab_34cd)] {
            let mut sector = [0; SECTOR];
            sector[SIGNATURE..SIGNATURE + 4].copy_from_slice(&signature.to_le_bytes());
            sector[SECTOR - 2..].copy_from_slice(&MAGIC);
            machine.disk(name, &[1, 17]).write_all_at(&sector, 0).unwrap();
        }
        machine.disk("vdc", &[1]);
        let found = |name: &str| Some(machine.devices().join(name));
        assert_eq!(machine.find("PARTUUID=12AB34cd-11"), found("vdb17"));
        assert_eq!(machine.find("PARTUUID=0000beef-01"), found("vda1"));
        for missing in ["PARTUUID=12ab34cd-02", "PARTUUID=00000000-01", "PARTUUID=12ab34ce-01"] {
            assert_eq!(machine.find(missing), None, "{missing}");
        }
    }

    /// Writes a field of a header, and the checksum without which nobody looks at it.
    fn write_field(file: &File, header: u64, at: usize, value: &[u8]) {
        let mut bytes = [0; 92];
        file.read_exact_at(&mut bytes, header).unwrap();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes[SUM..SUM + 4].fill(0);
        let sum = crc32fast::hash(&bytes);
        bytes[SUM..SUM + 4].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&bytes, header).unwrap();
    }

    #[test]
    fn odd_tables_have_no_partitions() {
        let words = [0_u32, 1, 127, 129, 256, 4096, 1 << 31, u32::MAX];
        let places = [0_u64, 1, DISK / 512, 1 << 54, 1 << 55, (1 << 55) - 1, 1 << 63, u64::MAX];
        let words = words.iter().flat_map(|word| [COUNT, SIZE].map(|at| (at, word.to_le_bytes().to_vec())));
        let places = places.iter().map(|place| (TABLE, place.to_le_bytes().to_vec()));
        let machine = Machine::new();
        let disk = machine.disk("vda", &[1]);
        for (at, value) in words.chain(places) {
            write_gpt(&disk, &["root"], LogicalBlockSize::Lb512);
            HEADERS.iter().for_each(|header| write_field(&disk, *header, at, &value));
            assert_eq!(machine.find("PARTLABEL=root"), None, "{at}: {value:?}");
        }
    }

    #[test]
    fn the_backup_of_an_odd_table_is_read_and_an_odd_backup_is_not() {
        for odd in HEADERS {
            let machine = Machine::new();
            let disk = machine.disk("vda", &[1]);
            write_gpt(&disk, &["root"], LogicalBlockSize::Lb512);
            write_field(&disk, odd, SIZE, &256_u32.to_le_bytes());
            assert_eq!(machine.find("PARTLABEL=root"), Some(machine.devices().join("vda1")), "{odd}");
        }
    }

    #[test]
    fn short_disks_have_no_partitions() {
        for len in [0, 1, 511, 512, 513, 600, 1024, 4096, 8192] {
            let machine = Machine::new();
            let disk = machine.disk("vda", &[1]);
            write_gpt(&disk, &["root"], LogicalBlockSize::Lb512);
            disk.set_len(len).unwrap();
            assert_eq!(machine.find("PARTLABEL=root"), None, "{len}");
            assert_eq!(machine.find("PARTUUID=12ab34cd-01"), None, "{len}");
        }
    }
}

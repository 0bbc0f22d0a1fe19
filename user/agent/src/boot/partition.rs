//! Partitions, by what the table of their disk says about them.

use super::root::{LEN, uuid};
use gpt::{GptConfig, disk::LogicalBlockSize, partition::Partition as Entry};
use std::{
    ffi::OsString,
    fs::{self, DirEntry, File},
    os::unix::fs::FileExt,
    path::Path,
};

/// Where a master boot record has the number of its disk, and how it ends.
const SIGNATURE: usize = 440;
const MAGIC: [u8; 2] = [0x55, 0xaa];
const SECTOR: usize = 512;

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

/// The GPT of a disk, whose sectors may have either size.
fn table(disk: &Path) -> Option<Vec<(u32, Entry)>> {
    [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096].into_iter().find_map(|size| {
        let disk = GptConfig::new().writable(false).logical_block_size(size).open(disk).ok()?;
        Some(disk.partitions().iter().map(|(number, entry)| (*number, entry.clone())).collect())
    })
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
    use std::{collections::BTreeMap, path::PathBuf};

    const DISK: u64 = 16 << 20;

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
}

//! What `root=` names.

use super::partition::Partition;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Where the superblock of ext2, ext3 and ext4 is, and what is where in it (Linux, fs/ext4/ext4.h).
const SUPERBLOCK: u64 = 1024;
const MAGIC: (usize, [u8; 2]) = (0x38, 0xef53_u16.to_le_bytes());
const UUID: usize = 0x68;
const LABEL: usize = 0x78;
/// Bytes of a UUID, and of a label.
pub(super) const LEN: usize = 16;

/// The root device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Device(PathBuf),
    Uuid([u8; LEN]),
    Label(String),
    Partition(Partition),
}

impl Root {
    /// Reads the value of `root=`.
    ///
    /// # Errors
    /// It is something that this initrd cannot find.
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let root = match text.split_once('=') {
            Some(("UUID", value)) => uuid(value).map(Self::Uuid),
            Some(("LABEL", value)) if !value.is_empty() => Some(Self::Label(value.to_owned())),
            Some(("PARTUUID", value)) => Partition::by_id(value).map(Self::Partition),
            Some(("PARTLABEL", value)) if !value.is_empty() => {
                Some(Self::Partition(Partition::Label(value.to_owned())))
            }
            _ if text.starts_with("/dev/") => Some(Self::Device(text.into())),
            _ => None,
        };
        root.ok_or_else(|| {
            io::Error::other(format!("`root={text}`: a device such as /dev/vda is needed, or UUID= or LABEL= of an ext4 file system, or PARTUUID= or PARTLABEL= of a partition"))
        })
    }

    /// The device, if it is there. `blocks` has the folders of all block devices in sysfs, and `devices` the devices.
    pub(super) fn find(&self, blocks: &Path, devices: &Path) -> Option<PathBuf> {
        if let Self::Device(path) = self {
            return path.exists().then(|| path.clone());
        }
        let mut names: Vec<_> =
            fs::read_dir(blocks).ok()?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        // Of copies, always the same one.
        names.sort();
        names.iter().find_map(|name| self.find_on(name, blocks, devices)).filter(|path| path.exists())
    }

    /// The device, if it is the one that is called `name`, or a partition of it.
    fn find_on(&self, name: &OsStr, blocks: &Path, devices: &Path) -> Option<PathBuf> {
        let device = devices.join(name);
        match self {
            Self::Partition(partition) => {
                partition.find(&blocks.join(name), &device).map(|name| devices.join(name))
            }
            _ => self.is(&device).then_some(device),
        }
    }

    /// Whether the file system on a device is the one that is meant.
    fn is(&self, device: &Path) -> bool {
        let mut block = [0; LABEL + LEN];
        let read = File::open(device).and_then(|file| file.read_exact_at(&mut block, SUPERBLOCK));
        let field = |at: usize| &block[at..at + LEN];
        let label = field(LABEL).split(|byte| *byte == 0).next().unwrap_or_default();
        read.is_ok()
            && block[MAGIC.0..].starts_with(&MAGIC.1)
            && match self {
                Self::Uuid(uuid) => field(UUID) == uuid,
                Self::Label(wanted) => label == wanted.as_bytes(),
                Self::Device(_) | Self::Partition(_) => false,
            }
    }
}

/// The bytes of a UUID.
pub(super) fn uuid(text: &str) -> Option<[u8; LEN]> {
    let digits: Vec<_> = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<_> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    (digits.len() == 2 * LEN).then_some(())?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What begins like an ext4 file system.
    fn file_system(first: u8, label: &str) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let at = |field: usize| SUPERBLOCK as usize + field;
        bytes[at(MAGIC.0)..][..2].copy_from_slice(&MAGIC.1);
        bytes[at(UUID)..][..LEN].copy_from_slice(&[&[first], &[0xab; 15][..]].concat());
        bytes[at(LABEL)..][..label.len()].copy_from_slice(label.as_bytes());
        bytes
    }

    #[test]
    fn a_root_is_found_by_its_uuid_and_its_label() {
        let folder = tempfile::tempdir().unwrap();
        let [blocks, devices] = ["blocks", "devices"].map(|name| folder.path().join(name));
        let disks = [
            ("vda", file_system(1, "one")),
            ("vdb", file_system(2, "sixteen letters!")),
            ("vdc", vec![0; 4096]),
            ("vdd", vec![0; 100]),
        ];
        for path in [&blocks, &devices] {
            fs::create_dir(path).unwrap();
            disks.iter().for_each(|(name, bytes)| fs::write(path.join(name), bytes).unwrap());
        }
        let find = |root: &str| Root::parse(root).unwrap().find(&blocks, &devices);
        assert_eq!(
            find(&format!("UUID=02ABabab-abab-abab-abab-{}", "ab".repeat(6))),
            Some(devices.join("vdb"))
        );
        assert_eq!(find(&format!("UUID=03{}", "ab".repeat(15))), None);
        assert_eq!(find("LABEL=one"), Some(devices.join("vda")));
        assert_eq!(find("LABEL=sixteen letters!"), Some(devices.join("vdb")));
        assert_eq!(find("LABEL=on"), None);
        assert_eq!(find("/dev/does/not/exist"), None);
    }

    #[test]
    fn a_root_that_cannot_be_found_is_refused() {
        for root in [
            "UUID=1-2",
            "UUID=",
            "LABEL=",
            "PARTUUID=1-2",
            "PARTUUID=12345678-123",
            "PARTUUID=+2345678-01",
            "PARTLABEL=",
            "vda",
            "8:1",
        ] {
            assert!(Root::parse(root).unwrap_err().to_string().contains("/dev/vda"), "{root}");
        }
    }
}

//! What a file is that is named without a key: a disk image or a configuration.

use super::{ConfigError, error::read_error};
use colinux_vmm::Format;
use std::{
    fs::{self, File, FileType},
    io::Read,
    os::unix::fs::FileTypeExt,
    path::Path,
    str,
};

/// A configuration is never larger.
const MAX_FILE: u64 = 64 << 10;
/// How the text begins that names the files of a disk (VMware, "Virtual Disk Format 5.0").
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";

const PACKED: &str = "it is packed: unpack it first (gunzip, unxz, unzstd, bunzip2, unzip); what is an archive inside, `colinux image import` makes an image of";
/// What is neither: the place of some bytes of it, the bytes, and what to do.
const OTHERS: [(usize, &[u8], &str); 8] = [
    (0, b"\x1f\x8b\x08", PACKED),
    (0, b"\xfd7zXZ\0", PACKED),
    (0, b"\x28\xb5\x2f\xfd", PACKED),
    (0, b"BZh", PACKED),
    (0, b"PK\x03\x04", PACKED),
    (257, b"ustar", "it is an archive; `colinux image import` makes an image of it"),
    (0, b"\x7fELF", "it is a program; is it a kernel? kernel=FILE names one"),
    (0, b"!<arch>\n", "it is a package; kernel=FILE takes the kernel out of one"),
];
const NO_FILE: &str = "it is neither a file nor a disk of this host";
const NOT_UTF_8: &str = "it is neither an image nor a configuration: a text, but not in UTF-8; `iconv -f latin1 -t utf-8` may make it so";
const NO_IMAGE: &str =
    "it has the name of a disk image, but is a text; is it a configuration? give it the ending .conf";
/// For a file that was said to be a configuration.
pub(super) const NO_TEXT: &str = "it is no text, and so no configuration; an image is named without the `@`";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A disk, partition or volume of the host.
    Device,
    Image,
    Configuration,
}

impl Kind {
    /// What the file at `path` is, by what is in it. Which format an image has, its name says.
    ///
    /// # Errors
    /// It is nothing that a guest can be made of, or cannot be read.
    pub(super) fn of(path: &Path) -> Result<Self, ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: path.display().to_string(), reason };
        let kind = file_type(path)?;
        if kind.is_block_device() {
            return Ok(Self::Device);
        }
        if !kind.is_file() {
            return Err(bad(NO_FILE));
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(read_error(path))?;
        file.take(MAX_FILE + 1).read_to_end(&mut start).map_err(read_error(path))?;
        Self::of_bytes(path, &start).map_err(bad)
    }

    /// By the file's name and its first bytes, one more than a configuration has.
    fn of_bytes(path: &Path, start: &[u8]) -> Result<Self, &'static str> {
        let is_there = |at: usize, bytes: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(bytes));
        if let Some((_, _, reason)) = OTHERS.iter().find(|(at, bytes, _)| is_there(*at, bytes)) {
            return Err(reason);
        }
        let is_small = start.len() as u64 <= MAX_FILE && !start.is_empty();
        if !is_small || start.starts_with(DESCRIPTOR) || !is_text(start) {
            return Ok(Self::Image);
        }
        match str::from_utf8(start) {
            _ if Format::of_name(path) != Format::Raw => Err(NO_IMAGE),
            Ok(_) => Ok(Self::Configuration),
            Err(_) => Err(NOT_UTF_8),
        }
    }
}

/// A disk has bytes that no text has.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..))
}

fn file_type(path: &Path) -> Result<FileType, ConfigError> {
    Ok(fs::metadata(path).map_err(read_error(path))?.file_type())
}

/// Whether it is a disk, partition or volume of the host.
pub(super) fn is_device(path: &Path) -> bool {
    file_type(path).is_ok_and(|kind| kind.is_block_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_configurations_by_what_is_in_them() {
        use Kind::{Configuration, Image};
        let of = |name: &str, bytes: &[u8]| Kind::of_bytes(Path::new(name), bytes);
        let half = [&[b'a'; 600][..], &[0]].concat();
        for (name, bytes, kind) in [
            ("a.vmdk", &b"# Disk DescriptorFile\nversion=1\nCID=fffffffe\n"[..], Image),
            ("a", b"# Disk DescriptorFile\r\n", Image),
            ("a.vmdk", b"KDMV\x01\0\0\0", Image),
            ("a.qcow2", b"QFI\xfb\0\0\0\x03", Image),
            ("a.vdi", b"<<< Oracle VM VirtualBox Disk Image >>>\n\0\0", Image),
            ("a.vhd", b"conectix\0\0\0\x02", Image),
            ("a.vhdx", b"vhdxfileM\0i\0", Image),
            ("a.img", &half, Image),
            ("a.img", b"", Image),
            ("a.conf", &vec![b'#'; 65536], Configuration),
            ("a.conf", &vec![b'#'; 65537], Image),
            ("a", "# für mich\nmem=1G\n".as_bytes(), Configuration),
            ("a.toml", b"memory = 64\r\n", Configuration),
        ] {
            assert_eq!(of(name, bytes), Ok(kind), "{name} {:?}", bytes.get(..40));
        }
        let tar = [&[b'a'; 257][..], b"ustar"].concat();
        for (name, bytes, reason) in [
            ("a.img.gz", &b"\x1f\x8b\x08\0"[..], "unpack it"),
            ("a.img.xz", b"\xfd7zXZ\0\0", "unpack it"),
            ("a.img", b"PK\x03\x04", "unpack it"),
            ("a.tar", &tar, "image import"),
            ("vmlinux", b"\x7fELF\x02", "kernel="),
            ("a.deb", b"!<arch>\ndebian", "kernel="),
            ("a.conf", b"# f\xfcr mich\n", "iconv"),
            ("a.vdi", b"mem=1G\n", ".conf"),
        ] {
            let error = of(name, bytes).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[test]
    fn only_files_and_disks_are_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/zero")] {
            assert!(Kind::of(path).unwrap_err().to_string().contains(NO_FILE));
        }
        assert!(matches!(Kind::of(&folder.path().join("none")), Err(ConfigError::Read { .. })));
    }
}

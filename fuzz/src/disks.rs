//! Disk images, the file systems on them, and archives.

use crate::damage::damaged;
use colinux_devices::{Format, ImageOptions, Slices, Storage, fuzz::disk_images};
use colinux_loader::{Disk, Medium};
use std::{
    fs, io,
    path::Path,
    process::Command,
    sync::{Arc, LazyLock},
};

const FORMATS: [Format; 5] = [Format::Qcow2, Format::Vmdk, Format::Vhd, Format::Vhdx, Format::Vdi];

static IMAGES: LazyLock<Vec<(Format, Vec<u8>)>> = LazyLock::new(disk_images);

/// Opens an image, and reads and writes it.
pub fn images(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let format = FORMATS[usize::from(*which) % FORMATS.len()];
    let files: Vec<_> =
        IMAGES.iter().filter(|(of, _)| *of == format).map(|(_, bytes)| bytes.clone()).collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), damaged(&files, rest)).expect("a temporary file");
    for read_only in [true, false] {
        let options = ImageOptions { format, read_only, ..ImageOptions::new(file.path().to_owned()) };
        let Ok(disk) = options.open() else { continue };
        let mut bytes = [7; 4096];
        for at in [0, 512, 1 << 20, disk.len() / 2, disk.len().saturating_sub(4096)] {
            let _ = disk.read(Slices::from(&mut bytes[..]), at);
            if !read_only {
                let _ = disk.write(Slices::from(&mut bytes[..]), at);
            }
        }
        let _ = disk.sync();
        if !read_only {
            change(&*disk);
        }
    }
}

/// Does to a disk what moves its blocks. A device asks for places that it has only.
fn change(disk: &dyn Storage) {
    /// Larger ones would have tables that take long.
    const LARGEST: u64 = 1 << 32;
    let len = disk.len();
    for at in [0, 1 << 20, len.saturating_sub(1 << 16)] {
        if at.checked_add(1 << 16).is_some_and(|end| end <= len) {
            let _ = disk.discard(at, 1 << 16);
            let _ = disk.write_zeroes(at, 4096, false);
            let _ = disk.write_zeroes(at, 1 << 16, true);
        }
    }
    if len < LARGEST {
        let _ = disk.grow(Some(len + (1 << 20)));
    }
    let _ = disk.grow(None);
    let _ = disk.sync();
}

/// A disk in memory.
struct Bytes(Vec<u8>);

impl Medium for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let found = at.checked_add(buffer.len()).and_then(|end| self.0.get(at..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A disk with a file system on all of it, and one with it in a partition.
static DISKS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (files, disk) = (folder.path().join("files"), folder.path().join("disk"));
    fs::create_dir_all(files.join("boot")).expect("a folder");
    fs::write(files.join("boot/vmlinuz-6.1"), [1; 3000]).expect("a file");
    fs::write(files.join("boot/initrd.img-6.1"), [2; 9000]).expect("a file");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .args(["-q", "-t", "ext4", "-d"])
        .arg(files)
        .arg(&disk)
        .arg("2M")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    assert!(mke2fs.status().is_ok_and(|status| status.success()), "mke2fs failed");
    let whole = fs::read(disk).expect("a disk");
    let mut part = vec![0; 1 << 20];
    // One entry of a partition table (UEFI 2.10, 5.2.1): Linux, from sector 2048 on.
    part[446 + 4] = 0x83;
    part[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    part[446 + 12..446 + 16].copy_from_slice(&4096_u32.to_le_bytes());
    part[510..512].copy_from_slice(&[0x55, 0xaa]);
    part.extend(&whole);
    vec![whole, part]
});

/// Finds kernel and initrd on a disk.
pub fn file_system(data: &[u8]) {
    let medium = Arc::new(Bytes(damaged(&DISKS, data)));
    if let Ok(disk) = Disk::read(Path::new("disk"), medium) {
        let _ = (disk.kernels(), disk.root_device("/dev/vda"));
        if let Ok(files) = disk.kernel()
            && let Some(initrd) = files.initrd
        {
            let _ = initrd.len;
        }
    }
}

/// Imports an archive.
pub fn archive(data: &[u8]) {
    colinux_image::fuzz_archive(&damaged(&ARCHIVES, data));
}

static ARCHIVES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(colinux_image::fuzz_archives);

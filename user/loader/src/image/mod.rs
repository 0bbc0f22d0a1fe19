//! Disk images: partitions, file systems, and the kernel inside.

mod files;
mod partitions;

use crate::{ImageError, Initrd};
use ext4_view::{Ext4, Ext4Read, PathBuf as InnerPath};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// No disk with a system on it is smaller.
const SMALLEST: u64 = 64 << 10;
/// A kernel image is never larger.
const MAX_KERNEL: u64 = 512 << 20;
/// Offset of the superblock in an ext4 file system.
const SUPERBLOCK: u64 = 1024;
/// Feature bit of a file system with block numbers of 64 bits.
const INCOMPAT_64BIT: u64 = 0x80;

/// A raw disk image with a Linux system on it, open for reading.
pub struct Disk {
    path: PathBuf,
    volumes: Vec<Volume>,
}

/// A file system of a disk.
struct Volume {
    /// Partition number; none when the whole disk is the file system.
    partition: Option<u32>,
    fs: Ext4,
}

/// The kernel and initrd of a disk.
pub struct KernelFiles {
    /// Path of the kernel inside the image.
    pub name: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The initrd, if there is one.
    pub initrd: Option<Initrd>,
}

impl Disk {
    /// Opens the image at `path` and the ext4 file systems on it.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let io_error = |source| ImageError::Io { path: path.to_owned(), source };
        let file = Arc::new(File::open(path).map_err(io_error)?);
        // Seeking to the end gives the size of block devices too.
        let len = io::Seek::seek(&mut &*file, io::SeekFrom::End(0)).map_err(io_error)?;
        if len < SMALLEST {
            return Err(ImageError::TooSmall { path: path.to_owned(), len });
        }
        let mut volumes = Vec::new();
        let mut problems = Vec::new();
        for part in partitions::list(&file).map_err(io_error)? {
            let name = part.number.map_or("whole disk".to_owned(), |number| format!("partition {number}"));
            let section = Section { file: Arc::clone(&file), start: part.start, len: part.len };
            match section.load() {
                Ok(fs) => volumes.push(Volume { partition: part.number, fs }),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        if volumes.is_empty() {
            return Err(ImageError::NoFileSystem { path: path.to_owned(), detail: problems.join("; ") });
        }
        Ok(Self { path: path.to_owned(), volumes })
    }

    /// The guest's name of the root file system when the image is its disk `disk`, such as `/dev/vda1`.
    pub fn root_device(&self, disk: &str) -> String {
        let is_root = |volume: &&Volume| {
            ["/etc/os-release", "/usr/lib/os-release", "/etc/fstab"]
                .iter()
                .any(|path| exists(&volume.fs, path))
        };
        let root = self.volumes.iter().find(is_root).or(self.volumes.first());
        root.and_then(|volume| volume.partition).map_or(disk.to_owned(), |number| format!("{disk}{number}"))
    }

    /// Finds the kernel that the system would boot, and its initrd.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn kernel(&self) -> Result<KernelFiles, ImageError> {
        let found = self.volumes.iter().find_map(|volume| Some((volume, files::find(&volume.fs)?)));
        let (volume, names) = found.ok_or_else(|| ImageError::NoKernel(self.path.clone()))?;
        let kernel = self.read(volume, &names.kernel)?;
        let initrd = names.initrd.map(|name| self.stream(volume, &name)).transpose()?;
        Ok(KernelFiles { name: names.kernel, kernel, initrd })
    }

    fn read(&self, volume: &Volume, name: &str) -> Result<Vec<u8>, ImageError> {
        let stream = self.stream(volume, name)?;
        let mut bytes = Vec::with_capacity(stream.len.min(MAX_KERNEL) as usize);
        stream.reader.take(MAX_KERNEL).read_to_end(&mut bytes).map_err(|error| self.inside(name, error))?;
        Ok(bytes)
    }

    fn stream(&self, volume: &Volume, name: &str) -> Result<Initrd, ImageError> {
        let file = volume.fs.open(name).map_err(|error| self.inside(name, error))?;
        let len = file.metadata().len();
        Ok(Initrd { len, reader: Box::new(InnerFile(file)) })
    }

    fn inside(&self, file: &str, error: impl ToString) -> ImageError {
        ImageError::Inside { path: self.path.clone(), file: file.to_owned(), reason: error.to_string() }
    }
}

fn exists(fs: &Ext4, path: &str) -> bool {
    InnerPath::try_from(path).is_ok_and(|path| fs.exists(&path).unwrap_or(false))
}

type SectionError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A part of a disk.
struct Section {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl Section {
    fn load(self) -> Result<Ext4, SectionError> {
        self.check_len()?;
        Ok(Ext4::load(Box::new(self))?)
    }

    /// Compares the length with what the superblock says (fs/ext4/ext4.h, `struct ext4_super_block`): an image that was cut
    /// short may look whole otherwise, until the guest reads what is missing.
    fn check_len(&self) -> Result<(), SectionError> {
        let word = |offset| {
            let mut bytes = [0; 4];
            self.file.read_exact_at(&mut bytes, self.start + SUPERBLOCK + offset)?;
            Ok::<_, io::Error>(u64::from(u32::from_le_bytes(bytes)))
        };
        let is_ext4 = word(0x38)? & 0xffff == 0xef53;
        let blocks = word(0x4)? | if word(0x60)? & INCOMPAT_64BIT != 0 { word(0x150)? << 32 } else { 0 };
        let len = 1024_u64.checked_shl(word(0x18)? as u32).and_then(|size| size.checked_mul(blocks));
        match len {
            Some(len) if is_ext4 && len > self.len => {
                Err(format!("the file system has {len} bytes and the image {}: it is cut short", self.len)
                    .into())
            }
            _ => Ok(()),
        }
    }
}

impl Ext4Read for Section {
    fn read(&mut self, start: u64, buffer: &mut [u8]) -> Result<(), SectionError> {
        let end = start.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err("the file system reaches beyond the end of the image: it is cut short".into());
        }
        Ok(self.file.read_exact_at(buffer, self.start + start)?)
    }
}

/// A file inside a file system.
struct InnerFile(ext4_view::File);

impl Read for InnerFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read_bytes(buffer)?)
    }
}

#[cfg(test)]
mod tests;

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

pub use partitions::{Part, list as partitions};

/// No disk with a system on it is smaller.
const SMALLEST: u64 = 64 << 10;
/// A kernel image is never larger.
const MAX_KERNEL: u64 = 512 << 20;
/// Offset of the superblock in an ext4 file system.
const SUPERBLOCK: u64 = 1024;
/// Files that tell a root from other file systems: those of a distribution, and, where no file system has any of them, those without which nothing starts.
const SIGNS: [&[&str]; 2] =
    [&["/etc/os-release", "/usr/lib/os-release", "/etc/fstab"], &["/sbin/init", "/bin/sh"]];
/// Feature bit of a file system with block numbers of 64 bits.
const INCOMPAT_64BIT: u64 = 0x80;

/// The bytes of a disk, open for reading.
pub trait Medium: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// As the medium; the end of the disk comes first.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file or block device whose bytes are the disk's.
struct RawMedium {
    file: File,
    len: u64,
}

impl Medium for RawMedium {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// A disk with a Linux system on it, open for reading.
pub struct Disk {
    path: PathBuf,
    volumes: Vec<Volume>,
}

/// A file system of a disk.
struct Volume {
    /// Where it is.
    part: Part,
    fs: Ext4,
}

impl Volume {
    fn describe(&self) -> String {
        format!("{} of {} MiB", self.part.name(), self.part.len >> 20)
    }
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
    /// Opens the raw image at `path` and the ext4 file systems on it.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let io_error = |source| ImageError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io_error)?;
        // Seeking to the end gives the size of block devices too.
        let len = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(io_error)?;
        Self::read(path, Arc::new(RawMedium { file, len }))
    }

    /// Opens the ext4 file systems on a disk; `path` is for messages.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the disk.
    pub fn read(path: &Path, medium: Arc<dyn Medium>) -> Result<Self, ImageError> {
        let io_error = |source| ImageError::Io { path: path.to_owned(), source };
        let len = medium.size();
        if len < SMALLEST {
            return Err(ImageError::TooSmall { path: path.to_owned(), len });
        }
        let mut volumes = Vec::new();
        let mut problems = Vec::new();
        for part in partitions::list(&medium).map_err(io_error)? {
            let name = part.name();
            let section = Section { medium: Arc::clone(&medium), start: part.start, len: part.len };
            match section.load() {
                Ok(fs) => volumes.push(Volume { part, fs }),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        if volumes.is_empty() {
            return Err(ImageError::NoFileSystem { path: path.to_owned(), detail: problems.join("; ") });
        }
        Ok(Self { path: path.to_owned(), volumes })
    }

    /// The file system that looks like a root, or the only one there is.
    fn root(&self) -> Result<&Volume, ImageError> {
        if let [only] = &*self.volumes {
            return Ok(only);
        }
        let with = |signs: &&[&str]| {
            let has = |volume: &&Volume| signs.iter().any(|path| exists(&volume.fs, path));
            self.volumes.iter().find(has)
        };
        SIGNS.iter().find_map(with).ok_or_else(|| ImageError::NoRoot {
            path: self.path.clone(),
            found: self.volumes.iter().map(Volume::describe).collect::<Vec<_>>().join(", "),
        })
    }

    /// The guest's name of the root file system when the image is its disk `disk`, such as `/dev/vda1`.
    ///
    /// # Errors
    /// There are several file systems, and none looks like a root.
    pub fn root_device(&self, disk: &str) -> Result<String, ImageError> {
        let number = self.root()?.part.number;
        Ok(number.map_or(disk.to_owned(), |number| format!("{disk}{number}")))
    }

    /// Where the root file system is on the disk, and the file system.
    ///
    /// # Errors
    /// As [`Self::root_device`].
    pub fn root_fs(&self) -> Result<(&Part, &Ext4), ImageError> {
        self.root().map(|volume| (&volume.part, &volume.fs))
    }

    /// The kernels in the image, and which of them boots: names of files.
    pub fn kernels(&self) -> (Vec<String>, Option<String>) {
        let names = self.volumes.iter().flat_map(|volume| files::list(&volume.fs)).collect();
        let boots = self.volumes.iter().find_map(|volume| {
            let name = files::find(&volume.fs)?.kernel;
            Some(volume.fs.canonicalize(&*name).map_or(name, |path| path.display().to_string()))
        });
        (names, boots)
    }

    /// Finds the kernel that the system would boot, and its initrd.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn kernel(&self) -> Result<KernelFiles, ImageError> {
        let found = self.volumes.iter().find_map(|volume| Some((volume, files::find(&volume.fs)?)));
        let (volume, names) = found.ok_or_else(|| ImageError::NoKernel(self.path.clone()))?;
        let kernel = self.contents(volume, &names.kernel)?;
        let initrd = names.initrd.map(|name| self.stream(volume, &name)).transpose()?;
        Ok(KernelFiles { name: names.kernel, kernel, initrd })
    }

    fn contents(&self, volume: &Volume, name: &str) -> Result<Vec<u8>, ImageError> {
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
    medium: Arc<dyn Medium>,
    start: u64,
    len: u64,
}

impl Section {
    fn load(self) -> Result<Ext4, SectionError> {
        self.check_end()?;
        self.check_len()?;
        Ok(Ext4::load(Box::new(self))?)
    }

    fn check_end(&self) -> Result<(), SectionError> {
        let (end, size) = (self.start.saturating_add(self.len), self.medium.size());
        if end <= size {
            return Ok(());
        }
        Err(format!("it ends at byte {end}, beyond the image's {size} bytes: the image is cut short").into())
    }

    /// Compares the length with what the superblock says (fs/ext4/ext4.h, `struct ext4_super_block`): an image that was cut
    /// short may look whole otherwise, until the guest reads what is missing.
    fn check_len(&self) -> Result<(), SectionError> {
        let word = |offset| {
            let mut bytes = [0; 4];
            self.medium.read_exact_at(&mut bytes, self.start + SUPERBLOCK + offset)?;
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
        Ok(self.medium.read_exact_at(buffer, self.start + start)?)
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

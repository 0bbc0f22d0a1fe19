//! Unpacked kernels, kept for the next start: to unpack one takes longer than all else up to a guest's first instruction.

use kbind_resolve::{ImageError, KernelImage, unpack};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tracing::debug;

/// As many kernels are kept; the one that was used longest ago goes.
const MOST: usize = 4;
/// Bytes of [`KeptKernels::MARK`] and of the checksum.
const TRAILER: usize = KeptKernels::MARK.len() + size_of::<u32>();
const SUFFIX: &str = ".vmlinux";

/// A folder of unpacked kernels that nobody else can write, or none.
///
/// A file is named by the BLAKE3 hash of what was unpacked, and ends with a mark and the CRC-32 of the rest: a power cut may leave a part of it.
#[derive(Clone, Debug, Default)]
pub struct KeptKernels(Option<PathBuf>);

impl KeptKernels {
    /// Stands at the end of a file, before the checksum; another format has another.
    pub const MARK: &[u8; 8] = b"coLinux1";

    /// Keeps kernels in a folder that exists and is the caller's own; without one, nothing is kept.
    pub const fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// As [`KernelImage::parse`].
    ///
    /// # Errors
    /// Those of the kernel. That nothing can be kept is none.
    pub fn parse(&self, bytes: Vec<u8>) -> Result<KernelImage, ImageError> {
        KernelImage::parse_by(bytes, &|payload| self.unpack(payload))
    }

    fn unpack(&self, payload: &[u8]) -> Result<Vec<u8>, ImageError> {
        let Some(folder) = &self.0 else { return unpack(payload) };
        let path = path(folder, payload);
        if let Some(kernel) = read(&path) {
            debug!("boot: has the kernel unpacked");
            return Ok(kernel);
        }
        let kernel = unpack(payload)?;
        debug!("boot: has the kernel unpacked");
        if let Err(error) = keep(folder, &path, &kernel).and_then(|()| remove_old(folder)) {
            debug!("{} is not kept: {error}", path.display());
        }
        Ok(kernel)
    }
}

fn path(folder: &Path, payload: &[u8]) -> PathBuf {
    folder.join(format!("{}{SUFFIX}", blake3::hash(payload).to_hex()))
}

/// The kernel in a file, unless it is damaged; it counts as used now.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let len = bytes.len().checked_sub(TRAILER)?;
    if bytes[len..] != trailer(&bytes[..len]) {
        debug!("{} is damaged", path.display());
        return None;
    }
    bytes.truncate(len);
    let used = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    used.unwrap_or_else(|error| debug!("{}: {error}", path.display()));
    Some(bytes)
}

/// Others see all of it or nothing.
fn keep(folder: &Path, path: &Path, kernel: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(kernel)?;
    file.write_all(&trailer(kernel))?;
    file.persist(path)?;
    Ok(())
}

fn trailer(kernel: &[u8]) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    let (mark, checksum) = bytes.split_at_mut(KeptKernels::MARK.len());
    mark.copy_from_slice(KeptKernels::MARK);
    checksum.copy_from_slice(&crc32fast::hash(kernel).to_le_bytes());
    bytes
}

/// Removes all but the newest files, those of starts that were cut short among them.
fn remove_old(folder: &Path) -> io::Result<()> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.metadata()?.modified()?, entry.path()))
    };
    let mut files: Vec<_> = fs::read_dir(folder)?.map(file).collect::<io::Result<_>>()?;
    files.sort_unstable();
    let many = files.len().saturating_sub(MOST);
    files[..many].iter().try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::time::Duration;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_kernel_is_unpacked_once() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptKernels::new(Some(folder.path().into()));
        assert_eq!(kept.unpack(&pack(b"one")).unwrap(), b"one");
        let [file] = &files(folder.path())[..] else { panic!("one file") };
        // What is in the file is what comes, so it was not unpacked again.
        fs::write(file, [&b"other"[..], &trailer(b"other")].concat()).unwrap();
        assert_eq!(kept.unpack(&pack(b"one")).unwrap(), b"other");
        assert_eq!(kept.unpack(&pack(b"two")).unwrap(), b"two");
        assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn what_is_damaged_is_unpacked_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptKernels::new(Some(folder.path().into()));
        let packed = pack(b"a kernel");
        kept.unpack(&packed).unwrap();
        let [file] = &files(folder.path())[..] else { panic!("one file") };
        let whole = fs::read(file).unwrap();
        for damaged in
            [&whole[..0], &whole[..7], &whole[1..], &vec![0; whole.len()], &[&whole[..], b"x"].concat()]
        {
            fs::write(file, damaged).unwrap();
            assert_eq!(kept.unpack(&packed).unwrap(), b"a kernel");
            assert_eq!(fs::read(file).unwrap(), whole);
        }
    }

    #[test]
    fn only_the_last_used_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptKernels::new(Some(folder.path().into()));
        let age = |name: &Path, seconds| {
            let file = File::options().append(true).open(name).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        let cut_short = folder.path().join("cut short");
        fs::write(&cut_short, "a part").unwrap();
        age(&cut_short, 9);
        for number in 0..MOST as u8 {
            kept.unpack(&pack(&[number])).unwrap();
            age(&path(folder.path(), &pack(&[number])), 8 - u64::from(number));
        }
        assert!(!cut_short.exists());
        // The first was used long ago, and now again.
        kept.unpack(&pack(&[0])).unwrap();
        kept.unpack(b"nothing that is packed").unwrap_err();
        kept.unpack(&pack(b"new")).unwrap();
        assert_eq!(files(folder.path()).len(), MOST);
        assert_eq!(read(&path(folder.path(), &pack(&[0]))).as_deref(), Some(&[0][..]));
        assert_eq!(read(&path(folder.path(), &pack(&[1]))), None);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_nothing_fails() {
        for folder in [None, Some(PathBuf::from("/does/not/exist"))] {
            assert_eq!(KeptKernels::new(folder).unpack(&pack(b"one")).unwrap(), b"one");
        }
    }
}

//! Files for the guest that are not on its disk: an archive behind its initrd.
//!
//! The kernel unpacks all archives of an initrd one after another (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::{Initrd, LoadError};
use cpio::newc::{Builder, trailer};
use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

/// Alignment of an archive that follows another.
const ALIGN: u64 = 4;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// A file for the guest's initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFile {
    /// Absolute path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What it holds.
    pub contents: Cow<'static, [u8]>,
}

impl Initrd {
    /// Adds `files` to what the initrd holds.
    ///
    /// # Errors
    /// A file is too large for an archive.
    pub fn with_files(self, files: &[ExtraFile]) -> Result<Self, LoadError> {
        let archive = archive(files).map_err(LoadError::Initrd)?;
        let padding = self.len.next_multiple_of(ALIGN) - self.len;
        let len = self.len + padding + archive.len() as u64;
        // An initrd that is shorter than it said must not be filled up with what follows it.
        let first = Exactly { left: self.len, reader: self.reader };
        let reader = first.chain(io::repeat(0).take(padding)).chain(io::Cursor::new(archive));
        Ok(Self { len, reader: Box::new(reader) })
    }
}

/// A reader that must have `left` bytes.
struct Exactly {
    left: u64,
    reader: Box<dyn Read>,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.by_ref().take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// An archive of `files` for an initrd, with the folders that they are in.
///
/// # Errors
/// A file is too large for an archive.
pub fn archive(files: &[ExtraFile]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut inode = 0;
    for ExtraFile { path, mode, contents } in files {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            inode += 1;
            add(&mut bytes, &path[..at], inode, FOLDER, &[])?;
        }
        inode += 1;
        add(&mut bytes, path, inode, FILE | mode, contents)?;
    }
    trailer(&mut bytes)?;
    Ok(bytes)
}

fn add(bytes: &mut Vec<u8>, path: &str, inode: u32, mode: u32, contents: &[u8]) -> io::Result<()> {
    let size = u32::try_from(contents.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = Builder::new(path).ino(inode).mode(mode).write(bytes, size);
    writer.write_all(contents)?;
    writer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initrd(bytes: &'static [u8], len: u64) -> Initrd {
        Initrd { len, reader: Box::new(bytes) }
    }

    #[test]
    fn an_archive_follows_at_a_multiple_of_four() {
        let file = ExtraFile { path: "/conf/a/b".to_owned(), mode: 0o600, contents: b"contents".into() };
        let mut both = initrd(b"seven b", 7).with_files(&[file]).unwrap();
        let mut bytes = Vec::new();
        both.reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(both.len, bytes.len() as u64);
        assert_eq!(bytes[..8], *b"seven b\0");
        let mut archive = &bytes[8..];
        let mut names = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            let mut contents = String::new();
            reader.read_to_string(&mut contents).unwrap();
            assert!(contents.is_empty() || contents == "contents");
            archive = reader.finish().unwrap();
        }
        let expected = [("conf", FOLDER), ("conf/a", FOLDER), ("conf/a/b", FILE | 0o600)];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn an_initrd_that_ends_early_stays_an_error() {
        let mut both = initrd(b"short", 7).with_files(&[]).unwrap();
        assert!(both.reader.read_to_end(&mut Vec::new()).is_err());
    }
}

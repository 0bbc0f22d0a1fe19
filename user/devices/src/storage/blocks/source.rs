//! The headers and tables of an image.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

/// Most bytes of a header or table that are read at once.
const MOST_BYTES: u64 = 1 << 27;

pub(super) fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// For what is right, but not supported.
pub(super) fn refused(reason: &str) -> io::Error {
    io::Error::other(format!("{reason}; turn it into qcow2 (`qemu-img convert -O qcow2`)"))
}

/// A file with an image.
pub(in crate::storage) struct Source<'a> {
    file: &'a File,
    len: u64,
}

impl<'a> Source<'a> {
    /// # Errors
    /// The file has no length.
    pub fn new(mut file: &'a File) -> io::Result<Self> {
        // Seeking gives the size of block devices too.
        Ok(Self { file, len: file.seek(SeekFrom::End(0))? })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// All of `count` bytes at `offset`.
    pub(super) fn bytes(&self, offset: u64, count: u64) -> io::Result<Bytes> {
        if count > MOST_BYTES || offset.checked_add(count).is_none_or(|end| end > self.len) {
            return Err(damaged("it is cut short, or a table lies behind its end"));
        }
        let mut bytes = vec![0; count as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes(bytes))
    }
}

/// A piece of a file.
pub(super) struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Bytes of a field; zeros where there is none.
    pub fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    pub fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// All words of a table.
    pub fn words<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> + '_ {
        self.0.chunks_exact(N).map(|word| word.try_into().unwrap_or([0; N]))
    }
}

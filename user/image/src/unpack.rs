//! Compressed archives, told apart by their first bytes.

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::Path,
};

/// What dictionaries may take: that of `xz -9`, and more than `zstd -19` needs.
const WINDOW_KIB: u32 = 128 << 10;
const GZIP: &[u8] = &[0x1f, 0x8b];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Opens a file; gzip, bzip2, xz and zstd are unpacked.
///
/// # Errors
/// As the file.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(XZ.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(unpacked(&start, BufReader::with_capacity(1 << 16, file)))
}

/// Unpacks what begins with `start`.
pub(crate) fn unpacked<'a>(start: &[u8], reader: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(reader))
    } else if start.starts_with(BZIP2) {
        Box::new(MultiBzDecoder::new(reader))
    } else if start.starts_with(XZ) {
        Box::new(XzReader::new_mem_limit(reader, true, WINDOW_KIB))
    } else if start.starts_with(ZSTD) {
        Box::new(Frames { reader: Some(reader), frame: None })
    } else {
        Box::new(reader)
    }
}

/// The frames of a zstd file, one after another.
struct Frames<R: BufRead> {
    reader: Option<R>,
    frame: Option<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            if let Some(frame) = self.frame.take() {
                self.reader = Some(frame.into_inner());
            }
            let Some(mut reader) = self.reader.take() else { return Ok(0) };
            if reader.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let window = u64::from(WINDOW_KIB) << 10;
            let frame = StreamingDecoder::new_with_max_window_size(reader, window);
            self.frame = Some(frame.map_err(io::Error::other)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn every_compression_is_unpacked_also_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for program in ["cat", "gzip", "bzip2", "xz", "zstd"] {
            let pack = |text: &str| {
                std::fs::write(&path, text).unwrap();
                let file = File::open(&path).unwrap();
                let output = Command::new(program).stdin(Stdio::from(file)).output().unwrap();
                assert!(output.status.success(), "{program}");
                output.stdout
            };
            let bytes = [pack("one "), pack("two")].concat();
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(io::read_to_string(open(&path).unwrap()).unwrap(), "one two", "{program}");
        }
    }
}

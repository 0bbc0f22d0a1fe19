//! The setup header of a bzImage and its compressed payload.
//!
//! Source: Documentation/arch/x86/boot.rst; scripts/Makefile.lib for how each payload is packed.

use crate::bytes::{slice, u8_at, u16_at, u32_at};
use crate::error::ImageError;
use std::io::Read;

/// Largest vmlinux that is accepted, bytes.
pub const MAX_UNPACKED: usize = 512 << 20;
/// Memory that a decompressor may use for its window, KiB.
const MAX_WINDOW_KIB: u32 = 256 << 10;
/// A kernel packs at best about 1:8, so more room than this is not reserved ahead.
const MAX_RATIO: usize = 16;

const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_LENGTH: usize = 0x201;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const XLOADFLAGS: usize = 0x236;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const XLF_KERNEL_64: u16 = 1;
const SECTOR: usize = 512;

/// What the head of a bzImage says.
pub struct BzImage<'a> {
    /// The setup header, from `setup_sects` to its end.
    pub header: &'a [u8],
    /// The version string, when there is one.
    pub version: Option<&'a str>,
    /// The compressed vmlinux.
    pub payload: &'a [u8],
}

/// True when the file looks like a bzImage.
pub fn is_bzimage(bytes: &[u8]) -> bool {
    u16_at(bytes, BOOT_FLAG) == Some(0xaa55) && slice(bytes, HEADER_MAGIC, 4) == Some(b"HdrS")
}

/// Reads the setup header.
pub fn parse(bytes: &[u8]) -> Result<BzImage<'_>, ImageError> {
    let cut = || ImageError::Truncated("the setup header");
    let protocol = u16_at(bytes, PROTOCOL).ok_or_else(cut)?;
    if protocol < 0x0208 {
        let [minor, major] = protocol.to_le_bytes();
        return Err(ImageError::OldProtocol { major, minor });
    }
    if protocol >= 0x020c && u16_at(bytes, XLOADFLAGS).ok_or_else(cut)? & XLF_KERNEL_64 == 0 {
        return Err(ImageError::Not64Bit("its setup header has no 64-bit entry point"));
    }
    let header_end = HEADER_MAGIC + usize::from(u8_at(bytes, HEADER_LENGTH).ok_or_else(cut)?);
    Ok(BzImage {
        header: bytes.get(SETUP_SECTS..header_end).ok_or_else(cut)?,
        version: version(bytes),
        payload: payload(bytes).ok_or(ImageError::Truncated("the compressed kernel"))?,
    })
}

fn version(bytes: &[u8]) -> Option<&str> {
    let pointer = usize::from(u16_at(bytes, KERNEL_VERSION)?);
    if pointer == 0 {
        return None;
    }
    crate::bytes::c_str(bytes, pointer + SECTOR)
}

fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let sectors = match u8_at(bytes, SETUP_SECTS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = usize::try_from(u32_at(bytes, PAYLOAD_OFFSET)?).ok()?;
    let length = usize::try_from(u32_at(bytes, PAYLOAD_LENGTH)?).ok()?;
    slice(bytes, (sectors + 1).checked_mul(SECTOR)?.checked_add(offset)?, length)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Xz,
    Zstd,
    Lz4,
    Lzma,
    Plain,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lzma => "lzma",
            Self::Plain => "uncompressed",
        }
    }
}

fn detect(payload: &[u8]) -> Result<Format, ImageError> {
    const MAGICS: [(&[u8], Format); 6] = [
        (b"\x1f\x8b", Format::Gzip),
        (b"\xfd7zXZ\0", Format::Xz),
        (b"\x28\xb5\x2f\xfd", Format::Zstd),
        (b"\x02\x21\x4c\x18", Format::Lz4),
        (b"\x5d\0\0", Format::Lzma),
        (b"\x7fELF", Format::Plain),
    ];
    let known = MAGICS.iter().find(|(magic, _)| payload.starts_with(magic));
    known.map(|&(_, format)| format).ok_or_else(|| ImageError::UnknownCompression(describe(payload)))
}

fn describe(payload: &[u8]) -> String {
    if payload.starts_with(b"BZh") {
        return "bzip2".into();
    }
    if payload.starts_with(b"\x89LZO") {
        return "lzo".into();
    }
    let head: String = payload.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("it starts with {head}")
}

/// Unpacks the payload of a bzImage.
pub fn unpack(payload: &[u8]) -> Result<Vec<u8>, ImageError> {
    let format = detect(payload)?;
    let damaged = |reason: String| ImageError::Damaged { format: format.name(), reason };
    let io = |error: std::io::Error| damaged(error.to_string());
    match format {
        Format::Gzip => read_all(flate2::read::GzDecoder::new(payload), payload, MAX_UNPACKED, io),
        Format::Xz => read_all(
            lzma_rust2::XzReader::new_mem_limit(payload, false, MAX_WINDOW_KIB),
            payload,
            MAX_UNPACKED,
            io,
        ),
        Format::Zstd => unpack_zstd(payload, MAX_UNPACKED),
        Format::Lzma => {
            let decoder = lzma_rust2::LzmaReader::new_mem_limit(payload, MAX_WINDOW_KIB, None);
            read_all(decoder.map_err(|error| damaged(error.to_string()))?, payload, MAX_UNPACKED, io)
        }
        Format::Lz4 => unpack_lz4(payload, MAX_UNPACKED),
        Format::Plain => Ok(payload.to_vec()),
    }
}

fn read_all(
    reader: impl Read,
    payload: &[u8],
    limit: usize,
    failed: impl Fn(std::io::Error) -> ImageError,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::with_capacity(size_hint(payload));
    reader.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(ImageError::TooLarge(limit));
    }
    Ok(bytes)
}

/// The build appends the unpacked size to each payload; believed only as far as it is plausible.
fn size_hint(payload: &[u8]) -> usize {
    let stored = payload.len().checked_sub(4).and_then(|at| u32_at(payload, at)).unwrap_or(0);
    (stored as usize).min(payload.len().saturating_mul(MAX_RATIO)).min(MAX_UNPACKED)
}

/// One frame, and behind it the unpacked size that the build appends.
fn unpack_zstd(payload: &[u8], limit: usize) -> Result<Vec<u8>, ImageError> {
    let damaged = |reason: String| ImageError::Damaged { format: "zstd", reason };
    let frame = payload.len().checked_sub(4).and_then(|end| payload.get(..end)).unwrap_or(&[]);
    let mut unpacked = Vec::with_capacity(size_hint(payload));
    match zrip::DecompressContext::new().decompress_into_with_limit(frame, &mut unpacked, limit) {
        Ok(_) => Ok(unpacked),
        Err(zrip::DecompressError::OutputTooSmall) => Err(ImageError::TooLarge(limit)),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The legacy lz4 container: blocks of 8 MiB, each after its packed size.
fn unpack_lz4(payload: &[u8], limit: usize) -> Result<Vec<u8>, ImageError> {
    const BLOCK: usize = 8 << 20;
    let damaged = |reason: &str| ImageError::Damaged { format: "lz4", reason: reason.into() };
    let mut unpacked = Vec::with_capacity(size_hint(payload));
    let mut block = vec![0; BLOCK];
    let mut at = 4usize;
    // The last word is the unpacked size that the build appends.
    while at.checked_add(4).is_some_and(|next| next < payload.len()) {
        let length = u32_at(payload, at).ok_or_else(|| damaged("no block size"))? as usize;
        let packed = slice(payload, at + 4, length).ok_or_else(|| damaged("a block is cut short"))?;
        let filled = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| damaged(&error.to_string()))?;
        if unpacked.len() + filled > limit {
            return Err(ImageError::TooLarge(limit));
        }
        unpacked.extend_from_slice(&block[..filled]);
        at += 4 + length;
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn unpacking_stops_at_the_limit() {
        let unpack = |len: usize| {
            let bytes = std::io::repeat(0).take(len as u64);
            read_all(bytes, b"", MIB, |error| ImageError::Damaged {
                format: "test",
                reason: error.to_string(),
            })
        };
        assert_eq!(unpack(MIB).unwrap().len(), MIB);
        assert!(matches!(unpack(MIB + 1), Err(ImageError::TooLarge(MIB))));
    }

    #[test]
    fn lz4_blocks_count_towards_the_limit() {
        let block = lz4_flex::block::compress(&vec![0; MIB]);
        let mut payload = b"\x02\x21\x4c\x18".to_vec();
        for _ in 0..2 {
            payload.extend((block.len() as u32).to_le_bytes());
            payload.extend(&block);
        }
        payload.extend([0; 4]);
        assert_eq!(unpack_lz4(&payload, 2 * MIB).unwrap().len(), 2 * MIB);
        assert!(matches!(unpack_lz4(&payload, 2 * MIB - 1), Err(ImageError::TooLarge(_))));
    }

    #[test]
    fn a_stored_size_is_believed_within_reason() {
        assert_eq!(size_hint(&[0xff; 100]), 100 * MAX_RATIO);
        assert_eq!(size_hint(&[0, 0, 0, 0, 7, 0, 0, 0]), 7);
        assert_eq!(size_hint(&[1]), 0);
    }
}

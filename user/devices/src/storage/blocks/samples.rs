//! Small images of each format, for tests and fuzzing.

#[cfg(test)]
use super::*;
use crc::{CRC_32_ISCSI, Crc};
use std::os::unix::fs::FileExt;

/// Bytes of a disk whose block 1 is not in the file, and whose last one is cut.
pub(super) const LEN: u64 = 2 * MIB + 512;
pub(super) const MIB: u64 = 1 << 20;

/// Puts bytes into a file that grows.
pub(in crate::storage) struct Image(pub(in crate::storage) std::fs::File);

impl Image {
    pub(super) fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) -> &Self {
        self.0.write_all_at(bytes, at).unwrap();
        self
    }

    #[cfg(test)]
    pub(super) fn read(&self, read: Reader) -> io::Result<BlockMap> {
        read(&Source::new(&self.0)?)
    }
}

/// Words, one after the other, in the order of the bytes that the format has.
pub(in crate::storage) fn be(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(in crate::storage) fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(in crate::storage) fn vdi() -> Image {
    let image = Image::new();
    image.put(0x40, &le(&[vdi_signature(), 0x1_0001, 400, 1, 0]));
    image
        .put(0x154, &le(&[512, 1024]))
        .put(0x170, &LEN.to_le_bytes())
        .put(0x178, &le(&[MIB as u32, 0, 3, 2]));
    image.put(512, &le(&[1, u32::MAX, 0])).put(1024 + 2 * MIB - 1, &[0]);
    image
}

pub(in crate::storage) fn vdi_signature() -> u32 {
    u32::from_le_bytes([0x7f, 0x10, 0xda, 0xbe])
}

pub(in crate::storage) fn with_sum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

pub(in crate::storage) fn footer(kind: u32, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..8].copy_from_slice(b"conectix");
    bytes[16..24].copy_from_slice(&512_u64.to_be_bytes());
    bytes[48..56].copy_from_slice(&len.to_be_bytes());
    bytes[60..64].copy_from_slice(&kind.to_be_bytes());
    with_sum(bytes, 64)
}

pub(in crate::storage) fn vhd() -> Image {
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
    header[28..36].copy_from_slice(&be(&[3, MIB as u32]));
    let image = Image::new();
    image.put(512, &with_sum(header, 36)).put(1536, &be(&[4 + 2049, u32::MAX, 4]));
    image.put(4 * 512 + 2 * 2049 * 512, &footer(3, LEN));
    image
}

pub(in crate::storage) fn vmdk() -> Image {
    let mut header = b"KDMV".to_vec();
    header.extend(le(&[1, 3]));
    for number in [LEN / 512, 2048, 1, 1] {
        header.extend(number.to_le_bytes());
    }
    header.extend(le(&[2]));
    header.extend([0_u64, 2].map(u64::to_le_bytes).concat());
    let image = Image::new();
    image.put(0, &header).put(512, b"parentCID=ffffffff\ncreateType=\"monolithicSparse\"\n");
    image.put(1024, &le(&[3, 4])).put(1536, &le(&[2048 + 8, 0])).put(2048, &le(&[8]));
    image.put(8 * 512 + 2 * MIB - 1, &[0]);
    image
}

pub(in crate::storage) fn with_crc(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len, 0);
    let crc = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Field by field as a GUID is stored.
pub(in crate::storage) fn guid(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = (0..32)
        .step_by(2)
        .map(|i| u8::from_str_radix(&text.replace('-', "")[i..i + 2], 16).unwrap())
        .collect();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().map(|i| digits[*i]).collect()
}

pub(in crate::storage) fn vhdx_header(sequence: u64, log: u8) -> Vec<u8> {
    let mut bytes = b"head\0\0\0\0".to_vec();
    bytes.extend(sequence.to_le_bytes());
    bytes.resize(48, 0);
    bytes.extend([log; 16]);
    bytes.extend([0, 0, 1, 0]);
    with_crc(bytes, 4096)
}

pub(in crate::storage) fn vhdx() -> Image {
    let mut regions = b"regi\0\0\0\0".to_vec();
    regions.extend(le(&[2, 0]));
    for (id, offset) in
        [("2DC27766-F623-4200-9D64-115E9BFD4A08", 3 * MIB), ("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 * MIB)]
    {
        regions.extend(guid(id));
        regions.extend(offset.to_le_bytes());
        regions.extend(le(&[MIB as u32, 1]));
    }
    let mut metadata = b"metadata\0\0\x03\0".to_vec();
    metadata.resize(32, 0);
    let items = [
        "CAA16737-FA36-4D43-B3B6-33F0AA44E76B",
        "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
        "8141BF1D-A96F-4709-BA47-F233A8FAAB5F",
    ];
    for (i, id) in items.iter().enumerate() {
        metadata.extend(guid(id));
        metadata.extend(le(&[0x1_0000 + 16 * i as u32, 8, 4, 0]));
    }
    let image = Image::new();
    image.put(0, b"vhdxfile").put(0x1_0000, &vhdx_header(7, 1)).put(0x2_0000, &vhdx_header(8, 0));
    image.put(0x3_0000, &with_crc(regions, 0x1_0000)).put(2 * MIB, &metadata);
    image.put(2 * MIB + 0x1_0000, &le(&[MIB as u32, 0])).put(2 * MIB + 0x1_0010, &LEN.to_le_bytes());
    image.put(2 * MIB + 0x1_0020, &le(&[512]));
    let table = [(5 * MIB) | 6, 2, (4 * MIB) | 6].map(u64::to_le_bytes).concat();
    image.put(3 * MIB, &table).put(6 * MIB - 1, &[0]);
    image
}

//! Reads of little-endian numbers that cannot go out of bounds.

/// `len` bytes at `offset`.
pub fn slice(bytes: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(len)?)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    slice(bytes, offset, N)?.try_into().ok()
}

pub fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// Longest string that is read; twice what kernels allow for a name (`KSYM_NAME_LEN`).
const MAX_STRING: usize = 1024;

/// The string at `offset` up to its zero byte.
pub fn c_string(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let tail = bytes.get(offset..)?;
    let tail = &tail[..tail.len().min(MAX_STRING)];
    Some(&tail[..memchr::memchr(0, tail)?])
}

/// As [`c_string`], when it is UTF-8.
pub fn c_str(bytes: &[u8], offset: usize) -> Option<&str> {
    std::str::from_utf8(c_string(bytes, offset)?).ok()
}

/// The next multiple of `align`, a power of two.
pub fn align_up(value: usize, align: usize) -> Option<usize> {
    Some(value.checked_add(align - 1)? & !(align - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() {
        assert_eq!(u32_at(&[1, 0, 0, 0], 0), Some(1));
        assert_eq!(u32_at(&[1, 0, 0, 0], 1), None);
        assert_eq!(u64_at(&[0; 8], usize::MAX), None);
        assert_eq!(c_str(b"ab\0c", 0), Some("ab"));
        assert_eq!(c_str(b"ab\0c", 3), None);
        assert_eq!(c_string(&[b'x'; 5000], 0), None);
    }

    #[test]
    fn alignment_does_not_wrap() {
        assert_eq!(align_up(9, 8), Some(16));
        assert_eq!(align_up(usize::MAX, 8), None);
    }
}

//! Bytes of a block device that are no longer needed.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// include/uapi/linux/fs.h: `_IO(0x12, 119)`.
pub const BLKDISCARD: u32 = 0x1277;

/// Tells a block device that is open for writing that `len` bytes from `offset` on are no longer needed.
///
/// # Errors
/// As ioctl(2) with BLKDISCARD: the device does not know it, or has blocks that begin or end elsewhere.
pub fn discard_at(device: &impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two numbers of 64 bits.
    match unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKDISCARD.into(), &raw const range) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_device() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(discard_at(&file, 0, 4096).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}

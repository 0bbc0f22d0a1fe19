//! preadv(2) and pwritev(2) between a file and guest memory, without a copy.

use smallvec::SmallVec;
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};
use vm_memory::VolatileSlice;

/// Most slices of one call (`UIO_MAXIOV`); a longer list is served in part.
const MAX_SLICES: usize = 1024;

/// Reads from `file` at `offset` (bytes) into `slices`; returns the number of bytes, which may be short.
///
/// # Errors
/// As preadv(2).
pub fn read_vectored_at(file: &impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (vectors, offset) = prepare(slices, offset)?;
    // SAFETY: each vector covers a `VolatileSlice`, which is mapped, writable and borrowed for the call; guest memory
    // is never behind a Rust reference, so the kernel may write to it at any time.
    let result = unsafe { libc::preadv(file.as_fd().as_raw_fd(), vectors.as_ptr(), count(&vectors), offset) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// As [`read_vectored_at`], but only what is in the page cache.
///
/// # Errors
/// `WouldBlock` if nothing is, `Unsupported` if the file system cannot tell; else as preadv2(2) with `RWF_NOWAIT`.
pub fn read_cached_at(file: &impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (vectors, offset) = prepare(slices, offset)?;
    let (file, pointer, count) = (file.as_fd().as_raw_fd(), vectors.as_ptr(), count(&vectors));
    // SAFETY: as in `read_vectored_at`.
    let result = unsafe { libc::preadv2(file, pointer, count, offset, libc::RWF_NOWAIT) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Writes `slices` to `file` at `offset` (bytes); returns the number of bytes, which may be short.
///
/// # Errors
/// As pwritev(2).
pub fn write_vectored_at(file: &impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (vectors, offset) = prepare(slices, offset)?;
    // SAFETY: each vector covers a `VolatileSlice`, which is mapped and borrowed for the call; the kernel only reads.
    let result =
        unsafe { libc::pwritev(file.as_fd().as_raw_fd(), vectors.as_ptr(), count(&vectors), offset) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Writes `slices` to `file`, which has no offset, in one call; returns the number of bytes.
///
/// # Errors
/// As writev(2).
pub fn write_vectored(file: &impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (vectors, _) = prepare(slices, 0)?;
    // SAFETY: as in `write_vectored_at`.
    let result = unsafe { libc::writev(file.as_fd().as_raw_fd(), vectors.as_ptr(), count(&vectors)) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A few need no memory of their own.
type Vectors = SmallVec<[libc::iovec; 4]>;

fn prepare(slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<(Vectors, i64)> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let vector = |slice: &VolatileSlice<'_>| libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    };
    Ok((slices.iter().take(MAX_SLICES).map(vector).collect(), offset))
}

fn count(vectors: &[libc::iovec]) -> i32 {
    // At most `MAX_SLICES`.
    vectors.len() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    #[test]
    fn bytes_travel_both_ways() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap();
        let slice = |at, len| memory.get_slice(GuestAddress(at), len).unwrap();
        let file = tempfile::tempfile().unwrap();
        memory.write_slice(b"hello world", GuestAddress(0x100)).unwrap();
        assert_eq!(write_vectored_at(&file, &[slice(0x100, 5), slice(0x106, 5)], 7).unwrap(), 10);
        assert_eq!(read_vectored_at(&file, &[slice(0x2000, 3), slice(0x1000, 100)], 7).unwrap(), 10);
        let mut bytes = [0; 7];
        memory.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        assert_eq!(&bytes, b"loworld");
        assert!(read_vectored_at(&file, &[slice(0, 1)], u64::MAX).is_err());
        // Just written, so it is cached, if the file system can tell.
        let cached = read_cached_at(&file, &[slice(0x2000, 3), slice(0x1800, 100)], 7);
        assert!(matches!(cached, Ok(10)) || cached.is_err_and(|e| e.kind() == io::ErrorKind::Unsupported));
    }
}

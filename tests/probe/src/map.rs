//! Writes a file through a shared mapping.

use std::{fs::File, io, os::fd::AsRawFd, process::ExitCode, ptr, slice};

/// Turns each letter of the file at `path` into upper case, in a shared mapping.
pub fn run(path: &str) -> ExitCode {
    match upper(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe map {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn upper(path: &str) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len() as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is that long, and nobody else has the file open.
    unsafe { slice::from_raw_parts_mut(address.cast::<u8>(), len) }.make_ascii_uppercase();
    // SAFETY: as above; the slice is gone.
    let result = unsafe { libc::msync(address, len, libc::MS_SYNC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

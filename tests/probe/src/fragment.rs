//! Memory in which something is in the way everywhere.

use std::io;
use std::process::ExitCode;
use std::{ptr, thread};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
/// A pipe holds this many pieces unless told otherwise (PIPE_DEF_BUFFERS, fs/pipe.c in Linux).
const PIPE: usize = 16;

/// Takes memory, pins one page in each `stride` of it and gives the rest back; then waits until it is killed.
///
/// A page that was put into a pipe by vmsplice(2) stays where it is.
pub fn run(mebibytes: usize, stride: usize) -> ExitCode {
    match pin(mebibytes * MIB, stride * MIB) {
        Ok(pages) => println!("{pages} pages are in the way"),
        Err(error) => {
            eprintln!("probe: {error}");
            return ExitCode::FAILURE;
        }
    }
    loop {
        thread::park();
    }
}

fn pin(bytes: usize, stride: usize) -> io::Result<usize> {
    let memory = map(bytes)?;
    let pages: Vec<libc::iovec> = (0..bytes)
        .step_by(stride)
        .map(|offset| libc::iovec { iov_base: memory.wrapping_byte_add(offset), iov_len: PAGE })
        .collect();
    pages.chunks(PIPE).try_for_each(fill_pipe)?;
    // SAFETY: mapped above, and no reference to it is left.
    check(unsafe { libc::munmap(memory, bytes) })?;
    Ok(pages.len())
}

/// Memory in single pages, all there.
fn map(bytes: usize) -> io::Result<*mut libc::c_void> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory at an address of the kernel's choice, which nothing else uses.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        check(libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE))?;
        check(libc::madvise(memory, bytes, libc::MADV_POPULATE_WRITE))?;
        Ok(memory)
    }
}

/// Leaves the pages in a pipe that stays open.
fn fill_pipe(pages: &[libc::iovec]) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both ends; the pages are mapped, and not touched any more.
    let moved = unsafe {
        check(libc::pipe(ends.as_mut_ptr()))?;
        libc::vmsplice(ends[1], pages.as_ptr(), pages.len(), 0)
    };
    if moved == (pages.len() * PAGE) as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

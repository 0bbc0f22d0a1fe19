//! System calls of 32-bit programs.

use std::arch::global_asm;
use std::fs::File;
use std::io::{Error, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;

global_asm!(include_str!("compat.s"));

unsafe extern "C" {
    static probe_compat_start: u8;
    static probe_compat_end: u8;
}

/// Where the program is linked.
const BASE: u32 = 0x0804_8000;
const HEADERS: u32 = 52 + 2 * 32;

/// A 32-bit program in memory.
pub struct Compat(File);

impl Compat {
    /// Makes the program.
    pub fn new() -> Result<Self> {
        // SAFETY: makes a file in memory.
        let file = unsafe { libc::memfd_create(c"compat".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a file of our own.
        let mut file = unsafe { File::from_raw_fd(file) };
        file.write_all(&program())?;
        Ok(Self(file))
    }

    /// True when a run of it found nothing wrong.
    pub fn holds(&self) -> Result<bool> {
        Ok(Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd())).status()?.success())
    }
}

/// An executable for i386 of one segment (System V ABI, chapters 4 and 5), and a note that its stack is no code.
fn program() -> Vec<u8> {
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    const STACK: u32 = 0x6474_e551;
    let code = code();
    let size = HEADERS + code.len() as u32;
    let half = |first: u32, second: u32| first | second << 16;
    let start = [BASE + HEADERS, 52, 0, 0, half(52, 32), half(2, 40), 0];
    let load = [1, 0, BASE, BASE, size, size, READ_EXECUTE, 4096];
    let stack = [STACK, 0, 0, 0, 0, 0, READ_WRITE, 16];
    let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for word in [half(2, 3), 1].iter().chain(&start).chain(&load).chain(&stack) {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(code);
    bytes
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const probe_compat_start, &raw const probe_compat_end);
    // SAFETY: both ends of what `compat.s` assembles.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

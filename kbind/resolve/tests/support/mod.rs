//! Writers of small kernels and objects for the tests.
#![allow(dead_code, reason = "each test uses a part")]

pub mod btf;
pub mod elf;
pub mod host;
pub mod kallsyms;
pub mod kernel;
pub mod object;
pub mod record;
pub mod samples;

/// Appends zeros up to a multiple of `align`.
pub fn pad(bytes: &mut Vec<u8>, align: usize) {
    bytes.resize(bytes.len().next_multiple_of(align), 0);
}

//! Writing to guest memory.

use crate::LoadError;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];

/// Fills `len` bytes at `gpa` with zeros.
pub(crate) fn zero(memory: &impl GuestMemoryBackend, gpa: u64, len: u64) -> Result<(), LoadError> {
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(ZEROS.len() as u64);
        write(memory, gpa + done, &ZEROS[..piece as usize])?;
        done += piece;
    }
    Ok(())
}

/// Copies `bytes` to `gpa`.
pub(crate) fn write(memory: &impl GuestMemoryBackend, gpa: u64, bytes: &[u8]) -> Result<(), LoadError> {
    Ok(memory.write_slice(bytes, GuestAddress(gpa))?)
}

/// Writes one page of 512 little-endian words.
pub(crate) fn write_table(
    memory: &impl GuestMemoryBackend,
    gpa: u64,
    table: &[u64; 512],
) -> Result<(), LoadError> {
    let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write(memory, gpa, &bytes)
}

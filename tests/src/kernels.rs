//! Kernels with something wrong, made from a real one.

use anyhow::{Context, Result, ensure};
use kbind_resolve::KernelImage;

/// Offset of `xloadflags` in a bzImage (Documentation/arch/x86/boot.rst).
const XLOADFLAGS: usize = 0x236;
const XLF_KERNEL_64: u8 = 1;
/// What a kernel has when its paravirt operations cover the whole CPU (CONFIG_PARAVIRT_XXL).
const XXL_FIELD: &[u8] = b"\0write_idt_entry\0";
/// Little-endian magic of BTF, its version and its flags (Documentation/bpf/btf.rst).
const BTF_HEADER: &[u8] = b"\x9f\xeb\x01\x00\x18\x00\x00\x00";

/// A bzImage as a kernel for i386 has it: without a 64-bit entry point.
pub fn for_i386(vmlinuz: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vmlinuz.to_vec();
    let flags = bytes.get_mut(XLOADFLAGS).context("the kernel has no setup header")?;
    ensure!(*flags & XLF_KERNEL_64 != 0, "the kernel has no 64-bit entry point to begin with");
    *flags &= !XLF_KERNEL_64;
    Ok(bytes)
}

/// An uncompressed kernel without the table of tokens from which the names of kallsyms are made.
pub fn without_kallsyms(image: &KernelImage) -> Result<Vec<u8>> {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    let mut bytes = image.vmlinux().to_vec();
    ensure!(replace(&mut bytes, &digits, &[0; 20]) > 0, "no token table");
    Ok(bytes)
}

/// An uncompressed kernel without BTF: neither section nor symbols lead to any.
pub fn without_btf(image: &KernelImage) -> Result<Vec<u8>> {
    let mut bytes = image.vmlinux().to_vec();
    // The name of the section, and the kernel's own copy of it.
    ensure!(replace(&mut bytes, b"\0.BTF\0", b"\0.btf\0") > 0, "no section .BTF");
    let find = |name| image.symbols().find_one(name).with_context(|| format!("no symbol {name}"));
    let (text, start, stop) = (find("_text")?, find("__start_BTF")?, find("__stop_BTF")?);
    // kallsyms_offsets: addresses after the base are stored as their distance, negative less one (kernel/kallsyms.c).
    let stored = |address: u64| (-((address - text) as i64) - 1) as i32;
    let count = replace(&mut bytes, &stored(stop).to_le_bytes(), &stored(start).to_le_bytes());
    ensure!(count > 0, "__stop_BTF is not in kallsyms_offsets");
    Ok(bytes)
}

/// An uncompressed kernel whose BTF is overwritten.
pub fn with_damaged_btf(image: &KernelImage) -> Result<Vec<u8>> {
    let mut bytes = image.vmlinux().to_vec();
    ensure!(replace(&mut bytes, BTF_HEADER, &[0; 8]) > 0, "no BTF");
    Ok(bytes)
}

/// An uncompressed kernel whose paravirt operations lack what CONFIG_PARAVIRT_XXL adds.
pub fn without_paravirt_xxl(image: &KernelImage) -> Result<Vec<u8>> {
    let mut bytes = image.vmlinux().to_vec();
    ensure!(replace(&mut bytes, XXL_FIELD, b"\0write_nothing__\0") > 0, "no name of the operation in BTF");
    Ok(bytes)
}

/// Replaces every `old` by `new`, which is as long; returns how often.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> usize {
    let mut count = 0;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memmem::find(rest, old)) {
        at += found;
        bytes[at..at + old.len()].copy_from_slice(new);
        at += old.len();
        count += 1;
    }
    count
}

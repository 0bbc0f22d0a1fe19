//! The window: its page table and the pages that the loader fills.

use crate::{
    HostFacts, LoadError, Placement,
    memory::{write, write_table, zero},
};
use colinux_abi::{
    ABI_VERSION, MAX_DEVICES, MAX_EXTENTS, MAX_VCPUS, PAGE_SIZE,
    ioctl::Extent,
    page::{MAGIC, VmPage},
    window::{
        BASE, CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE, DEVICE_PAGES, EXTENTS, OBJECT,
        PAGE_TABLE, SIZE, VCPU_PAGES, VM_PAGE,
    },
};
use kbind_resolve::ObjectSegment;
use std::mem::{offset_of, size_of};
use vm_memory::GuestMemoryBackend;

/// Present, accessed (Intel SDM volume 3, 4.5).
const READ: u64 = 0x21;
/// Writable, dirty.
const WRITE: u64 = 0x42;
const NO_EXECUTE: u64 = 1 << 63;
const EXTENT_TABLE: u64 = MAX_EXTENTS as u64 * size_of::<Extent>() as u64;

/// Parts of the window that are guest RAM: offset and bytes. All are data.
const DATA: [(u64, u64); 7] = [
    (VM_PAGE, PAGE_SIZE),
    (PAGE_TABLE, PAGE_SIZE),
    (EXTENTS, EXTENT_TABLE),
    (VCPU_PAGES, MAX_VCPUS as u64 * PAGE_SIZE),
    (DEVICE_PAGES, MAX_DEVICES as u64 * PAGE_SIZE),
    (CONSOLE_OUT, CONSOLE_OUT_SIZE),
    (CONSOLE_IN, CONSOLE_IN_SIZE),
];

/// The page table of a window at guest-physical `gpa`. The driver enters its own pages later.
pub(crate) fn page_table(gpa: u64, object: &[ObjectSegment]) -> Result<[u64; 512], LoadError> {
    let mut table = [0; 512];
    for (offset, len) in DATA {
        fill(&mut table, gpa, offset, len, READ | WRITE | NO_EXECUTE);
    }
    for segment in object {
        let offset = object_offset(segment)?;
        let write = if segment.writable { WRITE } else { 0 };
        let no_execute = if segment.executable { 0 } else { NO_EXECUTE };
        fill(&mut table, gpa, offset, segment.memsz, READ | write | no_execute);
    }
    Ok(table)
}

fn fill(table: &mut [u64; 512], gpa: u64, offset: u64, len: u64, flags: u64) {
    let first = offset / PAGE_SIZE;
    let end = (offset + len).div_ceil(PAGE_SIZE);
    for (page, entry) in (first..end).zip(&mut table[first as usize..]) {
        *entry = (gpa + page * PAGE_SIZE) | flags;
    }
}

/// Offset of a segment in the window, checked to lie in the object's part.
fn object_offset(segment: &ObjectSegment) -> Result<u64, LoadError> {
    let offset = segment.vaddr.checked_sub(BASE).filter(|offset| *offset >= OBJECT);
    let end = offset.and_then(|offset| offset.checked_add(segment.memsz)).filter(|end| *end <= SIZE);
    match (offset, end) {
        (Some(offset), Some(_)) if segment.bytes.len() as u64 <= segment.memsz => Ok(offset),
        _ => Err(LoadError::BadObject),
    }
}

/// Writes the whole window but the device pages, which the daemon fills, and the driver's own pages.
pub(crate) fn write_window(
    memory: &impl GuestMemoryBackend,
    placement: &Placement,
    host: &HostFacts,
    object: &[ObjectSegment],
) -> Result<(), LoadError> {
    let gpa = placement.window;
    zero(memory, gpa, SIZE)?;
    write_table(memory, gpa + PAGE_TABLE, &page_table(gpa, object)?)?;
    let extents: Vec<u8> = placement
        .extents
        .iter()
        .flat_map(|extent| [extent.gpa.to_le_bytes(), extent.len.to_le_bytes()])
        .flatten()
        .collect();
    if extents.len() as u64 > EXTENT_TABLE {
        return Err(LoadError::Pieces(placement.extents.len()));
    }
    write(memory, gpa + EXTENTS, &extents)?;
    write_vm_page(memory, placement, host)?;
    object.iter().try_for_each(|segment| write(memory, gpa + object_offset(segment)?, &segment.bytes))
}

fn write_vm_page(
    memory: &impl GuestMemoryBackend,
    placement: &Placement,
    host: &HostFacts,
) -> Result<(), LoadError> {
    let at = placement.window + VM_PAGE;
    let word = |offset: usize, value: u64| write(memory, at + offset as u64, &value.to_le_bytes());
    let half = |offset: usize, value: u32| write(memory, at + offset as u64, &value.to_le_bytes());
    word(offset_of!(VmPage, magic), MAGIC)?;
    half(offset_of!(VmPage, abi_version), ABI_VERSION)?;
    half(offset_of!(VmPage, vcpu_count), host.vcpu_count)?;
    half(offset_of!(VmPage, extent_count), placement.extents.len() as u32)?;
    half(offset_of!(VmPage, device_count), host.device_count)?;
    word(offset_of!(VmPage, window_gpa), placement.window)?;
    word(offset_of!(VmPage, tsc_khz), host.tsc_khz)?;
    word(offset_of!(VmPage, features), host.features)
}

#[cfg(test)]
mod tests {
    use super::*;
    use colinux_abi::window::{PASSAGE_CODE, PASSAGE_DATA};

    fn segment(vaddr: u64, memsz: u64, executable: bool, writable: bool) -> ObjectSegment {
        ObjectSegment { vaddr, bytes: vec![0xcc; 16], memsz, executable, writable }
    }

    #[test]
    fn code_is_never_writable_and_the_drivers_pages_are_left_free() {
        let object = [
            segment(BASE + OBJECT, 0x1800, true, false),
            segment(BASE + OBJECT + 0x2000, 0x1001, false, true),
        ];
        let gpa = 0x4020_0000;
        let table = page_table(gpa, &object).unwrap();
        let index = |offset: u64| (offset / PAGE_SIZE) as usize;
        assert_eq!(table[index(OBJECT)], (gpa + OBJECT) | READ);
        assert_eq!(table[index(OBJECT) + 1], (gpa + OBJECT + 0x1000) | READ);
        assert_eq!(table[index(OBJECT) + 3], (gpa + OBJECT + 0x3000) | READ | WRITE | NO_EXECUTE);
        assert_eq!(table[index(OBJECT) + 4], 0);
        assert_eq!(table[index(CONSOLE_IN)], (gpa + CONSOLE_IN) | READ | WRITE | NO_EXECUTE);
        assert!(table[index(PASSAGE_DATA)..=index(PASSAGE_CODE)].iter().all(|entry| *entry == 0));
        assert!(table.iter().all(|entry| entry & 2 == 0 || entry & NO_EXECUTE != 0));
    }

    #[test]
    fn an_object_outside_its_place_is_refused() {
        for (vaddr, memsz) in [
            (BASE + OBJECT - 0x1000, 0x1000),
            (BASE + SIZE - 0x1000, 0x1001),
            (u64::MAX - 0xfff, 0x2000),
            (0x1000, 0x1000),
            (BASE + OBJECT, 8),
        ] {
            let refused = page_table(0x4000_0000, &[segment(vaddr, memsz, true, false)]);
            assert!(matches!(refused, Err(LoadError::BadObject)), "{vaddr:#x}");
        }
    }
}

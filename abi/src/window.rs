//! The window: 2 MiB of guest virtual address space that the loader adds to the guest kernel's own page tables.
//!
//! It is slot 448 of the kernel's `level2_fixmap_pgt` (near the top of the module area). The loader writes that one entry
//! before the kernel starts; no kernel code touches the slot afterwards, it is within rel32 reach of kernel text, and every
//! page table of the guest shares it. Behind the entry is one page table ([`PAGE_TABLE`]), whose pages are:
//!
//! ```text
//!  offset    pages  what                                 memory
//!  0x000000      1  VmPage                               guest RAM
//!  0x001000      1  the window's own page table          guest RAM
//!  0x002000      8  extent table                         guest RAM
//!  0x00a000      6  (unused)
//!  0x010000     64  VcpuPage of vCPU 0..63               guest RAM
//!  0x050000     32  DevicePage of device 0..31           guest RAM
//!  0x070000      8  console output ring                  guest RAM
//!  0x078000      1  console input ring                   guest RAM
//!  0x079000      7  (unused)
//!  0x080000     64  passage data of vCPU 0..63           the driver's own pages, mapped by the driver
//!  0x0c0000      1  passage code                         the driver's own page, mapped by the driver
//!  0x0c1000     63  (unused)
//!  0x100000    256  the guest object                     guest RAM
//! ```
//!
//! The RAM under the window is one contiguous, 2 MiB aligned piece; where the driver maps pages of its own, that RAM is unused.

use crate::{MAX_DEVICES, MAX_VCPUS, PAGE_SIZE};

/// Guest virtual address of the window.
pub const BASE: u64 = 0xffff_ffff_f800_0000;
/// Bytes of the window.
pub const SIZE: u64 = 2 << 20;
/// Index of the window's entry in the kernel's `level2_fixmap_pgt`.
pub const FIXMAP_SLOT: usize = ((BASE >> 21) & 511) as usize;

/// Offset of the [`crate::page::VmPage`].
pub const VM_PAGE: u64 = 0;
/// Offset of the page table that maps the window.
pub const PAGE_TABLE: u64 = 0x1000;
/// Offset of the extent table: [`crate::ioctl::Extent`] entries, sorted by address.
pub const EXTENTS: u64 = 0x2000;
/// Offset of the first [`crate::page::VcpuPage`].
pub const VCPU_PAGES: u64 = 0x1_0000;
/// Offset of the first [`crate::device::DevicePage`].
pub const DEVICE_PAGES: u64 = 0x5_0000;
/// Offset of the console output ring (guest to daemon).
pub const CONSOLE_OUT: u64 = 0x7_0000;
/// Bytes of the console output ring, a power of two.
pub const CONSOLE_OUT_SIZE: u64 = 0x8000;
/// Offset of the console input ring (daemon to guest).
pub const CONSOLE_IN: u64 = 0x7_8000;
/// Bytes of the console input ring, a power of two.
pub const CONSOLE_IN_SIZE: u64 = 0x1000;
/// Offset of the passage data page of vCPU 0.
pub const PASSAGE_DATA: u64 = 0x8_0000;
/// Offset of the passage code page. Its first byte is the guest's way out.
pub const PASSAGE_CODE: u64 = 0xc_0000;
/// Offset at which the guest object is linked.
pub const OBJECT: u64 = 0x10_0000;
/// Most bytes of the loaded guest object.
pub const OBJECT_SIZE: u64 = SIZE - OBJECT;

/// Guest virtual address of the shared page of vCPU `index`.
pub const fn vcpu_page(index: usize) -> u64 {
    BASE + VCPU_PAGES + index as u64 * PAGE_SIZE
}

/// Guest virtual address of the register page of device `index`.
pub const fn device_page(index: usize) -> u64 {
    BASE + DEVICE_PAGES + index as u64 * PAGE_SIZE
}

/// Guest virtual address of the passage data page of vCPU `index`.
pub const fn passage_data(index: usize) -> u64 {
    BASE + PASSAGE_DATA + index as u64 * PAGE_SIZE
}

const _: () = {
    assert!(FIXMAP_SLOT == 448);
    assert!(BASE.is_multiple_of(SIZE));
    assert!(VCPU_PAGES + MAX_VCPUS as u64 * PAGE_SIZE <= DEVICE_PAGES);
    assert!(DEVICE_PAGES + MAX_DEVICES as u64 * PAGE_SIZE <= CONSOLE_OUT);
    assert!(CONSOLE_OUT + CONSOLE_OUT_SIZE <= CONSOLE_IN);
    assert!(CONSOLE_IN + CONSOLE_IN_SIZE <= PASSAGE_DATA);
    assert!(PASSAGE_DATA + MAX_VCPUS as u64 * PAGE_SIZE <= PASSAGE_CODE);
    assert!(PASSAGE_CODE + PAGE_SIZE <= OBJECT);
    assert!(CONSOLE_OUT_SIZE.is_power_of_two() && CONSOLE_IN_SIZE.is_power_of_two());
};

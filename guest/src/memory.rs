//! Memory: the extents that the host gave become the kernel's memory map; the window stays ours.

use crate::console;
use crate::hypercall::{shutdown, vm};
use crate::room::{Room, peek, poke};
use colinux_abi::hypercall::shutdown;
use colinux_abi::ioctl::Extent;
use colinux_abi::page::order::MEMORY_BLOCK;
use colinux_abi::{MAX_EXTENTS, window};
use core::mem::size_of;

const REGION_SIZE: usize = 24;
/// Entries of the arrays that replace memblock's: each extent may be split a few times. A whole number of pages, as memblock frees them.
const REGIONS: usize = 8192;
const VM_STRUCT_ROOM: usize = 128;
/// Static entries of memblock (INIT_MEMBLOCK_REGIONS) less those that the kernel itself needs.
const FEW_EXTENTS: usize = 96;

kbind::sizes! {
    static VM_STRUCT_SIZE = "vm_struct" <= VM_STRUCT_ROOM;
    static MEMBLOCK_REGION_SIZE = "memblock_region" <= REGION_SIZE;
}

kbind::fields! {
    static VM_ADDR: u64 = "vm_struct.addr";
    static VM_SIZE: u64 = "vm_struct.size";
    static VM_FLAGS: u64 = "vm_struct.flags";
}

kbind::enums! {
    static E820_TYPE_RAM = "E820_TYPE_RAM";
}

kbind::symbols! {
    static E820_TABLE = "e820_table";
    static PAGE_OFFSET_BASE = "page_offset_base";
    static PHYS_BASE = "phys_base";
    static MEMORY_COUNT = "memblock+memblock.memory.cnt";
    static MEMORY_MAX = "memblock+memblock.memory.max";
    static MEMORY_REGIONS = "memblock+memblock.memory.regions";
    static RESERVED_COUNT = "memblock+memblock.reserved.cnt";
    static RESERVED_MAX = "memblock+memblock.reserved.max";
    static RESERVED_REGIONS = "memblock+memblock.reserved.regions";
    static LEVEL2_FIXMAP = "level2_fixmap_pgt";
    /// Only in kernels that can isolate page tables (arch/x86/mm/pti.c).
    static PTI_INIT: optional = "pti_init";
}

kbind::functions! {
    fn e820_range_add(start: u64, size: u64, kind: u32) = "e820__range_add";
    fn e820_update_table(table: u64) -> i32 = "e820__update_table";
    optional fn memblock_reserve(base: u64, size: u64) -> i32;
    optional fn memblock_reserve_on_node(base: u64, size: u64, node: i32, flags: u32) -> i32 = "__memblock_reserve";
    fn vm_area_add_early(area: *mut u8);
    optional fn set_memory_block_size_order(order: u32) -> i32;
    optional fn pti_user_pagetable_walk_pmd(address: u64) -> *mut u64;
}

/// An array that may be handed to memblock: page aligned.
#[repr(C, align(4096))]
struct Regions(Room<{ REGIONS * REGION_SIZE }>);

static MEMORY: Regions = Regions(Room::new());
static RESERVED: Regions = Regions(Room::new());
static WINDOW_AREA: Room<VM_STRUCT_ROOM> = Room::new();

/// VM_IOREMAP (include/linux/vmalloc.h): nothing frees or merges such an area, and `/proc/vmallocinfo` tells it apart.
const VM_IOREMAP: u64 = 1;
/// MEMBLOCK_ALLOC_ANYWHERE's node (NUMA_NO_NODE), for kernels that ask.
const NO_NODE: i32 = -1;

/// The extents, sorted by address.
pub fn extents() -> &'static [Extent] {
    let count = (vm().extent_count as usize).min(MAX_EXTENTS);
    // SAFETY: the loader has filled the table before the first instruction; nobody writes it while the guest runs.
    unsafe { core::slice::from_raw_parts((window::BASE + window::EXTENTS) as *const Extent, count) }
}

/// Guest-physical address of a place in the kernel image (`__pa_symbol`): `__START_KERNEL_map` is part of the x86-64 memory map.
pub fn image_gpa(address: u64) -> u64 {
    // SAFETY: a variable of the kernel that does not change after the first instructions.
    address - 0xffff_ffff_8000_0000 + unsafe { peek::<u64>(PHYS_BASE.addr()) }
}

/// Guest-physical address of a place in the object (the window is one contiguous piece).
fn object_gpa(address: u64) -> u64 {
    vm().window_gpa + (address - window::BASE)
}

/// Address of guest-physical memory in the kernel's direct map.
fn direct_map(gpa: u64) -> u64 {
    // SAFETY: set before the memory map is made, constant since.
    gpa + unsafe { peek::<u64>(PAGE_OFFSET_BASE.addr()) }
}

/// Has the kernel take memory in as small pieces as it can while it runs: by itself it would want up to 2 GiB at once on a large machine. In the boot.
fn choose_small_blocks() {
    if let Some(set) = set_memory_block_size_order() {
        // SAFETY: in the boot, before the first use of the size (`memory_dev_init()`).
        unsafe { set(MEMORY_BLOCK.ilog2()) };
    }
}

/// Makes the memory map.
pub fn setup() {
    choose_small_blocks();
    if extents().len() > FEW_EXTENTS {
        enlarge_memblock();
    }
    // SAFETY: this is the place to call them (`e820__memory_setup`), nothing runs beside us.
    unsafe {
        for extent in extents() {
            e820_range_add(extent.gpa, extent.len, E820_TYPE_RAM.get() as u32);
        }
        e820_update_table(peek(E820_TABLE.addr()));
        reserve(vm().window_gpa, window::SIZE);
        let area = WINDOW_AREA.ptr();
        VM_ADDR.write(area, window::BASE);
        VM_SIZE.write(area, window::SIZE);
        VM_FLAGS.write(area, VM_IOREMAP);
        vm_area_add_early(area);
    }
}

/// # Safety
/// While memblock is in use.
unsafe fn reserve(gpa: u64, length: u64) {
    // SAFETY: passed on to the caller.
    unsafe {
        if let Some(reserve) = memblock_reserve() {
            reserve(gpa, length);
        } else if let Some(reserve) = memblock_reserve_on_node() {
            reserve(gpa, length, NO_NODE, 0);
        }
    }
}

/// memblock starts with 128 static entries, and can only grow into memory that it already has, below 1 MiB at this time. It gets arrays of ours, by
/// their address in the direct map: `memblock_discard()` gives them to the page allocator in the end, when nobody else uses them.
fn enlarge_memblock() {
    let room = |regions: &'static Regions| direct_map(object_gpa(regions.0.addr()));
    // SAFETY: nothing runs beside us; the old arrays hold `cnt` entries (at least one), the new ones are larger.
    unsafe {
        for (count, max, regions, new) in [
            (&MEMORY_COUNT, &MEMORY_MAX, &MEMORY_REGIONS, &MEMORY),
            (&RESERVED_COUNT, &RESERVED_MAX, &RESERVED_REGIONS, &RESERVED),
        ] {
            let entry = MEMBLOCK_REGION_SIZE.get();
            let used = peek::<u64>(count.addr()).max(1) as usize;
            let old = peek::<u64>(regions.addr()) as *const u8;
            old.copy_to_nonoverlapping(new.0.ptr(), used * entry);
            poke(regions.addr(), room(new));
            poke(max.addr(), REGIONS as u64);
        }
    }
}

/// With page table isolation, interrupts from user mode run the stubs on the user page table: it gets the window, too.
/// All user tables share this part with the kernel's (arch/x86/mm/pti.c, `pgd_ctor()`), so once is enough, before the first process.
pub fn map_in_user_tables() {
    let Some(walk) = pti_user_pagetable_walk_pmd() else {
        return if PTI_INIT.addr().is_some() {
            refuse_isolation()
        };
    };
    let entry = LEVEL2_FIXMAP.addr() + (window::FIXMAP_SLOT * size_of::<u64>()) as u64;
    // SAFETY: without isolation this fills tables that nobody loads; the page allocator is up.
    unsafe {
        let user = walk(window::BASE);
        if user.is_null() {
            refuse_isolation();
        }
        user.write_volatile(peek(entry));
    }
}

/// The first interrupt from user mode would find no stub.
fn refuse_isolation() -> ! {
    console::print(format_args!(
        "colinux: the page tables of programs cannot be had in this kernel (no pti_user_pagetable_walk_pmd): use another kernel\n"
    ));
    shutdown(shutdown::REFUSED)
}

//! Memory.

use super::Opaque;

kbind::imports! {
    pub fn vmalloc(bytes: u64) -> *mut u8 = "vmalloc|vmalloc_noprof";
    pub fn vfree(address: *const u8);
    pub fn vmalloc_to_page(address: *const u8) -> Opaque;
    pub fn get_free_pages(gfp: u32, order: u32) -> u64 = "__get_free_pages|get_free_pages_noprof";
    pub fn free_pages(address: u64, order: u32);
    pub fn alloc_contig_range(start: u64, end: u64, kind: u32, gfp: u32) -> i32
        = "alloc_contig_range|alloc_contig_range_noprof";
    pub optional fn generic_online_page(page: Opaque, order: u32);
    pub optional fn adjust_managed_page_count(page: Opaque, pages: i64);
    pub optional fn pfn_to_online_page(pfn: u64) -> Opaque;
    pub fn page_is_ram(pfn: u64) -> i32;
    pub fn vm_insert_pages(vma: Opaque, address: u64, pages: *mut Opaque, count: *mut u64) -> i32;
    pub fn unmap_mapping_range(mapping: Opaque, from: i64, bytes: i64, also_private: i32);
    pub fn copy_from_user(to: *mut u8, from: u64, bytes: u64) -> u64 = "_copy_from_user";
    pub fn copy_to_user(to: u64, from: *const u8, bytes: u64) -> u64 = "_copy_to_user";
    pub fn si_mem_available() -> i64;
    pub static page_offset_base: u64;
    pub static vmemmap_base: u64;
    pub static _totalram_pages: i64;
    pub optional static node_data: [Opaque; 0];
    pub optional static nr_node_ids: u32;
    pub optional static contig_page_data: u8;
}

kbind::fields! {
    pub static VMA_START: u64 = "vm_area_struct.vm_start";
    pub static VMA_END: u64 = "vm_area_struct.vm_end";
    /// Pages.
    pub static VMA_OFFSET: u64 = "vm_area_struct.vm_pgoff";
    pub static VMA_FILE: Opaque = "vm_area_struct.vm_file";
    pub static VMA_OPERATIONS: Opaque = "vm_area_struct.vm_ops";
    pub static VM_OPERATIONS_FAULT: u64 = "vm_operations_struct.fault";
    pub static FAULT_VMA: Opaque = "vm_fault.vma";
    /// Of the page.
    pub static FAULT_ADDRESS: u64 = "vm_fault.address";
    /// Pages.
    pub static FAULT_OFFSET: u64 = "vm_fault.pgoff";
    pub static PAGE_REFERENCES: i32 = "page._refcount";
    pub static NODE_ZONES: () = "pglist_data.node_zones";
    /// Page frame number.
    pub static ZONE_START: u64 = "zone.zone_start_pfn";
    /// Pages, with holes.
    pub static ZONE_SPAN: u64 = "zone.spanned_pages";
}

/// Room for `struct vm_operations_struct`.
pub const VM_OPERATIONS: usize = 256;

kbind::sizes! {
    pub static VM_OPERATIONS_SIZE = "vm_operations_struct" <= VM_OPERATIONS;
    pub static PAGE_STRUCT = "page" <= 1024;
    pub static ZONE_SIZE = "zone" <= 65536;
}

kbind::enums! {
    pub static MIGRATE_MOVABLE = "MIGRATE_MOVABLE";
    pub static ZONES = "__MAX_NR_ZONES";
    pub static FAULT_SIGBUS = "VM_FAULT_SIGBUS";
    pub static FAULT_OOM = "VM_FAULT_OOM";
    pub static FAULT_NOPAGE = "VM_FAULT_NOPAGE";
    pub static GFP_IO: optional = "___GFP_IO_BIT";
    pub static GFP_FS: optional = "___GFP_FS_BIT";
    pub static GFP_DIRECT: optional = "___GFP_DIRECT_RECLAIM_BIT";
    pub static GFP_KSWAPD: optional = "___GFP_KSWAPD_RECLAIM_BIT";
    pub static GFP_NOWARN: optional = "___GFP_NOWARN_BIT";
}

kbind::params! {
    /// The third parameter, once a migrate type, is a set of flags: none.
    pub static CONTIG_TAKES_FLAGS = "alloc_contig_range|alloc_contig_range_noprof" 2 "alloc_flags";
}

/// GFP_KERNEL | __GFP_NOWARN. Bit numbers are enumerators since the kernel that began to move them (6.10); before, these were fixed (include/linux/gfp_types.h).
pub fn gfp_kernel() -> u32 {
    let bits = [(&GFP_IO, 6), (&GFP_FS, 7), (&GFP_DIRECT, 10), (&GFP_KSWAPD, 11), (&GFP_NOWARN, 13)];
    bits.iter().fold(0, |gfp, (slot, before)| gfp | 1 << slot.get().unwrap_or(*before))
}

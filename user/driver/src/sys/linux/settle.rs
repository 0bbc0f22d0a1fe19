//! Pages that their CPU has not yet put on the lists where they can be moved.

/// Has every CPU put them there, as the kernel does first thing in migrate_pages(2) (`do_migrate_pages()`), which is asked to move from node 0 to node 0: nothing.
/// A page on no list counts as one that cannot be moved (`has_unmovable_pages()`), and may stay so for long where the CPU has little to do.
pub(crate) fn settle_pages() {
    let (node_zero, bits) = (1_u64, u64::BITS);
    // SAFETY: both masks have `bits` bits and are only read; process 0 is this one. A kernel without NUMA does not know the call, and then nothing happens.
    unsafe {
        libc::syscall(libc::SYS_migrate_pages, 0, u64::from(bits), &raw const node_zero, &raw const node_zero)
    };
}

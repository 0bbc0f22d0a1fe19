//! The heap of the daemon.

/// Blocks above this size (bytes) are mappings of their own, which go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 << 10;

/// Has the allocator give large blocks back as soon as they are freed. Without it, glibc learns from the first large block to
/// keep them (mallopt(3), "dynamic mmap threshold"), and the memory in which a kernel was unpacked would stay with the daemon.
pub fn return_freed_memory() {
    // SAFETY: changes a parameter of the allocator, at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE)
    };
}

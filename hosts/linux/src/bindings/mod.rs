//! What we need of the kernel, by name; `kbind-resolve` checks each against the running kernel's exports and BTF.
//!
//! The pointers are plain bytes: the structures behind them are reached by the fields that BTF gives, or not at all.

pub mod cpu;
pub mod file;
pub mod memory;
pub mod sched;
pub mod time;

/// A kernel structure that this code does not know.
pub type Opaque = *mut u8;

/// Error number of a pointer that is an error (include/linux/err.h: the last page of the address space).
pub fn pointer_error(pointer: Opaque) -> Option<i32> {
    const MAX_ERRNO: i64 = 4095;
    let value = pointer as i64;
    (-MAX_ERRNO..0).contains(&value).then_some(-value as i32)
}

/// Room for a kernel structure that lives in our memory; larger ones are refused by the loader.
#[repr(C, align(64))]
pub struct Room<const SIZE: usize>(core::cell::UnsafeCell<[u8; SIZE]>);

// SAFETY: only bytes for the kernel, which locks them itself.
unsafe impl<const SIZE: usize> Sync for Room<SIZE> {}
// SAFETY: bytes.
unsafe impl<const SIZE: usize> colinux_monitor::ZeroInit for Room<SIZE> {}

impl<const SIZE: usize> Room<SIZE> {
    /// All zero.
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new([0; SIZE]))
    }

    /// The structure.
    pub const fn get(&self) -> Opaque {
        self.0.get().cast()
    }
}

/// Makes a `struct list_head` an empty list (include/linux/list.h: INIT_LIST_HEAD).
///
/// # Safety
/// `list` points to two writable words that nobody uses yet.
pub unsafe fn init_list_head(list: *mut [u64; 2]) {
    // SAFETY: by contract.
    unsafe { list.write([list as u64; 2]) };
}

//! Room for kernel structures that the object owns.

use core::cell::UnsafeCell;

/// Zeroed, over-sized room for a kernel structure, whose true size is checked by a `kbind::sizes!` slot.
#[repr(C, align(64))]
pub struct Room<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: the object hands out raw pointers only; who writes when is said at each use.
unsafe impl<const N: usize> Sync for Room<N> {}

impl<const N: usize> Room<N> {
    /// Zeroed room.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; N]))
    }

    /// Its address.
    pub const fn ptr(&self) -> *mut u8 {
        self.0.get().cast()
    }

    /// Its address as a number, for words of the kernel.
    pub fn addr(&self) -> u64 {
        self.ptr() as u64
    }
}

/// Writes a word of the kernel at an address that came from a slot.
///
/// # Safety
/// The address is that of a live, writable kernel variable of the type `T` that nobody else uses at this time.
pub unsafe fn poke<T>(address: u64, value: T) {
    // SAFETY: the caller vouches for the variable.
    unsafe { (address as *mut T).write_volatile(value) }
}

/// Whether a function of the kernel has returned an error in the place of a pointer (`IS_ERR()`, include/linux/err.h).
pub fn is_error(pointer: u64) -> bool {
    const LAST_PAGE: u64 = !0xfff;
    pointer > LAST_PAGE
}

/// Reads a word of the kernel at an address that came from a slot.
///
/// # Safety
/// The address is that of a live kernel variable of the type `T`.
pub unsafe fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: the caller vouches for the variable.
    unsafe { (address as *const T).read_volatile() }
}

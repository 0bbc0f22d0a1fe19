//! The driver's own memory: zeroed boxes and whole pages.

use crate::bindings::memory::{self, free_pages, get_free_pages, gfp_kernel, page_offset_base};
use colinux_abi::PAGE_SIZE;
use colinux_monitor::{HostError, ZeroInit};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A value in memory of its own, page aligned. One that is shared by raw pointers with callbacks of the kernel is only ever borrowed shared.
#[repr(transparent)]
pub struct KBox<T>(NonNull<T>);

// SAFETY: owns its value.
unsafe impl<T: Send> Send for KBox<T> {}

fn place<T>() -> Result<NonNull<T>, HostError> {
    const { assert!(align_of::<T>() <= PAGE_SIZE as usize) };
    // SAFETY: process context.
    NonNull::new(unsafe { memory::vmalloc(size_of::<T>() as u64) })
        .map(NonNull::cast)
        .ok_or(HostError::NoMemory)
}

impl<T: ZeroInit> KBox<T> {
    /// Makes one of all zero, in place: for what is too large for a stack. Process context.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn zeroed() -> Result<Self, HostError> {
        let place = place::<T>()?;
        // SAFETY: the memory is ours and this large.
        unsafe { place.write_bytes(0, 1) };
        Ok(Self(place))
    }
}

impl<T> KBox<T> {
    /// Makes one. Process context.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn new(value: T) -> Result<Self, HostError> {
        let place = place::<T>()?;
        // SAFETY: the memory is ours and this large.
        unsafe { place.write(value) };
        Ok(Self(place))
    }

    /// Gives the value away, to a file's private data.
    pub fn into_raw(self) -> *mut T {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }

    /// Takes it back.
    ///
    /// # Safety
    /// `raw` comes from [`Self::into_raw`], once.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: by contract.
        Self(unsafe { NonNull::new_unchecked(raw) })
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns it.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns it.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: the value is ours, and so is the memory.
        unsafe {
            self.0.drop_in_place();
            memory::vfree(self.0.as_ptr().cast());
        }
    }
}

/// Contiguous zeroed pages in the direct map.
pub struct Pages {
    address: u64,
    order: u32,
}

impl Pages {
    /// Takes at least `count` pages.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn zeroed(count: usize) -> Result<Self, HostError> {
        let order = count.next_power_of_two().trailing_zeros();
        // SAFETY: process context.
        let address = unsafe { get_free_pages(gfp_kernel(), order) };
        if address == 0 {
            return Err(HostError::NoMemory);
        }
        let pages = Self { address, order };
        // SAFETY: the pages are ours.
        unsafe { core::ptr::write_bytes(pages.at(0), 0, (PAGE_SIZE as usize) << order) };
        Ok(pages)
    }

    /// Where page `index` is.
    pub fn at(&self, index: usize) -> *mut u8 {
        (self.address + index as u64 * PAGE_SIZE) as *mut u8
    }

    /// Gives a single page away.
    pub fn into_address(self) -> u64 {
        let address = self.address;
        core::mem::forget(self);
        address
    }

    /// Takes it back.
    ///
    /// # Safety
    /// `address` comes from [`Self::into_address`] of a single page, once.
    pub unsafe fn from_address(address: u64) -> Self {
        Self { address, order: 0 }
    }

    /// Its physical address.
    pub fn physical(&self, index: usize) -> u64 {
        self.at(index) as u64 - direct_map()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        PAGE_SIZE << self.order
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: ours, nobody uses them any more.
        unsafe { free_pages(self.address, self.order) };
    }
}

/// Where the kernel maps all memory.
pub fn direct_map() -> u64 {
    // SAFETY: set at boot, constant since.
    unsafe { (&raw const page_offset_base).read() }
}

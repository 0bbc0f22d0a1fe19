//! The slots: eight-byte words in `.kbind.slots` that the loader writes before the object runs.

use crate::format::ABSENT;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

/// A word that the loader, or the object itself for late symbols, fills in.
#[repr(transparent)]
pub struct Slot(AtomicU64);

impl Slot {
    /// A slot that nobody has filled yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(ABSENT))
    }

    /// The value; [`ABSENT`] when the target does not exist.
    pub fn value(&self) -> u64 {
        // A volatile read: the initial value is all the compiler sees, and it is not the one at run time.
        // SAFETY: the pointer is that of a live atomic, which is only read.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    fn present(&self) -> Option<u64> {
        match self.value() {
            ABSENT => None,
            value => Some(value),
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! slot_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[repr(transparent)]
        pub struct $name(Slot);

        impl $name {
            #[doc(hidden)]
            pub const fn unfilled() -> Self {
                Self(Slot::new())
            }
        }
    };
}

slot_type!(
    /// Address of a kernel symbol.
    Symbol
);
slot_type!(
    /// Address of a kernel symbol that some kernels do not have.
    OptSymbol
);
slot_type!(
    /// Size of a kernel structure in bytes.
    Size
);
slot_type!(
    /// Size of a structure that some kernels do not have.
    OptSize
);
slot_type!(
    /// Value of a kernel enumerator.
    Enumerator
);
slot_type!(
    /// Value of an enumerator that some kernels do not have.
    OptEnumerator
);
slot_type!(
    /// A yes or no about the kernel.
    Flag
);
slot_type!(
    /// Address of a symbol in a kernel module, found at run time.
    Late
);

impl Symbol {
    /// Kernel virtual address (for hooks: the word that the hook replaced).
    pub fn addr(&self) -> u64 {
        self.0.value()
    }
}

impl OptSymbol {
    /// Kernel virtual address, if this kernel has the symbol.
    pub fn addr(&self) -> Option<u64> {
        self.0.present()
    }
}

impl Size {
    /// Bytes; never more than the bound given with the slot.
    pub fn get(&self) -> usize {
        self.0.value() as usize
    }
}

impl OptSize {
    /// Bytes, if this kernel has the structure; never more than the bound given with the slot.
    pub fn get(&self) -> Option<usize> {
        self.0.present().map(|size| size as usize)
    }
}

impl Enumerator {
    /// The value, sign extended.
    pub fn get(&self) -> u64 {
        self.0.value()
    }
}

impl OptEnumerator {
    /// The value, sign extended, if this kernel has the enumerator.
    pub fn get(&self) -> Option<u64> {
        self.0.present()
    }
}

impl Flag {
    /// True when the kernel is as the slot asks.
    pub fn get(&self) -> bool {
        self.0.value() == 1
    }
}

impl Late {
    /// Stores the address that the object has found.
    pub fn set(&self, address: u64) {
        self.0.0.store(address, Ordering::Release);
    }

    /// Forgets the address, because the module goes.
    pub fn clear(&self) {
        self.set(ABSENT);
    }

    /// The address, once it is known.
    pub fn addr(&self) -> Option<u64> {
        match self.0.0.load(Ordering::Acquire) {
            ABSENT => None,
            value => Some(value),
        }
    }
}

/// A field of a kernel structure; the loader has checked that it is `size_of::<T>()` bytes long.
#[repr(transparent)]
pub struct Field<T>(Slot, PhantomData<fn() -> T>);

/// A field that some kernels do not have.
#[repr(transparent)]
pub struct OptField<T>(Slot, PhantomData<fn() -> T>);

/// The place of a field that this kernel has.
pub struct FieldAt<T>(usize, PhantomData<fn() -> T>);

impl<T> Clone for FieldAt<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for FieldAt<T> {}

impl<T> FieldAt<T> {
    /// Bytes from the start of the structure.
    pub fn offset(self) -> usize {
        self.0
    }

    /// Address of the field in the structure at `base`.
    ///
    /// # Safety
    /// `base` points to a live structure of the type that the field belongs to.
    pub unsafe fn ptr(self, base: *mut u8) -> *mut T {
        // SAFETY: the offset lies inside the structure, says BTF; the caller vouches for the structure.
        unsafe { base.add(self.0) }.cast()
    }

    /// Reads the field.
    ///
    /// # Safety
    /// As [`FieldAt::ptr`], and nobody writes the field meanwhile.
    pub unsafe fn read(self, base: *const u8) -> T
    where
        T: Copy,
    {
        // SAFETY: the caller vouches for the structure; the size is checked by the loader.
        unsafe { self.ptr(base.cast_mut()).read_unaligned() }
    }

    /// Writes the field.
    ///
    /// # Safety
    /// As [`FieldAt::ptr`], the structure is writable, and nobody uses the field meanwhile.
    pub unsafe fn write(self, base: *mut u8, value: T) {
        // SAFETY: the caller vouches for the structure; the size is checked by the loader.
        unsafe { self.ptr(base).write_unaligned(value) }
    }
}

impl<T> Field<T> {
    #[doc(hidden)]
    pub const fn unfilled() -> Self {
        Self(Slot::new(), PhantomData)
    }

    /// The place of the field.
    pub fn at(&self) -> FieldAt<T> {
        FieldAt(self.0.value() as usize, PhantomData)
    }

    /// Bytes from the start of the structure.
    pub fn offset(&self) -> usize {
        self.at().offset()
    }

    /// Address of the field in the structure at `base`.
    ///
    /// # Safety
    /// As [`FieldAt::ptr`].
    pub unsafe fn ptr(&self, base: *mut u8) -> *mut T {
        // SAFETY: passed on to the caller.
        unsafe { self.at().ptr(base) }
    }

    /// Reads the field.
    ///
    /// # Safety
    /// As [`FieldAt::read`].
    pub unsafe fn read(&self, base: *const u8) -> T
    where
        T: Copy,
    {
        // SAFETY: passed on to the caller.
        unsafe { self.at().read(base) }
    }

    /// Writes the field.
    ///
    /// # Safety
    /// As [`FieldAt::write`].
    pub unsafe fn write(&self, base: *mut u8, value: T) {
        // SAFETY: passed on to the caller.
        unsafe { self.at().write(base, value) }
    }
}

impl<T> OptField<T> {
    #[doc(hidden)]
    pub const fn unfilled() -> Self {
        Self(Slot::new(), PhantomData)
    }

    /// The place of the field, if this kernel has it.
    pub fn get(&self) -> Option<FieldAt<T>> {
        self.0.present().map(|offset| FieldAt(offset as usize, PhantomData))
    }

    /// Writes the field if this kernel has it; tells whether it did.
    ///
    /// # Safety
    /// As [`FieldAt::write`].
    pub unsafe fn write_if(&self, base: *mut u8, value: T) -> bool {
        let Some(field) = self.get() else { return false };
        // SAFETY: passed on to the caller.
        unsafe { field.write(base, value) };
        true
    }
}

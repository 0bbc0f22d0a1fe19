//! Names instead of offsets: how a prebuilt kernel object learns what differs between kernels.
//!
//! An object says what it needs from a kernel (`"apic_noop"`, `"console.flags"`, the size of `apic`, a
//! function with these arguments) with the macros of this crate. Each one emits a *record* into
//! `.kbind.meta`, and, where a value comes back, a *slot* into `.kbind.slots`. The loader
//! (`kbind-resolve`) reads the records, finds the answers in kallsyms, the export tables and BTF of the
//! kernel image, checks all of them and fills the slots before the object runs.
//!
//! Two kinds of object exist:
//! * the *guest object* is fully linked; it uses [`symbols!`], [`functions!`], [`fields!`], [`sizes!`],
//!   [`enums!`], [`hooks!`] and [`late!`];
//! * the *host object* is relocatable and becomes a kernel module; it uses [`imports!`], [`params!`],
//!   [`module!`] and the slots above except hooks. A symbol in a slot must be an exported one there.
//!
//! In all names `a|b` means "a, or else b": the first that the kernel has is taken.
#![no_std]

pub mod format;
mod hooks;
mod macros;
mod module;
mod slot;

pub use slot::{
    Enumerator, Field, FieldAt, Flag, Late, OptEnumerator, OptField, OptSize, OptSymbol, Size, Slot, Symbol,
};

//! Answers what the kernel objects ask (see the crate `kbind`) from the image of a kernel.
//!
//! [`KernelImage`] unpacks a `vmlinuz` and indexes its own tables: kallsyms, BTF and exports. On top of it
//! [`link_guest`] fills the slots of the guest object for a kernel that is about to start, and
//! [`make_module`] turns the host object into a module for a kernel that runs. Both check everything an
//! object asks before they return, and list all that does not fit.
//!
//! Every image is untrusted input: a damaged one ends in an error that says what is wrong with it.
#![forbid(unsafe_code)]

mod answer;
mod btf;
mod bytes;
mod error;
mod exports;
mod guest;
mod image;
mod kallsyms;
mod layout;
mod module;
mod names;
mod payload;
mod records;
mod symbol_file;
mod vmlinux;
mod waits;

pub use btf::Btf;
pub use error::{ImageError, LinkError, Problem};
pub use exports::{Export, Exports};
pub use guest::{GuestLink, ObjectSegment, Poke, Wait, link_guest};
pub use image::{KernelImage, Segment, Unpack};
pub use kallsyms::Symbols;
pub use layout::{FieldLayout, Layout, LayoutError, OffsetFile, OffsetFileError, Prototype};
pub use module::make_module;
pub use payload::unpack;
pub use symbol_file::{SymbolAt, symbol_file};

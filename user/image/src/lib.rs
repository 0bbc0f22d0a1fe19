//! Makes disk images with a distribution in them.
//!
//! A [`Recipe`] says what is in an image, the [`System`] that follows from it how it is made: by mmdebstrap and mke2fs. An image is one ext4 file system that fills the disk.
//! An [`Import`] makes such an image of a system that exists as an archive or as the image of a container.
#![forbid(unsafe_code)]

mod commit;
mod container;
mod disk;
mod distribution;
mod end;
mod error;
mod export;
mod ext4;
mod fault;
mod file;
mod import;
mod initrd;
mod kernels;
mod package;
mod recipe;
mod references;
mod resize;
mod room;
mod system;
mod tools;
mod tree;
mod unpack;

pub use commit::commit;
pub use disk::Source;
pub use distribution::Distribution;
pub use end::interruptible;
pub use error::ImageError;
pub use import::{Import, Imported, is_archive};
#[cfg(feature = "fuzz")]
pub use import::{fuzz_archive, fuzz_archives};
pub use package::{KernelSource, read_kernel};
pub use recipe::{FileIn, Recipe};
pub use references::References;
pub use resize::Grown;
pub use system::System;

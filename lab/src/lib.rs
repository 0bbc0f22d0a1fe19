//! The test bed: a stock Debian kernel under QEMU as the host, commands in it, and images for its guests.
#![forbid(unsafe_code)]

pub mod apt;
pub mod cache;
pub mod command_disk;
pub mod executables;
pub mod firmware;
pub mod host;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod log;
pub mod package;
pub mod process;
pub mod progress;
pub mod proto;
pub mod qemu;
pub mod qmp;
pub mod rootfs;
pub mod session;
pub mod small;
pub mod source;
mod witness;

pub use command_disk::CommandDisk;
pub use firmware::Firmware;
pub use host::{Lab, LabBuilder};
pub use kernel::KernelSpec;
pub use process::{Output, Process};
pub use qemu::EMULATED;

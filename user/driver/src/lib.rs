//! The daemon's side of the driver's interface ([`colinux_abi::ioctl`]): safe types over `/dev/colinux`.
//!
//! This is the one crate in user space with `unsafe` code: the system calls on the driver and vectored I/O on guest memory.
//! What differs between hosts is below `sys`; the types here are the same everywhere.

#[cfg(target_os = "linux")]
#[path = "sys/linux/mod.rs"]
mod sys;

mod driver;
mod error;
mod memory;
mod vcpu;
mod vm;

pub use driver::{DEVICE_PATH, Driver};
pub use error::{Error, OpenError};
pub use memory::{GuestMemory, map_extents};
pub use sys::{
    BLKDISCARD, EventFd, ForbiddenCall, ForbiddenCalls, LinkNews, Tap, discard_at, ends_with_us, offload,
    read_cached_at, read_vectored_at, return_freed_memory, write_vectored, write_vectored_at,
};
pub use vcpu::{Run, Vcpu};
pub use vm::{MemoryRequest, Vm};

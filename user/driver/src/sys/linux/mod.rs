//! Linux.

mod eventfd;
mod heap;
mod ioctl;
mod volatile_io;

pub use eventfd::EventFd;
pub use heap::return_freed_memory;
pub(crate) use ioctl::{NO_DEVICE, call, call_for_file, get_extents};
pub use volatile_io::{read_vectored_at, write_vectored_at};

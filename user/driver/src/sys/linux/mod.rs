//! Linux.

mod eventfd;
mod ioctl;
mod volatile_io;

pub use eventfd::EventFd;
pub(crate) use ioctl::{NO_DEVICE, call, call_for_file, get_extents};
pub use volatile_io::{read_vectored_at, write_vectored_at};

//! Linux.

mod child;
mod discard;
mod eventfd;
mod forbidden;
mod heap;
mod ioctl;
mod link_news;
mod macvtap;
mod route;
mod settle;
mod tap;
mod volatile_io;

pub use child::ends_with_us;
pub use discard::{BLKDISCARD, discard_at};
pub use eventfd::EventFd;
pub use forbidden::{ForbiddenCall, ForbiddenCalls};
pub use heap::return_freed_memory;
pub(crate) use ioctl::{
    NO_DEVICE, STATE_TOO_LARGE, TOO_MANY_PIECES, VMX_OPERATION, call, call_for_file, get_extents,
};
pub use link_news::LinkNews;
pub(crate) use settle::settle_pages;
pub use tap::{Tap, offload};
pub use volatile_io::{read_cached_at, read_vectored_at, write_vectored, write_vectored_at};

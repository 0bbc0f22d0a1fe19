//! Puts a distribution's kernel into guest memory so that its first instruction can run.
//!
//! * [`Disk`] opens an image and finds kernel and initrd inside it
//! * [`Guest`] is a kernel joined with the guest object, its initrd and its command line
//! * [`KeptKernels`] has kernels unpacked that were used before
//! * [`Placement`] says where all of it goes; [`allocate`] takes the memory from a [`Machine`]
//! * [`load`] writes everything and returns the state in which the first vCPU starts
//!
//! The image of a disk is untrusted: its owner is the guest.
#![forbid(unsafe_code)]

mod boot_params;
mod command_line;
mod error;
mod extra;
mod guest;
mod image;
mod kept;
mod kernel;
mod load;
mod machine;
mod memory;
mod paging;
mod placement;
mod window;

pub use command_line::command_line;
pub use error::{ImageError, LoadError};
pub use extra::{ExtraFile, archive};
pub use guest::{Guest, Initrd};
pub use image::{Disk, KernelFiles, Medium, Part, partitions};
pub use kept::KeptKernels;
pub use load::{HostFacts, load};
pub use machine::{Machine, MachineError};
pub use placement::{Placement, allocate};

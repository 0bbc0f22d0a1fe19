//! Runs one VM: a thread for each vCPU, one for each device queue, one for console output, and an event loop for the rest.
#![forbid(unsafe_code)]

mod console;
mod devices;
mod end;
mod error;
mod events;
mod input;
mod machine;
mod shared;
mod signals;
mod terminal;
mod vcpu;

pub use colinux_devices::StorageError;
pub use end::End;
pub use error::VmmError;
pub use machine::{DiskOptions, Options, Source, run};

//! The monitor: runs guests on a host kernel that it does not name.
//!
//! * [`Vm`] holds what the vCPUs of one guest share: run states, kicks, the window, counters
//! * [`run`] is the run loop of one vCPU, over [`Host`] (the kernel it runs in) and [`World`] (the crossing)
//! * [`memory`] finds memory for a guest, over [`memory::PhysicalMemory`]
//! * [`lend`] keeps the books of memory that the guest does not need and the host uses meanwhile
//!
//! Errors say who is to blame. What the host could not do is a `Result` ([`HostError`], [`memory::Shortage`]). What the guest did wrong is a [`Fault`]: it ends
//! that guest, once, and comes out of `RUN` as [`colinux_abi::ioctl::exit::FAILED`] or [`colinux_abi::ioctl::exit::PAGING`]. Nothing panics the host.
#![no_std]

mod call;
mod cpu;
mod error;
mod extents;
mod host;
pub mod lend;
pub mod memory;
mod patience;
mod run;
mod stats;
mod vcpu;
mod vm;
mod window;

pub use call::{Call, Doorbell, Physical};
pub use cpu::CpuWorld;
pub use error::{Fault, HostError, Paging};
pub use extents::Extents;
pub use host::{Host, Interrupted, WallClock, World, ZeroInit};
pub use run::run;
pub use vcpu::{RunState, Vcpu, check_start};
pub use vm::Vm;
pub use window::Window;

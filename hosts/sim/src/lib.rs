//! A host made of scripts, under which the monitor is tested: a guest is a list of exits, and the host does what the test says, failures included.
//!
//! * [`Guest`] is a [`colinux_monitor::World`] that leaves as scripted
//! * [`SimHost`] is a [`colinux_monitor::Host`] that writes down what it was asked, and checks that it was asked in a legal order
//! * [`SimMemory`] is a [`colinux_monitor::memory::PhysicalMemory`] with holes, pages that cannot move, and failures to order
//! * [`Bench`] is a VM with a window and both of the above
//!
//! `unsafe` is allowed here, as in all of `hosts/`: the crossing's traits are unsafe to implement.

mod bench;
mod guest;
mod host;
mod memory;

pub use bench::Bench;
pub use guest::{Guest, Left, Step};
pub use host::{Event, SimHost};
pub use memory::SimMemory;

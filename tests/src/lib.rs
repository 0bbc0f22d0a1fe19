//! Drives guests in the lab: each test is a few lines over this.
#![forbid(unsafe_code)]

mod guest;
pub mod kernels;

pub use anyhow::{Result, ensure};
pub use colinux_lab::{Lab, LabBuilder, Output, Process};
pub use guest::Guest;

use colinux_lab::image;

/// Where the guest's image is in a host made by [`host_for`].
pub const IMAGE: &str = "/dev/lab/disk0";

/// A host with the kernel `host`, and an image of a Debian guest with the kernel `guest` as its first disk.
///
/// What the guest writes ends with the host.
pub fn host_for(host: &str, guest: &str) -> Result<LabBuilder> {
    Ok(Lab::host(host).scratch_disk(&image::debian_guest(&guest.parse()?)?))
}

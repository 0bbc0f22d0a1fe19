//! Drives guests in the lab: each test is a few lines over this.
#![forbid(unsafe_code)]

mod counters;
pub mod faults;
mod guest;
pub mod kernels;
pub mod patterns;
mod shut_in;

pub use anyhow::{Result, ensure};
pub use colinux_lab::source::PACKAGE as SOURCE;
pub use colinux_lab::{EMULATED, Firmware, Lab, LabBuilder, Output, Process, log::bad_lines};
pub use counters::Counters;
pub use guest::{Guest, small_guest};
pub use shut_in::threads_are_shut_in;

use colinux_lab::{executables, image, kernel::Kernel, progress::run, rootfs, source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the guest's image is in a host made by [`host_for`].
pub const IMAGE: &str = "/dev/lab/disk0";

/// Where the small guest's kernel is in a host made by [`small_host`].
pub const KERNEL: &str = "/root/vmlinuz";

/// A host with the kernel `host`, and an image of a Debian guest with the kernel `guest` as its first disk.
///
/// What the guest writes ends with the host.
pub fn host_for(host: &str, guest: &str) -> Result<LabBuilder> {
    Ok(Lab::host(host).kept(guest).scratch_disk(&image(guest)?))
}

/// The image of a Debian guest with the kernel `guest`, on this computer.
pub fn image(guest: &str) -> Result<PathBuf> {
    image::debian_guest(&guest.parse()?)
}

/// The Debian package of the product, on this computer.
pub fn package() -> Result<PathBuf> {
    Ok(executables::get()?.package)
}

/// A Debian that was imported (see [`image::imported`]) with the kernel `guest`, in `folder`.
pub fn imported(guest: &str, folder: &Path) -> Result<PathBuf> {
    image::imported(&guest.parse()?, folder)
}

/// The image of a container (see [`image::container`]) with the kernel `guest`, in `folder`.
pub fn container(guest: &str, folder: &Path) -> Result<PathBuf> {
    image::container(&guest.parse()?, folder)
}

/// A host with the kernel `host` and clients of services, and an image of a guest with services and the kernel `guest` as its first disk.
pub fn services_for(host: &str, guest: &str) -> Result<LabBuilder> {
    let image = image::services_guest(&guest.parse()?)?;
    Ok(Lab::host(host).root(rootfs::client_host()?).scratch_disk(&image))
}

/// A disk with the source of a kernel in its folder [`SOURCE`], on this computer.
pub fn kernel_source() -> Result<PathBuf> {
    source::disk()
}

/// Runs a script of bash in `folder`, on this computer; it calls the product by its name, and has the `variables`. Returns what it printed.
pub fn shell(folder: &Path, script: &str, variables: &[(&str, &Path)]) -> Result<String> {
    let programs = executables::get()?.colinux.with_file_name("");
    let path = format!("{}:/usr/sbin:/sbin:{}", programs.display(), std::env::var("PATH")?);
    run(Command::new("bash")
        .args(["-euxo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .envs(variables.iter().copied()))
}

/// Keeps what a test has made for people to look at: `lab-artifacts/NAME` in cargo's target folder.
pub fn keep(name: &str, contents: &[u8]) -> Result<()> {
    let folder = executables::target()?.join("lab-artifacts");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs::write(&path, contents)?;
    println!("kept: {}", path.display());
    Ok(())
}

/// A host with the kernel `host` and the small guest with the kernel `guest`.
pub fn small_host(host: &str, guest: &str) -> Result<LabBuilder> {
    let kernel = Kernel::get(&guest.parse()?)?.vmlinuz;
    Ok(Lab::host(host).small_guest().kept(guest).file(KERNEL, &kernel))
}

/// The host's timers, disk and CPU-bound work go on.
pub fn host_goes_on(lab: &Lab) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(120);
    let work = lab.spawn("for i in $(seq 20000); do :; done; echo done")?;
    let sleeper = lab.spawn("for i in 1 2 3 4 5; do sleep 0.2; done")?;
    lab.spawn("dd if=/dev/zero of=/root/file bs=1M count=8 conv=fsync status=none")?.wait(LIMIT)?.ok()?;
    sleeper.wait(LIMIT)?.ok()?;
    ensure!(work.wait(LIMIT)?.ok()? == "done\n", "the work was not done");
    lab.check_log()
}

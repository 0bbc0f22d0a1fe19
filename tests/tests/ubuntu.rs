//! Another distribution, made by the command that its user types, with the kernel that it brings along.

use colinux_lab::{image, kernel::Kernel};
use colinux_tests::patterns::{hold_patterns, install_probe, probe_disk};
use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_goes_on};

const KERNEL: &str = "linux-image-virtual";
const NEWER: &str = "linux-image-virtual-hwe-24.04";

#[test]
#[ignore = "fetches a system from Ubuntu's archive: cargo xtask soak ubuntu"]
fn ubuntu_runs_with_its_own_kernel() -> Result<()> {
    runs(KERNEL)
}

#[test]
#[ignore = "fetches a system from Ubuntu's archive: cargo xtask soak ubuntu"]
fn ubuntu_runs_with_the_kernel_of_a_newer_one() -> Result<()> {
    runs(NEWER)
}

fn runs(kernel: &str) -> Result<()> {
    let lab = Lab::host("6.1").smp(2).scratch_disk(&image::ubuntu(kernel)?).boot()?;
    let checked = lab.ok(&format!("colinux image info {IMAGE}"))?;
    ensure!(checked.contains("-generic") && checked.contains("guest: fits"), "{checked}");
    lab.ok("modprobe tun; colinux driver load")?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} mem=1G cpus=2 eth0=tuntap"))?;
    let release = guest.ok("uname -r")?;
    ensure!(release.ends_with("-generic\n"), "{release}");
    println!("{release}");
    ensure!(guest.ok("cat /etc/os-release")?.contains("ID=ubuntu"), "it is no Ubuntu");
    assert_eq!(guest.ok("nproc")?, "2\n");
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    assert_eq!(guest.ok("dpkg --audit")?, "");
    assert_eq!(guest.ok("runuser -u ann -- sudo id -un")?, "root\n");
    guest.ok("grep DRIVER=virtio_net /sys/class/net/eth0/device/uevent")?;
    guest.ok("echo 0 >/sys/devices/system/cpu/cpu1/online && echo 1 >/sys/devices/system/cpu/cpu1/online")?;
    guest.ok("dd if=/dev/zero of=/big bs=1M count=64 conv=fsync && rm /big")?;
    host_goes_on(&lab)?;
    guest.power_off()?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

#[test]
#[ignore = "fetches a system from Ubuntu's archive: cargo xtask soak ubuntu"]
fn the_kernel_of_ubuntu_is_a_host() -> Result<()> {
    is_a_host(KERNEL)
}

#[test]
#[ignore = "fetches a system from Ubuntu's archive: cargo xtask soak ubuntu"]
fn the_newer_kernel_of_ubuntu_is_a_host() -> Result<()> {
    is_a_host(NEWER)
}

/// A Debian runs beside it; registers, breakpoints among them, stay in their world.
fn is_a_host(kernel: &str) -> Result<()> {
    let kernel = Kernel::of_image(&image::ubuntu(kernel)?)?;
    let lab = Lab::host_with(kernel).smp(2).kept("6.1").scratch_disk(&colinux_tests::image("6.1")?).boot()?;
    println!("{}", lab.ok("uname -r && colinux driver load")?);
    probe_disk(&lab)?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} cpus=2 cobd1=/tmp/probe.img"))?;
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    install_probe(&mut guest)?;
    hold_patterns(&lab, &mut guest)?;
    host_goes_on(&lab)?;
    guest.power_off()?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

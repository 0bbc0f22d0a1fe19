//! Debian's other kernels: as guests, small ones and whole Debians, on CPUs of several kinds; and as hosts.

use colinux_lab::{KernelSpec, image};
use colinux_tests::{Guest, IMAGE, Lab, LabBuilder, Result, ensure};

/// Seconds for which patterns are held in the guest's registers.
const HOLD: u32 = 3;

/// A kernel, and the words that it gets.
type Flavour = (&'static str, &'static str);

/// Boots each flavour in one host, as the small guest and as a whole Debian.
fn run(host: LabBuilder, flavours: [Flavour; 2]) -> Result<()> {
    let lab = host.small_guest().scratch_disk(&image::debian_guest_with_flavours()?).boot()?;
    lab.ok("colinux driver load")?;
    lab.ok(&format!("mount -o ro,noload {IMAGE} /mnt"))?;
    for (name, words) in flavours {
        let release = name.parse::<KernelSpec>()?.release()?;
        lab.ok(&format!("cp /mnt/boot/vmlinuz-{release} /mnt/boot/initrd.img-{release} /root"))?;
        small(&lab, (&release, words))?;
    }
    lab.ok("umount /mnt")?;
    for (name, words) in flavours {
        debian(&lab, (&name.parse::<KernelSpec>()?.release()?, words))?;
    }
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// Registers keep what programs put there, on two CPUs.
fn small(lab: &Lab, (release, words): (&str, &str)) -> Result<()> {
    let mut guest = Guest::boot_small(lab, &format!("cpus=2 kernel=/root/vmlinuz-{release}"), words)?;
    check(&mut guest, release, words)?;
    guest.ok(&format!("probe registers {HOLD} 1 & probe registers {HOLD} 2 && wait $!"))?;
    guest.send_line("poweroff -f")?;
    assert_eq!(guest.wait()?, 0, "{release}");
    Ok(())
}

/// systemd is content with the kernel, its stock initrd and its modules.
fn debian(lab: &Lab, (release, words): (&str, &str)) -> Result<()> {
    let files = format!("kernel=/root/vmlinuz-{release} initrd=/root/initrd.img-{release}");
    let mut guest = Guest::boot(lab, &format!("{IMAGE} {files} -- {words}"))?;
    check(&mut guest, release, words)?;
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    assert_eq!(guest.ok("systemctl --failed --no-legend")?.trim(), "");
    guest.ok("modprobe loop && dpkg --audit")?;
    ensure!(guest.ok("journalctl -b -k -o cat")?.contains(release), "the journal has another kernel's log");
    guest.power_off()
}

fn check(guest: &mut Guest, release: &str, words: &str) -> Result<()> {
    assert_eq!(guest.ok("uname -r")?.trim(), release);
    let isolated = guest.ok("dmesg")?.contains("page tables isolation: enabled");
    ensure!(isolated == (words == "pti=on"), "isolation of page tables is {isolated} with {words:?}");
    Ok(())
}

#[test]
fn cloud_kernels_run_beside_a_cloud_host_on_four_levels_of_page_tables() -> Result<()> {
    run(Lab::host("6.1-cloud").smp(2).cpu("max,la57=off"), [("6.1-cloud", ""), ("6.12-cloud", "")])
}

#[test]
fn real_time_kernels_run_beside_a_real_time_host_with_and_without_page_table_isolation() -> Result<()> {
    let host = Lab::host("6.12-rt").smp(2).cpu("Skylake-Client-v3").cmdline("pti=on");
    run(host, [("6.1-rt", "pti=off"), ("6.12-rt", "pti=on")])
}

//! Stock Debian kernels as guests beside stock Debian kernels.

use colinux_tests::{Counters, EMULATED, Guest, IMAGE, Lab, Result, ensure, host_for};
use std::time::Duration;

const TERM: u8 = 15;
const KILL: u8 = 9;

/// What root in the guest is not permitted, with what it is told: to reach the host's memory, ports (ioperm is system call 173) and MSRs, and to load a module without its signature.
const LOCKED: [(&str, &str); 5] = [
    ("dd if=/dev/mem of=/dev/null count=1", "not permitted"),
    ("dd if=/dev/port of=/dev/null count=1", "not permitted"),
    ("perl -e 'syscall(173, 0x80, 1, 1) == 0 or die $!'", "not permitted"),
    ("modprobe msr", "No such device"),
    (
        "m=$(modinfo -n loop); case $m in *.xz) busybox xzcat $m;; *) cat $m;; esac | head -c -28 > /root/unsigned.ko; \
         insmod /root/unsigned.ko",
        "not permitted",
    ),
];

/// A host with the driver loaded and the guest's image at hand.
fn host(kernel: &str, guest: &str, smp: u32) -> Result<Lab> {
    let lab = host_for(kernel, guest)?.smp(smp).boot()?;
    lab.ok("colinux driver load")?;
    Ok(lab)
}

/// A whole Debian: systemd is content, nothing of the host shows, and everything ends cleanly.
fn runs(host_kernel: &str, guest_kernel: &str, smp: u32, cpus: u32) -> Result<()> {
    let lab = host(host_kernel, guest_kernel, smp)?;
    let info = lab.ok(&format!("colinux image info {IMAGE}"))?;
    ensure!(
        info.contains("/dev/vda") && info.contains(guest_kernel) && info.contains("guest: fits"),
        "{info}"
    );
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} cpus={cpus}"))?;
    let release = guest.ok("uname -r")?;
    ensure!(release.starts_with(guest_kernel), "the guest runs {release}");
    assert_eq!(guest.ok("nproc")?.trim(), cpus.to_string());
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    assert_eq!(guest.ok("systemctl --failed --no-legend")?.trim(), "");
    ensure!(guest.ok("cat /sys/kernel/security/lockdown")?.contains("[integrity]"), "no lockdown");
    for (command, answer) in LOCKED {
        let outcome = guest.run(command)?;
        ensure!(outcome.status != 0 && outcome.stdout.contains(answer), "{command}: {outcome:?}");
    }
    guest.ok("grep -F '[none]' /sys/block/vda/queue/scheduler")?;
    let devices = "find /sys/bus/pci/devices /sys/bus/acpi/devices -mindepth 1 2>/dev/null";
    assert_eq!(guest.run(devices)?.stdout.trim(), "", "the guest finds hardware of the host");
    let unit = "systemd-tmpfiles-clean.timer";
    guest.ok(&format!("systemctl stop {unit} && ! systemctl is-active {unit}"))?;
    assert_eq!(guest.ok(&format!("systemctl start {unit} && systemctl is-active {unit}"))?.trim(), "active");
    guest.ok("echo to the journal | systemd-cat -t test && journalctl --sync")?;
    assert_eq!(guest.ok("journalctl -b -t test -o cat")?.trim(), "to the journal");
    ensure!(guest.ok("journalctl -b -k -o cat")?.contains("Linux version"), "no kernel log in the journal");
    guest.ok("echo kept > /root/file && sync && grep kept /root/file")?;
    guest.power_off()?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

#[test]
fn debian_6_1_runs_beside_6_1() -> Result<()> {
    runs("6.1", "6.1", 1, 1)
}

#[test]
fn debian_6_12_runs_beside_6_1_on_two_cpus() -> Result<()> {
    runs("6.1", "6.12", 2, 2)
}

#[test]
fn debian_6_1_runs_beside_6_12_on_two_cpus() -> Result<()> {
    runs("6.12", "6.1", 2, 2)
}

#[test]
fn debian_6_12_runs_beside_6_12() -> Result<()> {
    runs("6.12", "6.12", 2, 1)
}

#[test]
fn a_guest_restarts_in_place_halts_and_is_terminated() -> Result<()> {
    let lab = host("6.1", "6.1", 2)?;
    // A disk of the host is forgotten with the guest, not with its kernel.
    let mut guest = Guest::shown_by(&lab, &format!("exec colinux run {IMAGE} -- {EMULATED}"))?;
    guest.log_in()?;
    ensure!(guest.log().contains("--write keeps it"), "nothing is said:\n{}", guest.log());
    guest.ok("touch /root/forgotten")?;
    guest.send_line("reboot")?;
    guest.log_in()?;
    guest.ok("test -e /root/forgotten")?;
    guest.send_line("halt")?;
    assert_eq!(guest.wait()?, 0, "halt");
    assert_eq!(stopped_at_a_terminal_that_takes_nothing(&lab)?, 67);
    let mut guest = Guest::boot(&lab, IMAGE)?;
    guest.ok("test ! -e /root/forgotten && touch /root/kept && sync")?;
    guest.signal(TERM)?;
    assert_eq!(guest.wait()?, 0, "an orderly power-off");
    lab.ok(&format!(
        "dumpe2fs -h {IMAGE} > /root/state && grep -w clean /root/state && ! grep needs_recovery /root/state"
    ))?;
    let look = format!("mount {IMAGE} /mnt && ls /mnt/root && umount /mnt");
    ensure!(lab.ok(&look)?.contains("kept"), "--write kept nothing");
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// Output of the terminal is suspended (tcflow(3), ioctl_tty(2): TCXONC) while a guest boots and prints; who asks twice ends it.
fn stopped_at_a_terminal_that_takes_nothing(lab: &Lab) -> Result<i32> {
    const SUSPEND: &str =
        "perl -e 'open(T, \">\", readlink(\"/proc/$ARGV[0]/fd/1\")) && ioctl(T, 0x540A, 0) or die $!'";
    let mut guest = Guest::start(lab, IMAGE)?;
    guest.wait_for("Linux version", Duration::from_secs(240))?;
    lab.ok(&format!("{SUSPEND} $(pidof colinux)"))?;
    std::thread::sleep(Duration::from_secs(3));
    for _ in 0..2 {
        guest.signal(TERM)?;
        std::thread::sleep(Duration::from_secs(2));
    }
    guest.wait()
}

#[test]
fn a_guest_that_panics_ends_with_its_last_words_and_the_host_goes_on() -> Result<()> {
    let lab = host("6.1", "6.1", 2)?;
    let mut guest = Guest::boot(&lab, IMAGE)?;
    guest.send_line("echo c > /proc/sysrq-trigger")?;
    let status = guest.wait_after_trouble()?;
    assert_eq!(status, 64, "the status for a panic");
    ensure!(guest.log().contains("sysrq triggered crash"), "no last words:\n{}", guest.log());
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

#[test]
fn the_host_gets_everything_back_from_a_guest_that_is_killed() -> Result<()> {
    let lab = host("6.1", "6.1", 2)?;
    let before = Counters::read(&lab)?;
    for limit in [1, 4, 9] {
        let mut guest = Guest::start(&lab, &format!("{IMAGE} exec0=/bin/sleep,4711"))?;
        std::thread::sleep(Duration::from_secs(limit));
        guest.signal(KILL)?;
        assert_eq!(guest.wait()?, 128 + i32::from(KILL));
        lab.ok("timeout 60 sh -c \"while pgrep -fx '/bin/sleep 4711'; do sleep 0.1; done\"")?;
    }
    before.check_unchanged(&lab)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

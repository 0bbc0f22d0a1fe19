//! Guests with several vCPUs, and with more of them than the host has CPUs.

use colinux_tests::{Guest, Lab, Result, ensure, host_goes_on, small_host};
use std::time::{Duration, Instant};

/// How long the host may take to wake up, and to reboot.
const LIMIT: Duration = Duration::from_secs(120);

/// Work that makes threads of the probe wait for a CPU and move, while they compare clocks.
const BESIDE: &str = "for i in 1 2 3; do (i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); done) & done";

#[test]
fn vcpus_and_cpus_go_and_come_and_clocks_agree() -> Result<()> {
    let lab = small_host("6.1", "6.1")?.smp(2).cpu("EPYC").boot()?;
    lab.ok("colinux driver load")?;
    let mut guest = Guest::boot_small(&lab, "name=two cpus=2", "")?;
    clocks_of_vcpus_agree(&mut guest)?;
    cpus_of_the_guest_go_and_come(&lab, &mut guest)?;
    cpus_of_the_host_go_and_come(&lab, &mut guest)?;
    the_host_sleeps(&lab, &mut guest)?;
    guest.check_kernel()?;
    lab.check_log()?;
    the_host_reboots_with_its_guest(lab)
}

/// The host suspends to idle while a vCPU spins, its power button wakes it, and the guest goes on with the right time.
fn the_host_sleeps(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    const NOW: &str = "date +%s";
    guest.ok("while :; do :; done & echo $! > /tmp/pid")?;
    lab.ok("modprobe button")?;
    let mut sleeper = lab.spawn("echo freeze > /sys/power/state; echo awake")?;
    let start = Instant::now();
    while sleeper.wait_for("awake", Duration::from_secs(2)).is_err() {
        ensure!(start.elapsed() < LIMIT, "the host does not wake up");
        lab.monitor(|qmp| qmp.human("system_powerdown"))?;
    }
    ensure!(lab.host_log()?.contains("PM: suspend exit"), "the host did not sleep");
    host_goes_on(lab)?;
    let before: i64 = lab.ok(NOW)?.trim().parse()?;
    let seen: i64 = guest.ok(&format!("kill $(cat /tmp/pid); sleep 2; {NOW}"))?.trim().parse()?;
    let after: i64 = lab.ok(NOW)?.trim().parse()?;
    ensure!(before <= seen && seen <= after + 1, "{before} <= {seen} <= {after}");
    Ok(())
}

/// reboot(2), as `reboot -f` calls it: RB_AUTOBOOT.
const REBOOT: &str = "perl -e 'syscall(169, 0xfee1dead, 672274793, 0x1234567, 0)'";

/// Whoever reboots the host without asking its guest gets a reboot. (The lab's machine ends with it.)
fn the_host_reboots_with_its_guest(lab: Lab) -> Result<()> {
    let _ends = lab.spawn(REBOOT)?;
    lab.wait_for_reboot(LIMIT)
}

/// Whatever vCPU reads the clock, it is never behind what another has read.
fn clocks_of_vcpus_agree(guest: &mut Guest<'_>) -> Result<()> {
    ["true", BESIDE].into_iter().try_for_each(|beside| clock_is_sound(guest, beside))
}

fn clock_is_sound(guest: &mut Guest<'_>, beside: &str) -> Result<()> {
    println!("{}", guest.ok(&format!("{beside}; probe clock"))?);
    Ok(())
}

/// CPU time of the threads of the daemon's vCPU 1, in ticks.
const VCPU_1: &str = "awk '$3 == \"1)\" { print $15 + $16 }' /proc/$(pgrep -x colinux)/task/*/stat";

/// A vCPU goes off and on again, by the guest's own order and by the host's, idle and under load.
fn cpus_of_the_guest_go_and_come(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let uses = |count: u32| format!("the guest uses {count} of 2 vCPUs\n");
    let refused = lab.run("colinux cpus 3 two")?;
    ensure!(refused.status != 0 && refused.stderr.contains("1 to 2 vCPUs"), "{refused:?}");
    assert_eq!(lab.ok("colinux cpus -")?, uses(2));
    guest.ok("echo 0 > /sys/devices/system/cpu/cpu1/online")?;
    assert_eq!(lab.ok("colinux cpus - two")?, uses(1));
    let slept = lab.ok(&format!("{VCPU_1}; sleep 1; {VCPU_1}"))?;
    let slept: Vec<_> = slept.lines().collect();
    ensure!(slept.len() == 2 && slept[0] == slept[1], "a vCPU that is off takes time: {slept:?}");
    guest.ok("echo 1 > /sys/devices/system/cpu/cpu1/online")?;
    guest.ok("for i in 1 2 3; do while :; do :; done & done")?;
    for count in [1, 2, 1, 2] {
        assert_eq!(lab.ok(&format!("colinux cpus {count} two"))?, uses(count));
        assert_eq!(guest.ok("nproc")?.trim(), count.to_string());
    }
    guest.ok("taskset -c 1 true; kill $(jobs -p)").map(drop)
}

/// A CPU of the host goes off and on again; meanwhile all vCPUs share the other one.
fn cpus_of_the_host_go_and_come(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
    guest.ok("while :; do :; done & echo $! > /tmp/pid")?;
    for _ in 0..3 {
        lab.ok(&format!("echo 0 > {CPU}"))?;
        host_goes_on(lab)?;
        guest.ok("sleep 1")?;
        lab.ok(&format!("echo 1 > {CPU}"))?;
        host_goes_on(lab)?;
    }
    guest.ok("kill $(cat /tmp/pid); probe clock").map(drop)
}

/// The kernel stops all CPUs to take one away, and starts it anew at once, when it may not have stopped yet.
const OFF_AND_ON: &str = "for i in $(seq 8); do for state in 0 1; do echo $state >/sys/devices/system/cpu/cpu1/online || echo round $i: no $state; done; done; nproc";
/// For the crowd of threads in the guest, beside the same crowd on the host.
const CROWD_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn four_vcpus_share_two_cpus_and_their_clocks_agree() -> Result<()> {
    share("6.1", 2, 4, |lab, guest| {
        go_and_come(guest, 4)?;
        cpus_of_the_host_go_and_come(lab, guest)?;
        clock_is_sound(guest, BESIDE)
    })
}

#[test]
fn two_vcpus_share_one_cpu() -> Result<()> {
    share("6.12", 1, 2, |_, guest| go_and_come(guest, 2))
}

#[test]
fn six_vcpus_share_four_cpus() -> Result<()> {
    share("6.1", 4, 6, |lab, guest| {
        go_and_come(guest, 6)?;
        cpus_of_the_host_go_and_come(lab, guest)
    })
}

fn go_and_come(guest: &mut Guest<'_>, vcpus: usize) -> Result<()> {
    assert_eq!(guest.ok(OFF_AND_ON)?.trim(), vcpus.to_string());
    Ok(())
}

/// The vCPUs need each other all the time, and the host's programs go on meanwhile.
fn share(
    kernel: &str,
    cpus: u32,
    vcpus: usize,
    more: impl Fn(&Lab, &mut Guest<'_>) -> Result<()>,
) -> Result<()> {
    let lab = small_host(kernel, kernel)?.smp(cpus).boot()?;
    lab.ok("colinux driver load")?;
    let mut guest = Guest::boot_small(&lab, &format!("cpus={vcpus}"), "")?;
    assert_eq!(guest.ok("nproc")?.trim(), vcpus.to_string());
    more(&lab, &mut guest)?;
    guest.send_line("probe crowd && echo all we''ll")?;
    println!("host: {}", lab.ok("probe crowd")?);
    println!("guest: {}", guest.wait_for("all well", CROWD_LIMIT)?);
    guest.power_off_small()?;
    lab.leave();
    Ok(())
}

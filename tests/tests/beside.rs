//! The host lives beside its guest: a guest is an ordinary thread, and the host's clock, timers, disk and programs go on.

use colinux_lab::image::kernel_package;
use colinux_tests::{Guest, Lab, Result, ensure, host_goes_on, small_host};
use std::{fs, time::Instant};

/// Seconds of the host's for which CPU time is counted.
const WINDOW: u32 = 5;
/// CPU time of a window, in the ticks of /proc/PID/stat (USER_HZ).
const WHOLE: u64 = WINDOW as u64 * 100;
/// A program that takes all of CPU 1 that it gets.
const HOG: &str = "taskset -c 1 sh -c 'while :; do :; done' > /dev/null 2>&1 & echo $!";
/// In a guest with two vCPUs.
const SPIN: &str = "for i in 1 2; do while :; do :; done & done";
const CGROUP: &str = "set -e
echo +cpu > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/fifth
echo '20000 100000' > /sys/fs/cgroup/fifth/cpu.max";

/// CPU time that processes take in a window, in ticks.
fn used<const N: usize>(lab: &Lab, pids: [&str; N]) -> Result<[u64; N]> {
    let files = pids.map(|pid| format!("/proc/{pid}/stat")).join(" ");
    let read = format!("awk '{{ print $14 + $15 }}' {files}");
    let text = lab.ok(&format!("{read}; sleep {WINDOW}; {read}"))?;
    let numbers: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.len() == 2 * N, "{text:?}");
    Ok(std::array::from_fn(|index| numbers[N + index] - numbers[index]))
}

/// The CPUs on which a daemon's vCPU threads are found when they are looked at again and again.
fn cpus_seen(lab: &Lab, pid: &str) -> Result<String> {
    let look = format!("ps -L -p {pid} -o psr=,comm= | awk '$2 == \"vcpu\" {{ print $1 }}'");
    lab.ok(&format!("for i in $(seq 30); do {look}; sleep 0.05; done | sort -u"))
}

/// An idle guest leaves the host's CPUs alone.
fn idles(lab: &Lab, pid: &str) -> Result<()> {
    let [idle] = used(lab, [pid])?;
    ensure!(idle < WHOLE / 20, "an idle guest took {idle} of {WHOLE} ticks");
    Ok(())
}

/// Affinity, priority and the limit of a control group hold for a guest that spins.
fn is_an_ordinary_thread(lab: &Lab, pid: &str) -> Result<()> {
    lab.ok(&format!("taskset -a -c -p 1 {pid}"))?;
    assert_eq!(cpus_seen(lab, pid)?, "1\n", "taskset");
    let hog = lab.ok(HOG)?.trim().to_owned();
    let [guest, other] = used(lab, [pid, &hog])?;
    ensure!(
        guest > WHOLE / 4 && other > WHOLE / 4,
        "of equals, the guest had {guest} ticks, the other {other}"
    );
    lab.ok(&format!("cd /proc/{pid}/task && renice -n 19 -p * > /dev/null"))?;
    let [guest, other] = used(lab, [pid, &hog])?;
    ensure!(other > 5 * guest, "at nice 19 the guest had {guest} ticks, the other {other}");
    lab.ok(&format!("kill {hog}"))?;
    let [alone] = used(lab, [pid])?;
    ensure!(alone > WHOLE / 2, "alone, the guest had {alone} of {WHOLE} ticks");
    lab.ok(&format!("{CGROUP}; echo {pid} > /sys/fs/cgroup/fifth/cgroup.procs"))?;
    let [limited] = used(lab, [pid])?;
    ensure!(limited > 0 && limited < WHOLE * 2 / 5, "limited to a fifth, it had {limited} of {WHOLE} ticks");
    lab.ok(&format!("echo {pid} > /sys/fs/cgroup/cgroup.procs; taskset -a -c -p 0,1 {pid}")).map(drop)
}

/// Beside a guest whose vCPUs spin on all CPUs, another that does the same gets as much as that one.
fn shares_with_another(lab: &Lab) -> Result<()> {
    let first = lab.ok("pgrep -x colinux")?.trim().to_owned();
    let mut other = Guest::boot_small(lab, "cpus=2 name=other", "")?;
    other.ok(SPIN)?;
    let second = lab.ok(&format!("pgrep -x colinux | grep -v -x {first}"))?.trim().to_owned();
    let [one, two] = used(lab, [&first, &second])?;
    ensure!(
        one > WHOLE / 2 && two > WHOLE / 2,
        "of {} ticks on two CPUs, one guest had {one}, the other {two}",
        2 * WHOLE
    );
    other.send_line("poweroff -f")?;
    assert_eq!(other.wait()?, 0);
    Ok(())
}

/// Seconds on a kernel's clock.
fn uptime(text: &str) -> Result<f64> {
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

/// The clocks of both worlds go as fast as that of this computer, to a hundredth.
fn clocks_agree(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    const READ: &str = "cat /proc/uptime";
    let start = Instant::now();
    let first = [uptime(&lab.ok(READ)?)?, uptime(&guest.ok(READ)?)?];
    let read = Instant::now();
    host_goes_on(lab)?;
    lab.ok(&format!("sleep {WINDOW}"))?;
    let least = read.elapsed().as_secs_f64() * 0.99 - 0.02;
    let last = [uptime(&lab.ok(READ)?)?, uptime(&guest.ok(READ)?)?];
    let most = start.elapsed().as_secs_f64() * 1.01 + 0.02;
    for (name, index) in [("host", 0), ("guest", 1)] {
        let passed = last[index] - first[index];
        ensure!((least..most).contains(&passed), "{passed} s in the {name}, {least} to {most} s outside");
    }
    Ok(())
}

#[test]
fn a_guest_is_an_ordinary_thread_and_the_host_goes_on_beside_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::copy(kernel_package(&"6.1".parse()?)?, folder.path().join("kernel.deb"))?;
    let lab = small_host("6.12", "6.1")?.smp(2).share(folder.path()).boot()?;
    lab.ok("colinux driver load")?;
    // Otherwise programs that begin on different terminals have the same share, whatever their priorities.
    lab.ok("echo 0 > /proc/sys/kernel/sched_autogroup_enabled")?;
    let mut guest = Guest::boot_small(&lab, "", "")?;
    let pid = lab.ok("pgrep -x colinux")?.trim().to_owned();
    idles(&lab, &pid)?;
    guest.ok("while :; do :; done & echo $! > /tmp/pid")?;
    is_an_ordinary_thread(&lab, &pid)?;
    clocks_agree(&lab, &mut guest)?;
    guest.ok("kill $(cat /tmp/pid)")?;
    idles(&lab, &pid)?;
    guest.send_line("poweroff -f")?;
    assert_eq!(guest.wait()?, 0);
    // Two vCPUs that spin on the host's two CPUs, then four. The kernel comes out of its package.
    let mut guest = Guest::boot_small(&lab, "cpus=2 kernel=/mnt/share/kernel.deb", "")?;
    guest.ok(SPIN)?;
    clocks_agree(&lab, &mut guest)?;
    shares_with_another(&lab)?;
    guest.send_line("poweroff -f")?;
    assert_eq!(guest.wait()?, 0);
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

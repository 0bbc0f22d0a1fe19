//! Programs that load a kernel on purpose, in a guest of four vCPUs on a host of two CPUs: what they do is right, and neither kernel complains.

use colinux_tests::{Guest, IMAGE, Lab, Result, SOURCE, ensure, host_goes_on, kernel_source, services_for};
use std::time::Duration;

/// The servers of the image are not wanted here.
const GUEST: &str = "mem=1G cpus=4 -- systemd.mask=mariadb.service systemd.mask=nginx.service";
/// stress-ng's workers, each with a number of operations after which it ends, and with a check of what it did.
const STRESS: [(&str, &str); 8] = [
    ("cpu", "--cpu 4 --cpu-ops 200"),
    ("vm", "--vm 4 --vm-bytes 32M --vm-ops 4000"),
    ("futex", "--futex 4 --futex-ops 20000"),
    ("fork", "--fork 4 --fork-ops 400"),
    ("switch", "--switch 4 --switch-ops 4000"),
    ("timer", "--timer 4 --timer-freq 1000 --timer-ops 2000"),
    ("signal", "--signal 4 --signal-ops 20000"),
    ("sigq", "--sigq 4 --sigq-ops 4000"),
];
/// Crowds of processes and of threads that send messages, locks that are handed on, and waits that end together.
const CROWDS: [&str; 9] = [
    "hackbench --process --groups 3 --loops 30",
    "hackbench --threads --groups 3 --loops 30",
    "perf bench sched messaging --group 2 --nr_loops 20",
    "perf bench sched pipe --loop 2000",
    "perf bench futex hash --runtime 2",
    "perf bench futex wake --threads 16",
    "perf bench futex wake-parallel --threads 16",
    "perf bench futex requeue --threads 16",
    "perf bench futex lock-pi --runtime 2",
];

#[test]
fn what_loads_a_kernel_is_right_on_four_vcpus_over_two_cpus() -> Result<()> {
    let lab = services_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} {GUEST}"))?;
    assert_eq!(guest.ok("nproc")?, "4\n");
    for (name, work) in STRESS {
        stress(&mut guest, name, work)?;
    }
    for crowd in CROWDS {
        println!("{crowd}\n{}", guest.ok(crowd)?);
        guest.check_kernel()?;
    }
    host_goes_on(&lab)?;
    guest.power_off()?;
    end(lab)
}

/// The workers ran, did what they were asked to do, and found nothing wrong.
fn stress(guest: &mut Guest<'_>, name: &str, work: &str) -> Result<()> {
    let said = guest.ok(&format!("stress-ng --verify --metrics-brief {work}"))?;
    println!("{said}");
    let asked: u64 = work.rsplit(' ').next().unwrap_or_default().parse()?;
    let done = said.lines().find_map(|line| line.split_once(&format!("] {name} ")));
    let done = done.and_then(|(_, numbers)| numbers.split_whitespace().next()?.parse::<u64>().ok());
    ensure!(done >= Some(asked), "{done:?} of {asked} operations:\n{said}");
    guest.check_kernel()
}

/// For a build of a kernel, under emulation on a busy computer.
const BUILD_LIMIT: Duration = Duration::from_secs(3 * 3600);

#[test]
#[ignore = "takes most of an hour: cargo xtask soak"]
fn a_kernel_is_built_by_four_jobs_on_four_vcpus_over_two_cpus() -> Result<()> {
    let lab = services_for("6.1", "6.1")?.scratch_disk(&kernel_source()?).memory("4G").smp(2);
    let lab = lab.lifetime(BUILD_LIMIT).boot()?;
    lab.ok("colinux driver load")?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} cobd1=/dev/lab/disk1 {GUEST}"))?;
    guest.ok(&format!("mount /dev/disk/by-id/virtio-cobd1 /mnt && cd /mnt/{SOURCE}"))?;
    let build = "time { make -s -j4 tinyconfig && make -s -j4 vmlinux; }";
    println!("{}", guest.run_within(build, BUILD_LIMIT)?.ok()?);
    guest.ok("strings vmlinux | grep '^Linux version 6.1'")?;
    host_goes_on(&lab)?;
    guest.power_off()?;
    end(lab)
}

fn end(lab: Lab) -> Result<()> {
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

//! The driver alone: hand-made guests, whose every instruction is known, on two hosts.

use anyhow::Context;
use colinux_tests::{Guest, Lab, Process, Result, ensure, small_guest, small_host};
use std::time::{Duration, Instant};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// MiB of the host's memory into which nothing is put that cannot move.
const UNTOUCHED: u64 = 300;
const FOUR_GIB: u64 = 4 << 30;

/// A host with the driver loaded.
fn host(version: &str, smp: u32, cpu: &str) -> Result<Lab> {
    let lab = Lab::host(version).smp(smp).cpu(cpu).boot()?;
    lab.ok("colinux driver load")?;
    Ok(lab)
}

/// Unloads the driver, which nothing may use any longer, and ends the host.
fn end(lab: Lab) -> Result<()> {
    assert_eq!(users(&lab)?, 0);
    lab.ok("rmmod colinux")?;
    lab.power_off()
}

fn users(lab: &Lab) -> Result<u64> {
    number(lab, "awk '$1 == \"colinux\" { print $3 }' /proc/modules")
}

fn number(lab: &Lab, command: &str) -> Result<u64> {
    Ok(lab.ok(command)?.trim().parse()?)
}

/// Starts a guest that spins with interrupts out.
fn spin(lab: &Lab, vcpus: u32) -> Result<Process> {
    lab.ok(&format!("setsid drive forever {vcpus} > /tmp/spin 2>&1 & echo $! > /tmp/pid"))?;
    lab.spawn("until grep -q spinning /tmp/spin; do sleep 0.1; done")
}

/// The host's timers, sleepers and CPU-bound work go on beside the guest, and `kill -9` ends it.
fn host_goes_on_beside(lab: &Lab, vcpus: u32) -> Result<()> {
    spin(lab, vcpus)?.wait(LIMIT)?.ok()?;
    let work = lab.spawn("for i in $(seq 20000); do :; done; echo done")?;
    lab.spawn("for i in 1 2 3 4 5; do sleep 0.2; done")?.wait(LIMIT)?.ok()?;
    assert_eq!(work.wait(LIMIT)?.ok()?, "done\n");
    lab.ok("kill -0 $(cat /tmp/pid)")?;
    ensure!(users(lab)? > 0, "the guest was gone before it was killed");
    lab.spawn("kill -9 $(cat /tmp/pid); while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.1; done")?
        .wait(LIMIT)?
        .ok()
        .map(drop)
}

#[test]
fn scenarios_pass_on_6_1() -> Result<()> {
    let lab = host("6.1", 2, "max")?;
    lab.spawn("drive")?.wait(LIMIT)?.ok()?;
    crossings_under_nmis(&lab)?;
    lab.ok(
        "mkdir /tmp/symbols && colinux symbols /tmp/symbols && grep colinux_passage_ /tmp/symbols/driver.elf",
    )?;
    end(lab)
}

/// A million crossings on a CPU to which NMIs are sent, each when the one before has arrived: a lost one would end the test at its time limit.
fn crossings_under_nmis(lab: &Lab) -> Result<()> {
    const NMIS: &str = "awk '/NMI:/ { print $2 }' /proc/interrupts";
    let (first, start) = (number(lab, NMIS)?, Instant::now());
    lab.ok("setsid taskset -c 0 drive crossings 1000000 > /tmp/crossings 2>&1 & echo $! > /tmp/pid")?;
    let mut sent = 0;
    while lab.run("kill -0 $(cat /tmp/pid)")?.ok().is_ok() {
        lab.nmi()?;
        sent += 1;
        while number(lab, NMIS)? < first + sent {
            ensure!(start.elapsed() < LIMIT, "NMI {sent} was lost");
        }
    }
    let text = lab.ok("cat /tmp/crossings")?;
    ensure!(text.ends_with(" in the crossing\n"), "{text}");
    println!("{sent} NMIs during {text}");
    ensure!(sent >= 10, "only {sent} NMIs during the crossings");
    Ok(())
}

/// Memory comes out of a full page cache; under pressure it comes, or the answer tells how much there was.
fn busy_memory(lab: &Lab) -> Result<()> {
    lab.ok("find /usr /etc /var -xdev -type f -exec cat {} + > /dev/null")?;
    let cached = number(lab, "awk '/^Cached:/ { print int($2 / 1024) }' /proc/meminfo")?;
    ensure!(cached > 100, "only {cached} MiB of page cache");
    take(lab, 1024)?;
    lab.ok("mount -t tmpfs -o size=3g none /mnt")?;
    lab.ok("dd if=/dev/zero of=/mnt/file bs=1M count=2000 status=none")?;
    let text = lab.ok("drive take 1200")?;
    ensure!(text.starts_with("found "), "{text}");
    lab.ok("umount /mnt")?;
    take(lab, 1024).map(drop)
}

/// Takes memory; returns in how many pieces.
fn take(lab: &Lab, mebibytes: u64) -> Result<u64> {
    let text = lab.ok(&format!("drive take {mebibytes}"))?;
    let pieces =
        text.strip_prefix(&format!("took {mebibytes} MiB in ")).and_then(|rest| rest.split(' ').next());
    Ok(pieces.with_context(|| text.clone())?.parse()?)
}

/// With pages everywhere that cannot move, one large piece is refused with what there was; a guest gets its memory in many, below and above 4 GiB.
fn scattered_memory(lab: &Lab) -> Result<()> {
    lab.ok("echo 3 > /proc/sys/vm/drop_caches")?;
    let free = number(lab, "awk '/^MemFree:/ { print int($2 / 1024) }' /proc/meminfo")?;
    let fragment = format!("probe fragment {} 4", free - UNTOUCHED);
    let pid = lab.ok(&format!("{fragment} > /tmp/pages 2>&1 & echo $!"))?;
    let pid = pid.trim();
    lab.ok(&format!("until grep -q 'in the way' /tmp/pages; do kill -0 {pid} || exit; sleep 0.1; done"))?;
    let text = lab.ok("drive piece 800")?;
    ensure!(text.starts_with("found ") && !text.starts_with("found 0 "), "{text}");
    let words = small_guest("mem=800M");
    let mut guest = Guest::start(lab, &words)?;
    guest.take_shell()?;
    let map = guest.ok("dmesg | sed -n 's/.*mem 0x\\([0-9a-f]*\\)-0x.* usable$/\\1/p'")?;
    let starts: Vec<u64> =
        map.lines().map(|start| u64::from_str_radix(start, 16)).collect::<Result<_, _>>()?;
    ensure!(starts.len() > 128, "{} entries in the memory map", starts.len());
    let low = starts.iter().filter(|start| **start < FOUR_GIB).count();
    ensure!(low > 0 && low < starts.len(), "{low} of {} entries are below 4 GiB", starts.len());
    guest.ok("mkdir -p /tmp/all && mount -t tmpfs -o size=600m none /tmp/all && dd if=/dev/zero of=/tmp/all/file bs=1M count=580")?;
    guest.send_line("poweroff -f")?;
    assert_eq!(guest.wait()?, 0);
    lab.ok(&format!("kill {pid}")).map(drop)
}

#[test]
fn a_host_with_6_12_goes_on_beside_guests_that_spin() -> Result<()> {
    let lab = small_host("6.12", "6.1")?.smp(3).cpu("Skylake-Client-v3").memory("3G").boot()?;
    lab.ok("colinux driver load")?;
    lab.spawn("drive")?.wait(LIMIT)?.ok()?;
    host_goes_on_beside(&lab, 1)?;
    host_goes_on_beside(&lab, 2)?;
    busy_memory(&lab)?;
    scattered_memory(&lab)?;
    end(lab)
}

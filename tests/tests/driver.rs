//! The driver alone: hand-made guests, whose every instruction is known, on two hosts.

use colinux_tests::{Lab, Process, Result, ensure};
use std::time::Duration;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

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
    let text = lab.spawn("drive crossings 1000000")?.wait(LIMIT)?.ok()?;
    ensure!(text.ends_with(" crossings\n"), "{text}");
    end(lab)
}

#[test]
fn a_host_with_6_12_goes_on_beside_guests_that_spin() -> Result<()> {
    let lab = host("6.12", 3, "Skylake-Client-v3")?;
    lab.spawn("drive")?.wait(LIMIT)?.ok()?;
    host_goes_on_beside(&lab, 1)?;
    host_goes_on_beside(&lab, 2)?;
    end(lab)
}

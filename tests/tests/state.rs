//! What the crossing carries, and what it must not lose.

use anyhow::Context;
use colinux_tests::patterns::{hold_patterns, install_probe, probe_disk};
use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// NMIs to send at least.
const ENOUGH: u64 = 1000;
/// An NMI that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(60);

/// NMIs that the host's CPUs have counted together.
fn counted(lab: &Lab) -> Result<u64> {
    Ok(lab
        .ok("awk '/NMI:/ { for (i = 2; i <= NF; i++) sum += $i; print sum + 0 }' /proc/interrupts")?
        .trim()
        .parse()?)
}

/// Waits for an NMI after the first `last`; two that wait at once would be one.
fn arrival(lab: &Lab, last: u64) -> Result<u64> {
    let start = Instant::now();
    loop {
        match counted(lab)? {
            count if count > last => return Ok(count),
            _ => ensure!(start.elapsed() < LIMIT, "it was lost"),
        }
    }
}

/// NMIs from the first instruction of a guest to its end: none is lost, and nothing else is either.
#[test]
fn nmis_from_the_first_instruction_to_the_end_are_all_delivered() -> Result<()> {
    let lab = host_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    probe_disk(&lab)?;
    let (before, sent, over) = (counted(&lab)?, AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<()> {
            let mut last = before;
            while !over.load(Ordering::Relaxed) {
                lab.nmi()?;
                let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
                last = arrival(&lab, last).with_context(|| format!("NMI {number}"))?;
            }
            Ok(())
        });
        let result =
            Guest::boot(&lab, &format!("{IMAGE} cpus=2 cobd1=/tmp/probe.img")).and_then(|mut guest| {
                install_probe(&mut guest)?;
                hold_patterns(&lab, &mut guest)?;
                // Unless their sender has failed.
                while sent.load(Ordering::Relaxed) < ENOUGH && !flood.is_finished() {
                    guest.ok("dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct status=none")?;
                }
                guest.power_off()
            });
        over.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| panicked())??;
        result
    })?;
    let (arrived, sent) = (counted(&lab)? - before, sent.into_inner());
    ensure!(sent >= ENOUGH, "only {sent} NMIs were sent");
    // More arrive than were sent: the rescue timer's own.
    ensure!(arrived >= sent, "{sent} NMIs were sent, {arrived} arrived");
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

fn panicked() -> std::io::Error {
    std::io::Error::other("the thread that sends NMIs panicked")
}

/// Another CPU, other tables: Intel with page table isolation in both worlds and four levels.
#[test]
fn registers_stay_on_an_intel_cpu_with_page_table_isolation() -> Result<()> {
    let lab = host_for("6.1", "6.12")?.smp(2).cpu("Skylake-Client-v3").cmdline("pti=on").boot()?;
    lab.ok("colinux driver load")?;
    probe_disk(&lab)?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} cpus=2 cobd1=/tmp/probe.img -- pti=on"))?;
    install_probe(&mut guest)?;
    ensure!(guest.ok("dmesg")?.contains("page tables isolation: enabled"), "no isolation in the guest");
    hold_patterns(&lab, &mut guest)?;
    guest.power_off()?;
    lab.power_off()
}

/// A CPU with few features: no XSAVE, no SMAP, no FSGSBASE, no PCID.
#[test]
fn a_cpu_with_few_features_runs_a_guest() -> Result<()> {
    let lab = host_for("6.12", "6.1")?.cpu("qemu64").boot()?;
    lab.ok("colinux driver load")?;
    probe_disk(&lab)?;
    let mut guest = Guest::boot(&lab, &format!("{IMAGE} cobd1=/tmp/probe.img"))?;
    install_probe(&mut guest)?;
    hold_patterns(&lab, &mut guest)?;
    guest.power_off()?;
    lab.power_off()
}

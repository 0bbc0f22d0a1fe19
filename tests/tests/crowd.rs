//! Many guests at once on two CPUs.

use colinux_tests::{Counters, EMULATED, Lab, Result, bad_lines, ensure, small_guest, small_host};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// For each sixteen guests.
const LIMIT: Duration = Duration::from_secs(180);
/// Waits for `$pids`, which must all succeed.
const WAIT: &str = "for pid in $pids; do wait $pid || exit; done";
/// What the driver may need for a guest with one vCPU.
const DRIVER_BYTES: u64 = 288 << 10;
/// KiB that the host's kernel may keep for itself after the processes of sixteen guests: less than a fifth of one guest's memory.
const KERNELS_OWN: i64 = 40 << 10;
/// Of each sixteen, those that are killed with `colinux kill`, and those with a signal; the others are stopped.
const KILLED: [usize; 5] = [3, 16, 8, 1, 11];
const SHOT: [usize; 4] = [10, 2, 15, 7];

#[test]
fn sixteen_guests_boot_together_and_end_in_any_order() -> Result<()> {
    together(16, "6G")
}

#[test]
#[ignore = "takes a quarter of an hour and 16 GiB: cargo xtask soak"]
fn sixty_four_guests_boot_together_and_end_in_any_order() -> Result<()> {
    together(64, "16G")
}

fn together(guests: usize, memory: &str) -> Result<()> {
    let sixteens = u32::try_from(guests / 16)?;
    let lab = small_host("6.1", "6.1")?.smp(2).memory(memory).lifetime(sixteens * 4 * LIMIT).boot()?;
    lab.ok("colinux driver load")?;
    let before = Counters::read(&lab)?;
    start_all(&lab, guests, sixteens * LIMIT)?;
    needs_little(&lab, guests)?;
    end_all(&lab, guests)?;
    let logs = lab.ok(&format!("for i in $(seq {guests}); do cat /tmp/g$i.log; done"))?;
    ensure!(bad_lines(&logs).is_empty(), "{:?}", bad_lines(&logs));
    before.check_within(&lab, i64::from(sixteens) * KERNELS_OWN)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// Starts all at the same moment, and waits until they have booted.
fn start_all(lab: &Lab, guests: usize, limit: Duration) -> Result<()> {
    let small = small_guest("name=g$i log=/tmp/g$i.log mem=200M");
    let start =
        format!("for i in $(seq {guests}); do colinux start {small} {EMULATED} & pids=\"$pids $!\"; done");
    lab.spawn(&format!("{start}; {WAIT}"))?.wait(limit)?.ok()?;
    let up = "until grep -q 'the small guest is up' /tmp/g$i.log; do pgrep -f name=g$i > /dev/null || { cat /tmp/g$i.log >&2; exit 1; }; sleep 0.5; done";
    lab.spawn(&format!("for i in $(seq {guests}); do {up}; done"))?.wait(limit)?.ok().map(drop)
}

/// The driver's own memory for each is what docs/performance.md says.
fn needs_little(lab: &Lab, guests: usize) -> Result<()> {
    for guest in [1, guests] {
        let stats: Value = serde_json::from_str(&lab.ok(&format!("colinux stats --json g{guest}"))?)?;
        let overhead = stats["overhead"].as_u64();
        println!("the driver's memory for guest {guest}: {overhead:?}");
        ensure!(overhead.is_some_and(|bytes| (1..DRIVER_BYTES).contains(&bytes)), "{stats}");
    }
    Ok(())
}

/// Ends them one after the other, some by the daemon, some by a signal that the daemon cannot see, and the rest in order.
fn end_all(lab: &Lab, guests: usize) -> Result<()> {
    let of_each_16 = |some: &[usize]| -> Vec<usize> {
        (0..guests / 16).flat_map(|round| some.iter().map(move |guest| round * 16 + guest)).collect()
    };
    let mut left: BTreeSet<usize> = (1..=guests).collect();
    assert_eq!(listed(lab)?, names(&left));
    for guest in of_each_16(&KILLED) {
        lab.ok(&format!("colinux kill g{guest}"))?;
        left.remove(&guest);
    }
    assert_eq!(listed(lab)?, names(&left));
    let shot = of_each_16(&SHOT);
    let words: Vec<_> = shot.iter().map(|guest| format!("g{guest}")).collect();
    let words = words.join(" ");
    lab.ok(&format!("for name in {words}; do pid=$(pgrep -f \"name=$name \") && kill -9 $pid || exit; while kill -0 $pid; do sleep 0.1; done; done"))?;
    left.retain(|guest| !shot.contains(guest));
    assert_eq!(listed(lab)?, names(&left));
    let stop: String =
        left.iter().map(|guest| format!("colinux stop g{guest} & pids=\"$pids $!\"; ")).collect();
    lab.spawn(&format!("{stop} {WAIT}"))?.wait(LIMIT)?.ok()?;
    assert_eq!(listed(lab)?, BTreeSet::new());
    lab.check_log()
}

/// The names of the guests that run.
fn listed(lab: &Lab) -> Result<BTreeSet<String>> {
    let list: Vec<Value> = serde_json::from_str(&lab.ok("colinux list --json")?)?;
    Ok(list.iter().filter_map(|guest| guest["name"].as_str().map(str::to_owned)).collect())
}

fn names(guests: &BTreeSet<usize>) -> BTreeSet<String> {
    guests.iter().map(|guest| format!("g{guest}")).collect()
}

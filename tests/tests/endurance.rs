//! Again and again, and at any moment: the host gets everything back.

use colinux_tests::{Counters, Guest, Lab, Result, ensure, small_host};
use std::thread;
use std::time::Duration;

const KILL: u8 = 9;
const BOOTS: u32 = 50;
/// Boots in a row on each of two terminals at once.
const LANES: u32 = 2;
const KILLS: usize = 20;
/// Hand-made guests, one after the other: so many that a lost page of each would show.
const HAND_MADE: u32 = 500;
/// The lines that the kernel prints until the shell is there, about.
const LINES: u64 = 180;
/// Milliseconds that loading a kernel takes, about, and those that hand-made guests do.
const LOADING: u64 = 3000;
const DRIVING: u64 = 700;
const LIMIT: Duration = Duration::from_secs(120);

fn boot_in_a_row(lab: &Lab, count: u32) -> Result<()> {
    for number in 1..=count {
        let mut guest = Guest::boot_small(lab, "", "")?;
        guest.check_kernel()?;
        guest.send_line("poweroff -f")?;
        let status = guest.wait()?;
        ensure!(status == 0, "boot {number} ended with status {status}:\n{}", guest.log());
    }
    Ok(())
}

/// Kills a guest while it is loaded or while its kernel starts, at a moment that `chance` chooses.
fn kill_at(lab: &Lab, chance: u64) -> Result<()> {
    let mut guest = Guest::start_small(lab, "cpus=2", "")?;
    if chance & 1 == 0 {
        thread::sleep(Duration::from_millis((chance >> 1) % LOADING));
    } else {
        (0..(chance >> 1) % LINES).try_for_each(|_| guest.wait_for("\n", LIMIT).map(drop))?;
    }
    guest.signal(KILL)?;
    assert_eq!(guest.wait()?, 128 + i32::from(KILL));
    Ok(())
}

/// Kills hand-made guests in whatever they do.
fn kill_hand_made_at(lab: &Lab, chance: u64) -> Result<()> {
    let mut process = lab.spawn("exec drive irqfd smp spin")?;
    thread::sleep(Duration::from_millis(chance % DRIVING));
    process.signal(KILL)?;
    // The last one may have been done already.
    let status = process.wait_status(LIMIT)?;
    ensure!(status == 0 || status == 128 + i32::from(KILL), "status {status}: {}", process.transcript());
    Ok(())
}

/// Numbers that look like chance and are the same in each run (Marsaglia's xorshift64).
fn chances() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x2545_f491_4f6c_dd1d_u64), |last| {
        let mut next = *last;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
}

#[test]
fn fifty_boots_and_twenty_kills_give_everything_back() -> Result<()> {
    let lab = small_host("6.1", "6.1")?.smp(2).lifetime(Duration::from_secs(900)).boot()?;
    lab.ok("colinux driver load")?;
    boot_in_a_row(&lab, 1)?;
    let before = Counters::read(&lab)?;
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(|| boot_in_a_row(&lab, BOOTS / LANES))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane panicked"))
    })?;
    chances().take(KILLS).try_for_each(|chance| kill_at(&lab, chance))?;
    lab.spawn(&format!("drive vms {HAND_MADE}"))?.wait(LIMIT)?.ok()?;
    chances().take(KILLS).try_for_each(|chance| kill_hand_made_at(&lab, chance))?;
    before.check_unchanged(&lab)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

//! A guest whose kernel goes wrong: it ends or can be ended, its last words are on the terminal, and the host goes on.

use colinux_lab::kernel::Kernel;
use colinux_tests::faults::{Fault, faulty};
use colinux_tests::{Guest, KERNEL, Lab, Result, ensure, host_goes_on};
use std::{fs, time::Duration};

const KILL: u8 = 9;
/// Ctrl-] q: stop at once.
const QUIT: &[u8] = b"\x1dq";

/// A guest that goes on answers in less.
const SILENCE: Duration = Duration::from_secs(20);

// The statuses that `colinux --help` lists.
const PANIC: i32 = 64;
const STOPPED: i32 = 67;

/// A host with a kernel that goes wrong on order.
fn host(host: &str, guest: &str, smp: u32) -> Result<Lab> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vmlinux");
    fs::write(&file, faulty(fs::read(Kernel::get(&guest.parse()?)?.vmlinuz)?)?)?;
    let lab = Lab::host(host).smp(smp).small_guest().file(KERNEL, &file).boot()?;
    lab.ok("colinux driver load")?;
    Ok(lab)
}

fn order(fault: Fault) -> String {
    format!("echo {} > /proc/sysrq-trigger", fault.key())
}

fn end(lab: Lab) -> Result<()> {
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// What the kernel says of what kills only the program that was running, unless `oops=panic`.
const OOPSES: [(Fault, &str); 2] =
    [(Fault::NullPointer, "BUG: kernel NULL pointer dereference"), (Fault::Bug, "kernel BUG at ")];

#[test]
fn an_oops_a_bug_and_a_stack_overflow_are_the_guests_own_until_it_panics() -> Result<()> {
    let lab = host("6.1", "6.12", 2)?;
    // As on any machine, the program that was running dies, and the kernel goes on.
    let mut guest = Guest::boot_small(&lab, "", "")?;
    for (fault, words) in OOPSES {
        guest.run(&format!("sh -c '{}'", order(fault)))?;
        ensure!(guest.log().contains(words), "no {words:?}:\n{}", guest.log());
    }
    guest.send_line(&order(Fault::StackOverflow))?;
    ends_in_panic(guest, "stack guard page was hit")?;
    for (fault, words) in OOPSES {
        let guest = Guest::boot_small(&lab, "", "oops=panic")?;
        guest.send_line(&order(fault))?;
        ends_in_panic(guest, words)?;
    }
    host_goes_on(&lab)?;
    end(lab)
}

fn ends_in_panic(mut guest: Guest<'_>, words: &str) -> Result<()> {
    let status = guest.wait_after_trouble()?;
    let log = guest.log();
    ensure!(status == PANIC, "status {status}:\n{log}");
    let last = log.lines().last().unwrap_or_default();
    ensure!(log.contains(words) && last.contains("Kernel panic"), "the last words lack {words:?}:\n{log}");
    Ok(())
}

/// An error if the guest still does a command behind `words`.
fn hangs(guest: &mut Guest<'_>, words: &str) -> Result<()> {
    guest.send_line(&format!("{words}sh -c \"echo ans''wers\""))?;
    ensure!(guest.wait_for("answers", SILENCE).is_err(), "it does not hang:\n{}", guest.log());
    Ok(())
}

#[test]
fn a_guest_that_hangs_with_interrupts_off_is_stopped_and_the_host_goes_on() -> Result<()> {
    let lab = host("6.12", "6.1", 3)?;
    let on_cpu = |cpu: u32| format!("taskset {} sh -c '{}' &", 1 << cpu, order(Fault::Hang));
    // One vCPU of two: the other one still powers the guest off.
    let mut guest = Guest::boot_small(&lab, "cpus=2", "")?;
    guest.send_line(&on_cpu(1))?;
    host_goes_on(&lab)?;
    hangs(&mut guest, "taskset 2 ")?;
    guest.press(QUIT)?;
    assert_eq!(guest.wait_after_trouble()?, STOPPED);
    // All of them: with interrupts off nothing but an NMI ends this.
    for (stop, status) in [(None, STOPPED), (Some(KILL), 128 + i32::from(KILL))] {
        let mut guest = Guest::boot_small(&lab, "cpus=2", "")?;
        guest.send_line(&format!("{} {}", on_cpu(1), on_cpu(0)))?;
        host_goes_on(&lab)?;
        hangs(&mut guest, "")?;
        match stop {
            Some(signal) => guest.signal(signal)?,
            None => guest.press(QUIT)?,
        }
        assert_eq!(guest.wait_after_trouble()?, status);
        lab.check_log()?;
    }
    end(lab)
}

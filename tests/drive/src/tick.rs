//! What the host's ticks cost a program that only computes, beside a guest and in one: in instructions, where the lab counts those as time.

use crate::guest::{Guest, expect_power_off};
use crate::op::{STI, call, count};
use anyhow::{Context, Result};
use colinux_abi::hypercall::SHUTDOWN;
use colinux_driver::Driver;
use std::fs;
use std::time::Instant;

const FEW: u64 = 1_000_000;
const MANY: u64 = 501_000_000;

/// A run of a loop: its nanoseconds and the interrupts that came meanwhile.
struct Run {
    time: f64,
    interrupts: f64,
}

/// Prints the cost of an interrupt to a host program and to a guest.
pub fn cost(driver: &Driver) -> Result<()> {
    let turn = (undisturbed(500_000) - undisturbed(100_000)) / 400_000.0;
    let before = interrupts()?;
    let host = Run { time: host_loop(MANY), interrupts: interrupts()? - before };
    print("host_interrupt", host.time - MANY as f64 * turn, host.interrupts);
    let (few, many) = (guest_loop(driver, FEW)?, guest_loop(driver, MANY)?);
    // A turn is two instructions.
    let more = many.time - few.time - (MANY - FEW) as f64 * 2.0;
    print("guest_interrupt", more, many.interrupts - few.interrupts);
    Ok(())
}

/// The least of several short runs: some of them meet no interrupt.
fn undisturbed(turns: u64) -> f64 {
    (0..20).map(|_| host_loop(turns)).fold(f64::MAX, f64::min)
}

fn print(name: &str, time: f64, interrupts: f64) {
    eprintln!("{name}: {time:.0} ns more for {interrupts} interrupts");
    println!("{name} {:.0}", time / interrupts);
}

fn host_loop(turns: u64) -> f64 {
    let start = Instant::now();
    for turn in 0..turns {
        std::hint::black_box(turn);
    }
    start.elapsed().as_nanos() as f64
}

fn guest_loop(driver: &Driver, turns: u64) -> Result<Run> {
    let guest = Guest::new(driver, 1)?;
    guest.program(0, &[STI, count(turns), call(SHUTDOWN, 0, 0)])?;
    let vcpu = guest.boot()?;
    let start = Instant::now();
    expect_power_off(&vcpu)?;
    let time = start.elapsed().as_nanos() as f64;
    Ok(Run { time, interrupts: guest.vm.stats()?.interrupts as f64 })
}

/// Interrupts of all kinds that the host has had so far.
fn interrupts() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("intr ")).context("/proc/stat has no intr")?;
    Ok(line.split(' ').next().context("an empty intr line")?.parse()?)
}

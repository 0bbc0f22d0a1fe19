//! What a crossing does, carries and counts.

use crate::guest::{Guest, expect, expect_power_off, op_address};
use crate::op::{GET_XMM, STI, XSAVE_ON, call, repeat, set_xmm, wait};
use anyhow::{Result, ensure};
use colinux_abi::{
    hypercall::{
        CONFIG_WRITTEN, CONSOLE, DEVICE_STATUS, IDLE, NOTIFY, RAISE, SHUTDOWN, TIMER, WALL_CLOCK, YIELD,
    },
    ioctl::{CONSOLE_DEVICE, exit},
    page::event,
};
use colinux_driver::{Driver, EventFd};
use std::time::Instant;

const PATTERN: u64 = 0x1234_5678_9abc_def0;
/// Index of a hypercall in the statistics: its reason less this.
const FIRST_COUNTED: u64 = 16;

/// Every hypercall of a guest with one vCPU, and a second start after a reset.
pub fn basics(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    guest.program(
        0,
        &[
            call(WALL_CLOCK, 0, 0),
            repeat(1000, op_address(0, 0)),
            call(NOTIFY, 3, 1),
            call(CONSOLE, 0, 0),
            call(TIMER, 5_000_000, 0),
            call(IDLE, 0, 0),
            wait(event::TIMER),
            call(DEVICE_STATUS, 4, 0),
            call(CONFIG_WRITTEN, 5, 0),
            call(CONSOLE, 1, 0),
            call(SHUTDOWN, 0, 0),
        ],
    )?;
    let (queue, console) = (EventFd::new()?, EventFd::new()?);
    guest.vm.ioeventfd(&queue, 3, 1)?;
    guest.vm.ioeventfd(&console, CONSOLE_DEVICE, 0)?;
    let vcpu = guest.boot()?;
    expect(&vcpu, exit::DEVICE_STATUS, 4)?;
    expect(&vcpu, exit::CONFIG_WRITTEN, 5)?;
    expect(&vcpu, exit::CONSOLE, 0)?;
    expect_power_off(&vcpu)?;
    expect(&vcpu, exit::STOPPED, 0)?;
    queue.wait()?;
    console.wait()?;
    let counted = guest.vm.stats()?.hypercalls[(WALL_CLOCK - FIRST_COUNTED) as usize];
    ensure!(counted == 1000, "{counted} crossings were counted, not 1000");
    guest.vm.reset()?;
    vcpu.set_state(&guest.start(0))?;
    guest.program(0, &[call(WALL_CLOCK, 0, 0), call(SHUTDOWN, 0, 0)])?;
    expect_power_off(&vcpu)
}

/// An SSE register stays the guest's, before and after the guest turns XSAVE on.
pub fn fpu(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    let away =
        [STI, call(YIELD, 0, 0), call(DEVICE_STATUS, 0, 0), call(TIMER, 1_000_000, 0), call(IDLE, 0, 0)];
    let legacy = [&[set_xmm(PATTERN)], &away[..], &[wait(event::TIMER), GET_XMM]].concat();
    let modern = [&[XSAVE_ON, set_xmm(!PATTERN)], &away[..], &[wait(event::TIMER), GET_XMM]].concat();
    let program = [&legacy[..], &modern, &[call(SHUTDOWN, 0, 0)]].concat();
    guest.program(0, &program)?;
    let vcpu = guest.boot()?;
    expect(&vcpu, exit::DEVICE_STATUS, 0)?;
    expect(&vcpu, exit::DEVICE_STATUS, 0)?;
    expect_power_off(&vcpu)?;
    let last = |ops: usize| guest.result(0, ops as u64 - 1);
    let (before, after) = (last(legacy.len())?, last(legacy.len() + modern.len())?);
    ensure!(before == PATTERN, "XMM15 became {before:#x} before XSAVE was on");
    ensure!(after == !PATTERN, "XMM15 became {after:#x} after XSAVE was on");
    Ok(())
}

/// Crosses `count` times at least, with a pattern in a register.
pub fn many(driver: &Driver, count: u64) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    guest.program(
        0,
        &[
            set_xmm(PATTERN),
            call(WALL_CLOCK, 0, 0),
            repeat(count, op_address(0, 1)),
            GET_XMM,
            call(SHUTDOWN, 0, 0),
        ],
    )?;
    expect_power_off(&guest.boot()?)?;
    let (pattern, stats) = (guest.result(0, 3)?, guest.vm.stats()?);
    let crossings = stats.crossings;
    ensure!(pattern == PATTERN, "XMM15 became {pattern:#x}");
    ensure!(crossings >= count, "{crossings} crossings were counted, not {count}");
    println!(
        "{crossings} crossings, {} NMIs in the guest and {} in the crossing",
        stats.nmis, stats.passage_nmis
    );
    Ok(())
}

/// What a round trip costs that does nothing but cross: in instructions, where the lab counts those as time.
pub fn cost(driver: &Driver) -> Result<()> {
    const FEW: u64 = 1_000;
    const MANY: u64 = 101_000;
    let each = (timed(driver, MANY)? - timed(driver, FEW)?) / (MANY - FEW) as f64;
    println!("a hypercall that does nothing: {each:.1} ns");
    Ok(())
}

/// Nanoseconds that so many hypercalls take, which raise no event on no vCPU.
fn timed(driver: &Driver, count: u64) -> Result<f64> {
    let guest = Guest::new(driver, 1)?;
    guest.program(0, &[call(RAISE, 0, 0), repeat(count, op_address(0, 0)), call(SHUTDOWN, 0, 0)])?;
    let vcpu = guest.boot()?;
    let start = Instant::now();
    expect_power_off(&vcpu)?;
    Ok(start.elapsed().as_nanos() as f64)
}

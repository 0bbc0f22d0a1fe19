//! Events: eventfds and other vCPUs.

use crate::guest::{Guest, expect, expect_power_off, op_address};
use crate::op::{SPIN, STI, call, repeat, wait};
use anyhow::{Result, anyhow, ensure};
use colinux_abi::{
    hypercall::{IDLE, NOTIFY, RAISE, SHUTDOWN, START_VCPU},
    ioctl::exit,
    page::event,
    window,
};
use colinux_driver::{Driver, EventFd};
use std::thread;

const ROUNDS: u64 = 300;
/// Offset of `DevicePage::isr`.
const ISR: u64 = std::mem::offset_of!(colinux_abi::device::DevicePage, isr) as u64;

/// Each notification of the guest is answered by an interrupt.
pub fn irqfd(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    let round = [call(NOTIFY, 0, 0), call(IDLE, 0, 0), wait(event::DEVICE), repeat(ROUNDS, op_address(0, 1))];
    guest.program(0, &[&[STI], &round[..], &[call(SHUTDOWN, 0, 0)]].concat())?;
    let (kick, interrupt) = (EventFd::new()?, EventFd::new()?);
    guest.vm.ioeventfd(&kick, 0, 0)?;
    guest.vm.irqfd(&interrupt, 0, 0)?;
    let device = thread::spawn(move || -> Result<()> {
        for _ in 0..ROUNDS {
            kick.wait()?;
            interrupt.signal();
        }
        Ok(())
    });
    expect_power_off(&guest.boot()?)?;
    device.join().map_err(|_| anyhow!("the device's thread panicked"))??;
    let isr = guest.load(window::DEVICE_PAGES + ISR)?;
    ensure!(isr == 1, "the interrupt status is {isr:#x}");
    Ok(())
}

/// A vCPU starts another one, and they wake each other.
pub fn smp(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 2)?;
    guest.prepare_start(1)?;
    let wake = |vcpu: u64| call(RAISE, 1 << vcpu, event::RESCHEDULE);
    let sleep = [call(IDLE, 0, 0), wait(event::RESCHEDULE)];
    let first = [
        &[STI, call(START_VCPU, 1, 0)],
        &sleep[..],
        &[wake(1), repeat(ROUNDS, op_address(0, 2)), call(START_VCPU, 1, 0), call(SHUTDOWN, 0, 0)],
    ];
    guest.program(0, &first.concat())?;
    let second = [&[STI, wake(0)], &sleep[..], &[repeat(ROUNDS, op_address(1, 1)), SPIN]];
    guest.program(1, &second.concat())?;
    let other = guest.vm.create_vcpu(1)?;
    let other = thread::spawn(move || expect(&other, exit::STOPPED, 0));
    expect_power_off(&guest.boot()?)?;
    other.join().map_err(|_| anyhow!("the second vCPU's thread panicked"))??;
    let starts = (guest.result(0, 1)?, guest.result(0, 6)?);
    ensure!(starts == (0, 1), "the two starts of the second vCPU returned {starts:?}");
    Ok(())
}

//! Guests and callers that break the rules: each is refused or ended once, with a reason.

use crate::guest::{Guest, SIZE, expect};
use crate::op::call;
use anyhow::{Result, ensure};
use colinux_abi::{
    hypercall,
    ioctl::{VcpuState, exit},
};
use colinux_driver::Driver;

/// All of them.
pub fn all(driver: &Driver) -> Result<()> {
    guests(driver)?;
    callers(driver)
}

fn guests(driver: &Driver) -> Result<()> {
    let bad = [
        (call(99, 0, 0), 99),
        (call(hypercall::INTERRUPT, 0x80, 0), hypercall::INTERRUPT),
        (call(hypercall::NOTIFY, 32, 0), hypercall::NOTIFY),
        // The arguments in its page are zero, and so is the page table root.
        (call(hypercall::START_VCPU, 1, 0), hypercall::START_VCPU),
    ];
    for (op, reason) in bad {
        let guest = Guest::new(driver, 2)?;
        guest.program(0, &[op])?;
        let vcpu = guest.boot()?;
        expect(&vcpu, exit::FAILED, reason)?;
        expect(&vcpu, exit::STOPPED, 0)?;
    }
    Ok(())
}

fn callers(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 2)?;
    let vm = &guest.vm;
    ensure!(vm.create_vcpu(2).is_err(), "a vCPU too many was made");
    let vcpu = vm.create_vcpu(0)?;
    ensure!(vm.create_vcpu(0).is_err(), "a vCPU was made twice");
    ensure!(vcpu.run().is_err(), "a vCPU without a state ran");
    for cr3 in [0, guest.base + SIZE, guest.base | 1 << 63, u64::MAX] {
        let state = VcpuState { cr3, ..guest.start(0) };
        ensure!(vcpu.set_state(&state).is_err(), "the page table root {cr3:#x} was taken");
    }
    drop(vcpu);
    vm.create_vcpu(0)?;
    ensure!(vm.set_window(guest.base + 4096).is_err(), "a window was put across a boundary");
    ensure!(vm.set_window(guest.base + SIZE).is_err(), "a window was put outside of the guest's memory");
    ensure!(vm.raise(2, 1).is_err(), "an event was raised on no vCPU");
    ensure!(vm.raise(0, 1 << 60).is_err(), "an event that does not exist was raised");
    ensure!(driver.create_vm(0, 0).is_err(), "a VM without vCPUs was made");
    ensure!(driver.create_vm(65, 0).is_err(), "a VM with 65 vCPUs was made");
    Ok(())
}

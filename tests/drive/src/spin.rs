//! Guests that never leave by themselves.

use crate::guest::{Guest, expect};
use crate::op::{CLI, Op, SPIN, STI, call};
use anyhow::{Context, Result, anyhow, bail, ensure};
use colinux_abi::{hypercall::START_VCPU, ioctl::exit};
use colinux_driver::{Driver, EventFd, Run};
use nix::sys::{pthread, signal::Signal};
use std::sync::{Arc, atomic::AtomicBool, mpsc};
use std::thread;
use std::time::Duration;

/// How long a guest spins before it is stopped.
const SPIN_TIME: Duration = Duration::from_millis(500);

/// Stops a guest that lets interrupts in.
pub fn open(driver: &Driver) -> Result<()> {
    stopped(driver, STI)
}

/// Stops a guest that keeps interrupts out: an NMI fetches it.
pub fn closed(driver: &Driver) -> Result<()> {
    stopped(driver, CLI)
}

fn stopped(driver: &Driver, first: Op) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    guest.program(0, &[first, SPIN])?;
    let vm = guest.vm.clone();
    let stop = thread::spawn(move || {
        thread::sleep(SPIN_TIME);
        vm.stop()
    });
    expect(&guest.boot()?, exit::STOPPED, 0)?;
    stop.join().map_err(|_| anyhow!("the thread that stops the guest panicked"))??;
    Ok(())
}

/// A signal to the vCPU's thread interrupts it.
pub fn signal(driver: &Driver) -> Result<()> {
    let _caught =
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))?;
    let guest = Guest::new(driver, 1)?;
    guest.program(0, &[STI, call(colinux_abi::hypercall::NOTIFY, 0, 0), SPIN])?;
    let running = EventFd::new()?;
    guest.vm.ioeventfd(&running, 0, 0)?;
    let vcpu = guest.boot()?;
    let (send, receive) = mpsc::channel();
    let runner = thread::spawn(move || -> Result<Run> {
        send.send(pthread::pthread_self())?;
        Ok(vcpu.run()?)
    });
    let thread = receive.recv().context("the vCPU's thread ended")?;
    running.wait()?;
    pthread::pthread_kill(thread, Signal::SIGUSR1)?;
    match runner.join().map_err(|_| anyhow!("the vCPU's thread panicked"))?? {
        Run::Interrupted => Ok(()),
        Run::Exit(exit) => bail!("{exit:x?} instead of an interruption"),
    }
}

/// Spins with interrupts out on one or two vCPUs until the process is killed.
pub fn forever(driver: &Driver, vcpus: u32) -> Result<()> {
    ensure!((1..=2).contains(&vcpus), "one vCPU or two, not {vcpus}");
    let guest = Guest::new(driver, vcpus)?;
    let start: &[Op] = if vcpus == 2 { &[call(START_VCPU, 1, 0)] } else { &[] };
    guest.program(0, &[start, &[CLI, SPIN]].concat())?;
    guest.program(1, &[CLI, SPIN])?;
    let boot = guest.boot()?;
    if vcpus == 2 {
        guest.prepare_start(1)?;
        let other = guest.vm.create_vcpu(1)?;
        thread::spawn(move || expect(&other, exit::STOPPED, 0));
    }
    println!("spinning");
    expect(&boot, exit::STOPPED, 0)
}

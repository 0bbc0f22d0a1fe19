//! Guests that never leave by themselves.

use crate::guest::{Guest, expect};
use crate::op::{CLI, Op, SPIN, STI, call};
use anyhow::{Context, Result, anyhow, bail, ensure};
use colinux_abi::{hypercall::START_VCPU, ioctl::exit};
use colinux_driver::{Driver, EventFd, Run};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::{pthread, signal::Signal};
use nix::unistd::{Pid, gettid};
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

/// Milliseconds for which an interrupt is in service before the guest tells of it: NMIs come meanwhile, whose period is 10 ms.
const LATE: u64 = 25;
/// How often the vCPU's thread is sent to another CPU, and how long it is there.
const MOVES: u32 = 60;
const STAY: Duration = Duration::from_millis(20);

/// NMIs come between the acceptance of an interrupt and the exit that tells of it, while the vCPU's thread is wanted elsewhere: each CPU keeps its timer.
pub fn late(driver: &Driver) -> Result<()> {
    let guest = Guest::new(driver, 1)?;
    guest.tell_late(u32::try_from(LATE * driver.info().tsc_khz)?)?;
    guest.program(0, &[STI, SPIN])?;
    let (vcpu, vm) = (guest.boot()?, guest.vm.clone());
    let (send, receive) = mpsc::channel();
    let runner = thread::spawn(move || -> Result<()> {
        send.send(gettid())?;
        expect(&vcpu, exit::STOPPED, 0)
    });
    let thread = receive.recv().context("the vCPU's thread ended")?;
    for round in 0..MOVES {
        pin(thread, (round % 2) as usize)?;
        thread::sleep(STAY);
    }
    vm.stop()?;
    runner.join().map_err(|_| anyhow!("the vCPU's thread panicked"))??;
    // A CPU without a timer would not wake us.
    for cpu in 0..2 {
        pin(Pid::from_raw(0), cpu)?;
        thread::sleep(STAY);
    }
    Ok(())
}

fn pin(thread: Pid, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(thread, &cpus)?)
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

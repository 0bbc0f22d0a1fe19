//! [`colinux_monitor::Host`] over kernel functions.

use crate::bindings::{cpu, sched, time};
use crate::doorbell::locks_sleep;
use crate::kick::Handles;
use crate::vm::VmObject;
use crate::{percpu, rescue};
use colinux_cpu::{Arrivals, Exit};
use colinux_monitor::{CpuWorld, Doorbell, Host, Interrupted, Paging, WallClock, World};
use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::cell::Cell;

/// The kernel, as one VM sees it.
pub struct LinuxHost<'a> {
    vm: &'a VmObject,
    /// Breakpoints of the CPU when the residency began. An interrupt changes them for a tracer of all CPUs.
    breakpoints: Cell<u64>,
}

impl<'a> LinuxHost<'a> {
    /// For this VM.
    pub fn new(vm: &'a VmObject) -> Self {
        Self { vm, breakpoints: Cell::new(0) }
    }

    fn with<R: Default>(&self, vcpu: usize, work: impl FnOnce(&Handles) -> R) -> R {
        self.vm.handles.get(vcpu).map(work).unwrap_or_default()
    }
}

impl Host for LinuxHost<'_> {
    fn pin(&self, vcpu: usize) {
        percpu::preempt_disable();
        self.breakpoints.set(percpu::breakpoints());
        // SAFETY: process context; no bits, because the residency loads the whole state itself.
        unsafe { cpu::kernel_fpu_begin_mask(0) };
        self.with(vcpu, Handles::pinned);
        rescue::enter();
    }

    fn unpin(&self, vcpu: usize) {
        rescue::leave();
        self.with(vcpu, Handles::unpinned);
        // SAFETY: begun in `pin`.
        unsafe { cpu::kernel_fpu_end() };
        percpu::preempt_enable();
    }

    fn irqs_off(&self) {
        // SAFETY: the monitor opens them again.
        unsafe { asm!("cli", options(nostack)) };
    }

    fn irqs_on(&self) {
        // SAFETY: the monitor closed them. The nop ends the shadow of sti, so that what waits comes in here even if interrupts are closed again at once.
        unsafe { asm!("sti", "nop", options(nostack)) };
    }

    fn must_yield(&self) -> bool {
        percpu::need_resched() || percpu::breakpoints() != self.breakpoints.get()
    }

    fn is_alone(&self) -> bool {
        // SAFETY: reads a word of the CPU that it runs on; any context.
        !percpu::need_resched()
            && sched::single_task_running::present()
            && unsafe { sched::single_task_running() }
    }

    fn reschedule(&self) {
        if percpu::need_resched() {
            // SAFETY: process context, nothing held.
            unsafe { sched::schedule() };
        }
    }

    fn yield_now(&self) {
        // SAFETY: process context, nothing held.
        unsafe { sched::yield_now() };
    }

    fn interrupted(&self, vcpu: usize) -> bool {
        self.with(vcpu, |handles| handles.queue().interrupted())
    }

    fn block(&self, vcpu: usize, ready: impl Fn() -> bool) -> Result<(), Interrupted> {
        match self.vm.handles.get(vcpu) {
            Some(handles) => handles.queue().wait(ready),
            None => Err(Interrupted),
        }
    }

    fn kick(&self, vcpu: usize) {
        self.with(vcpu, Handles::kick);
    }

    fn wake(&self, vcpu: usize) {
        self.with(vcpu, |handles| handles.queue().wake());
    }

    fn has_memory(&self, gpa: u64, len: u64) -> bool {
        self.vm.config.lock().extents.contains(gpa, len)
    }

    fn set_timer(&self, vcpu: usize, nanoseconds: Option<u64>) {
        self.with(vcpu, |handles| handles.set_timer(nanoseconds));
    }

    fn interrupt_self(&self, vcpu: usize) {
        self.with(vcpu, Handles::interrupt_self);
    }

    fn nmi_self(&self) {
        rescue::nmi_self();
    }

    fn notify(&self, doorbell: Doorbell) -> bool {
        if locks_sleep() {
            let _held = self.vm.config.lock();
            self.vm.doorbells.ring(doorbell)
        } else {
            self.vm.doorbells.ring(doorbell)
        }
    }

    fn wall_clock(&self) -> WallClock {
        let mut time = [0u64; 2];
        // SAFETY: any context; the room is large enough (checked by the loader), and so are the fields within it.
        unsafe {
            time::ktime_get_real_ts64(&raw mut time);
            let tsc = _rdtsc();
            let time = (&raw const time).cast();
            let (seconds, nanoseconds) =
                (time::TIMESPEC_SECONDS.read(time), time::TIMESPEC_NANOSECONDS.read(time));
            WallClock { seconds: seconds as u64, nanoseconds: nanoseconds as u64, tsc }
        }
    }

    fn ticks(&self) -> u64 {
        // SAFETY: every x86-64 CPU has it.
        unsafe { _rdtsc() }
    }

    fn ticks_per_millisecond(&self) -> u64 {
        u64::from(tsc_khz())
    }

    fn locks_sleep(&self) -> bool {
        locks_sleep()
    }

    fn rescued(&self) -> bool {
        rescue::take_claim()
    }
}

/// Frequency of the TSC.
pub fn tsc_khz() -> u32 {
    // SAFETY: set at boot; a refinement writes the whole word.
    unsafe { (&raw const time::tsc_khz).read_volatile() }
}

/// The real crossing, which tells the rescue timer of each exit.
pub struct WatchedWorld {
    world: CpuWorld,
    pulse: rescue::Pulse,
    /// The host had breakpoints when the residency began.
    breakpoints: bool,
}

impl WatchedWorld {
    /// Watches it.
    pub fn new(world: CpuWorld) -> Self {
        Self { world, pulse: rescue::Pulse::default(), breakpoints: false }
    }
}

// SAFETY: passed on to the real one.
unsafe impl World for WatchedWorld {
    fn set_start(&mut self, state: &colinux_abi::ioctl::VcpuState) {
        self.world.set_start(state);
    }

    unsafe fn load(&mut self, breakpoints: Option<[u64; 4]>) {
        self.breakpoints = percpu::breakpoints() != 0;
        // SAFETY: passed on to the caller.
        unsafe { self.world.load(breakpoints) };
        self.pulse = rescue::Pulse::here();
    }

    unsafe fn put(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { self.world.put() };
        if self.breakpoints || percpu::breakpoints() != 0 {
            // An interrupt may have changed them since.
            // SAFETY: interrupts are off, and the residency has just ended.
            unsafe { percpu::restore_breakpoints() };
        }
    }

    #[inline]
    unsafe fn cross(&mut self) -> Exit {
        // SAFETY: passed on to the caller.
        let exit = unsafe { self.world.cross() };
        self.pulse.beat();
        exit
    }

    #[inline]
    fn take_arrivals(&mut self) -> Option<Arrivals> {
        self.world.take_arrivals()
    }

    #[inline]
    fn host_in_vmx(&mut self) -> bool {
        self.world.host_in_vmx()
    }

    #[inline]
    fn bad_paging(&mut self) -> Option<Paging> {
        self.world.bad_paging()
    }

    fn set_return(&mut self, value: u64) {
        self.world.set_return(value);
    }

    unsafe fn raise_vector(&mut self, vector: u8) {
        // SAFETY: passed on to the caller.
        unsafe { self.world.raise_vector(vector) };
    }

    unsafe fn raise_nmi(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { self.world.raise_nmi() };
    }

    unsafe fn raise_machine_check(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { self.world.raise_machine_check() };
    }
}

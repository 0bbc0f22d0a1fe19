//! The run loop of one vCPU.
//!
//! Two levels: the *outer* loop runs in an ordinary thread context, where the thread may sleep, be scheduled and take signals. The *inner* loop is a residency: the
//! vCPU has the CPU for itself, and goes back and forth between guest and host by crossings alone.
//!
//! Every way into the guest passes [`Runner::must_leave`], the one re-entry check; every way out opens interrupts on the host before anything else is done that takes
//! time. (In the trial, one path that missed the check cost a timer tick for each hop of a packet.)

use crate::call::{Call, Doorbell, Physical, reason};
use crate::error::{Fault, HostError};
use crate::host::{Host, Interrupted, World};
use crate::vcpu::{RunState, Vcpu, check_start};
use crate::vm::Vm;
use crate::window::Window;
use colinux_abi::hypercall::{FIRST_HYPERCALL, IRQS_OFF, START_VCPU};
use colinux_abi::ioctl::{RunExit, VcpuState, exit};
use colinux_cpu::{Arrivals, Exit};

/// Most NMIs and machine checks that are passed on after one crossing. The CPU holds at most two; the count lies in a page that the guest can write.
const MOST_FORWARDED: u16 = 2;
/// Most exits in a row that are believed to have come from the object's way out: an NMI in it, a machine check in the handling of that, and some more. A guest that says
/// so for ever is not kept.
const MOST_ON_THE_WAY: u32 = 64;

/// Why the inner loop ends.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// The re-entry check said so.
    Reschedule,
    /// The guest has ended.
    Ended,
    /// It is time to look for signals.
    Signals,
    /// Nothing to do until an event comes.
    Idle,
    /// Others shall run.
    Yield,
    /// This vCPU stops until it is started again.
    Stop,
    /// The call needs locks that may sleep.
    Locks(Call),
    /// The daemon has to do something.
    User(RunExit),
    /// The guest misbehaved. (To end it takes locks.)
    Fail(Fault),
    /// The host has gone into VMX operation.
    Vmx,
}

/// Runs vCPU `index` until the daemon is needed.
///
/// # Errors
/// [`HostError::Interrupted`] for a signal (run again to go on), [`HostError::Busy`] when another thread runs it, [`HostError::Invalid`] before the window or the boot
/// CPU's start state is set, [`HostError::NotFound`] for an index out of range, [`HostError::VmxOperation`] when another hypervisor has begun to use the CPU: the guest has
/// ended then.
pub fn run(vm: &Vm, index: usize, host: &impl Host, world: &mut impl World) -> Result<RunExit, HostError> {
    let vcpu = vm.vcpu(index).ok_or(HostError::NotFound)?;
    vm.enter(vcpu)?;
    // Not before: while a vCPU is in `RUN`, the window does not move.
    let result = vm.window().ok_or(HostError::Invalid).and_then(|window| {
        let mut runner = Runner {
            vm,
            vcpu,
            window,
            index,
            host,
            world,
            silent: vcpu.is_silent(),
            checked: 0,
            calls: 0,
            on_the_way: 0,
        };
        let result = runner.outer();
        vcpu.set_silent(runner.silent);
        result
    });
    vm.exit(vcpu);
    result
}

struct Runner<'a, H, W> {
    vm: &'a Vm,
    vcpu: &'a Vcpu,
    window: Window,
    index: usize,
    host: &'a H,
    world: &'a mut W,
    /// The guest will not look for events when it goes on.
    silent: bool,
    /// When signals were looked for.
    checked: u64,
    /// Hypercalls in a row; each 256th looks for signals.
    calls: u8,
    /// Exits in a row that interrupted the object on its way out.
    on_the_way: u32,
}

const STOPPED: RunExit = run_exit(exit::STOPPED, 0);

const fn run_exit(reason: u32, arg0: u64) -> RunExit {
    RunExit { reason, reserved: 0, arg0, arg1: 0 }
}

const fn notified(device: usize, queue: usize) -> RunExit {
    RunExit { reason: exit::NOTIFY, reserved: 0, arg0: device as u64, arg1: queue as u64 }
}

fn user(reason: u32, arg0: u64) -> Leave {
    Leave::User(run_exit(reason, arg0))
}

impl<H: Host, W: World> Runner<'_, H, W> {
    fn outer(&mut self) -> Result<RunExit, HostError> {
        loop {
            if self.vm.ended() {
                return Ok(STOPPED);
            }
            if self.host.interrupted(self.index) {
                return Err(HostError::Interrupted);
            }
            self.checked = self.host.ticks();
            if self.is_running()? {
                let mut leave = self.reside();
                if let Leave::Locks(call) = leave {
                    leave = self.perform(call).unwrap_or(Leave::Signals);
                }
                if let Some(exit) = self.act(leave)? {
                    return Ok(exit);
                }
            }
        }
    }

    /// True when the vCPU can go to the guest; waits for its start otherwise.
    fn is_running(&mut self) -> Result<bool, HostError> {
        if self.vcpu.state() == RunState::Running {
            return Ok(true);
        }
        if let Some(start) = self.vcpu.take_start() {
            self.world.set_start(&start);
            self.silent = true;
            return Ok(true);
        }
        if self.index == 0 && self.vcpu.state() == RunState::New {
            return Err(HostError::Invalid);
        }
        let vcpu = self.vcpu;
        self.block(|| vcpu.state() == RunState::Ready)?;
        Ok(false)
    }

    /// What is done between two residencies.
    fn act(&mut self, leave: Leave) -> Result<Option<RunExit>, HostError> {
        match leave {
            Leave::Reschedule => self.host.reschedule(),
            Leave::Yield => self.host.yield_now(),
            Leave::Stop | Leave::Ended | Leave::Signals | Leave::Locks(_) => {}
            Leave::User(exit) => return Ok(Some(exit)),
            Leave::Fail(fault) => return Ok(self.finish(fault.exit())),
            Leave::Idle => self.idle()?,
            Leave::Vmx if self.vm.end(self.host) => return Err(HostError::VmxOperation),
            Leave::Vmx => {}
        }
        Ok(None)
    }

    /// Waits for an event: awake for as long as that has paid, then asleep.
    fn idle(&self) -> Result<(), HostError> {
        let (window, index) = (self.window, self.index);
        let (begun, most) =
            (self.host.ticks(), self.vm.halt_poll() * self.host.ticks_per_millisecond() / 1000);
        if self.wait_awake(begun) {
            self.vcpu.counters.awake.add_alone(1);
        } else {
            self.block(|| window.pending(index) != 0)?;
        }
        self.vcpu.patience.learn(self.host.ticks().wrapping_sub(begun), most);
        Ok(())
    }

    /// True when there is something to do. Whoever raises an event meanwhile need not wake anybody; nobody else waits for this CPU.
    fn wait_awake(&self, begun: u64) -> bool {
        let patience = self.vcpu.patience.ticks();
        while self.host.ticks().wrapping_sub(begun) < patience && self.host.is_alone() {
            if self.window.pending(self.index) != 0 || self.vm.ended() {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }

    fn block(&self, ready: impl Fn() -> bool) -> Result<(), HostError> {
        self.vcpu.blocks();
        let result = self.host.block(self.index, || self.vm.ended() || ready());
        self.vcpu.leaves();
        result.map_err(|Interrupted| HostError::Interrupted)
    }

    /// The inner loop.
    fn reside(&mut self) -> Leave {
        self.vcpu.counters.residencies.add_alone(1);
        self.host.pin(self.index);
        self.host.irqs_off();
        // SAFETY: pinned, interrupts off.
        unsafe { self.world.load(self.window.breakpoints(self.index)) };
        let leave = loop {
            if let Some(leave) = self.must_leave() {
                break leave;
            }
            if let Some(leave) = self.round() {
                break leave;
            }
        };
        self.vcpu.leaves();
        // SAFETY: loaded above, on this CPU; each round ends with interrupts off.
        unsafe { self.world.put() };
        self.host.irqs_on();
        self.host.unpin(self.index);
        leave
    }

    /// THE re-entry check. Interrupts are off, and the vCPU counts as "in the guest" from before the check: what comes up later brings an interrupt.
    fn must_leave(&mut self) -> Option<Leave> {
        self.vcpu.enters();
        if self.vm.ended() && !self.goes_on() {
            return Some(Leave::Ended);
        }
        if self.host.must_yield() && !self.goes_on() {
            return Some(Leave::Reschedule);
        }
        if self.world.host_in_vmx() {
            return Some(Leave::Vmx);
        }
        self.world.bad_paging().map(|paging| Leave::Fail(Fault::Paging(paging)))
    }

    /// The CPU may have accepted an interrupt of which only the object's next exit tells. It is in service here: until the host's handler has run on this CPU, those of lower
    /// priority are kept out, its timer among them. If the thread were moved to another CPU now, they would be for ever.
    fn goes_on(&self) -> bool {
        (1..=MOST_ON_THE_WAY).contains(&self.on_the_way)
    }

    /// One round trip: interrupts are off before and after.
    fn round(&mut self) -> Option<Leave> {
        if self.silent && self.window.pending(self.index) != 0 {
            self.host.interrupt_self(self.index);
        }
        // SAFETY: the residency is loaded, interrupts are off, and there is a window.
        let exit = unsafe { self.world.cross() };
        self.vcpu.leaves();
        if let Some(arrivals) = self.world.take_arrivals() {
            self.forward(arrivals);
        }
        self.vcpu.counters.crossings.add_alone(1);
        self.silent = exit.reason & IRQS_OFF != 0;
        let leave = if reason(&exit) >= FIRST_HYPERCALL {
            self.on_the_way = 0;
            self.calls = self.calls.wrapping_add(1);
            self.host.irqs_on();
            self.hypercall(exit)
        } else {
            self.calls = 0;
            let physical = self.take_physical(&exit);
            self.host.irqs_on();
            physical.unwrap_or_else(|fault| Some(Leave::Fail(fault)))
        };
        // After calls, too: what interrupts a guest that does nothing else may always come in the host.
        let leave =
            leave.or_else(|| if self.calls != 0 || self.goes_on() { None } else { self.signals_due() });
        self.host.irqs_off();
        leave
    }

    /// Passes on what arrived in the passage.
    #[cold]
    fn forward(&mut self, arrivals: Arrivals) {
        for _ in 0..arrivals.nmis.min(MOST_FORWARDED) {
            self.vcpu.counters.passage_nmis.add_alone(1);
            // SAFETY: the passage accepted it and returned without an iret.
            unsafe { self.world.raise_nmi() };
        }
        for _ in 0..arrivals.machine_checks.min(MOST_FORWARDED) {
            // SAFETY: the passage accepted it.
            unsafe { self.world.raise_machine_check() };
        }
        if arrivals.early_nmis != 0 {
            self.host.nmi_self();
        }
    }

    /// Lets the host's own handler see what took the CPU out of the guest. Interrupts are off.
    fn take_physical(&mut self, exit: &Exit) -> Result<Option<Leave>, Fault> {
        let counters = &self.vcpu.counters;
        let before = core::mem::take(&mut self.on_the_way);
        // SAFETY: the guest's stub says that the CPU accepted it. (It could lie; it runs in ring 0 and could do anything else too.)
        let on_the_way = unsafe {
            match Physical::decode(exit)? {
                Physical::Interrupt(vector) => {
                    counters.interrupts.add_alone(1);
                    self.world.raise_vector(vector);
                    return Ok(None);
                }
                Physical::Nmi { on_the_way } => {
                    counters.nmis.add_alone(1);
                    self.world.raise_nmi();
                    on_the_way
                }
                Physical::MachineCheck { on_the_way } => {
                    self.world.raise_machine_check();
                    on_the_way
                }
            }
        };
        if on_the_way {
            self.on_the_way = before.saturating_add(1);
        }
        let mut leave = None;
        if self.host.rescued() {
            counters.rescues.add_alone(1);
            // It may wait for somebody who needs this CPU. What is on its way out is no such wait.
            leave = (!self.goes_on()).then_some(Leave::Yield);
        }
        // The guest does not look for events on its way out of these.
        self.silent = true;
        Ok(leave)
    }

    /// Interrupts are on.
    fn hypercall(&mut self, exit: Exit) -> Option<Leave> {
        self.vcpu.counters.hypercall(reason(&exit));
        if self.host.locks_sleep()
            && let Some(call) = self.deferred(exit)
        {
            return Some(Leave::Locks(call));
        }
        match Call::decode(&exit, self.vm.vcpu_count()) {
            // What is the guest's memory is known to those only who may sleep.
            Ok(call @ Call::Start(_)) => Some(Leave::Locks(call)),
            Ok(call) => self.perform(call),
            Err(fault) => Some(Leave::Fail(fault)),
        }
    }

    /// A hypercall that cannot be done within a residency, where locks sleep.
    #[cold]
    fn deferred(&self, exit: Exit) -> Option<Call> {
        Call::decode(&exit, self.vm.vcpu_count()).ok().filter(|call| call.takes_locks())
    }

    /// Does what the guest asks; also outside of a residency. Inlined, because the compiler makes one decision of this and the decoding.
    #[inline(always)]
    fn perform(&mut self, call: Call) -> Option<Leave> {
        let mut value = 0;
        let leave = match call {
            Call::Idle if self.window.pending(self.index) != 0 => None,
            Call::Idle => Some(Leave::Idle),
            Call::Yield => Some(Leave::Yield),
            Call::Stop => {
                // Before the residency is put: whoever sees this vCPU on its last way out may start it again.
                self.vcpu.stop();
                Some(Leave::Stop)
            }
            Call::DeviceStatus(device) => Some(user(exit::DEVICE_STATUS, device as u64)),
            Call::ConfigWritten(device) => Some(user(exit::CONFIG_WRITTEN, device as u64)),
            Call::Shutdown(how) => {
                Some(self.finish(run_exit(exit::SHUTDOWN, how)).map_or(Leave::Ended, Leave::User))
            }
            Call::Console { full } => {
                self.host.notify(Doorbell::Console);
                full.then(|| user(exit::CONSOLE, 0))
            }
            Call::Timer(nanoseconds) => {
                self.host.set_timer(self.index, nanoseconds);
                None
            }
            Call::Notify { device, queue } => {
                let heard = self.host.notify(Doorbell::Queue { device, queue });
                (!heard).then(|| Leave::User(notified(device, queue)))
            }
            Call::Raise { vcpus, events } => {
                self.raise(vcpus, events);
                None
            }
            Call::WallClock => {
                self.window.set_wall_clock(&self.host.wall_clock());
                None
            }
            Call::Start(target) => match self.start(target) {
                Ok(started) => {
                    value = u64::from(!started);
                    None
                }
                Err(fault) => Some(Leave::Fail(fault)),
            },
        };
        self.world.set_return(value);
        leave
    }

    /// A thread in the guest learns of a signal only here: the interrupt that came with it is one like any other.
    fn signals_due(&self) -> Option<Leave> {
        let waited = self.host.ticks().wrapping_sub(self.checked);
        (waited >= self.host.ticks_per_millisecond()).then_some(Leave::Signals)
    }

    fn raise(&self, mut vcpus: u64, events: u64) {
        while vcpus != 0 {
            let index = vcpus.trailing_zeros() as usize;
            vcpus &= vcpus - 1;
            self.window.raise(index, events);
            self.vm.nudge(self.host, index);
        }
    }

    /// Starts another vCPU with the arguments in its page; false when it runs. Not within a residency.
    fn start(&self, target: usize) -> Result<bool, Fault> {
        let [rip, rsp, cr3, rsi] = self.window.args(target);
        let start = VcpuState { rip, rsp, cr3, rsi };
        check_start(self.host, &start).map_err(|_| Fault::Argument(START_VCPU, cr3))?;
        let started = self.vm.vcpu(target).is_some_and(|vcpu| vcpu.prepare(&start).is_ok());
        if started {
            self.vm.nudge(self.host, target);
        }
        Ok(started)
    }

    /// Ends the guest. Only the first to end it says why.
    fn finish(&self, why: RunExit) -> Option<RunExit> {
        self.vm.end(self.host).then_some(why)
    }
}

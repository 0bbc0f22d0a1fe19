//! The scripted kernel.

use colinux_monitor::{Doorbell, Host, Interrupted, WallClock};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// What the host was asked, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A residency began.
    Pin,
    /// ... and ended.
    Unpin,
    /// The guest was entered.
    Cross,
    /// Interrupts were opened.
    Window,
    /// The scheduler was called.
    Reschedule,
    /// The thread yielded.
    Yield,
    /// The thread went to sleep.
    Block,
    /// A vCPU's CPU was interrupted.
    Kick(usize),
    /// A vCPU's thread was woken.
    Wake(usize),
    /// The timer was set.
    Timer(Option<u64>),
    /// This CPU was sent an interrupt.
    InterruptSelf,
    /// This CPU was sent an NMI.
    NmiSelf,
    /// The daemon was told.
    Notify(Doorbell),
    /// The host's handler of an interrupt ran.
    Vector(u8),
    /// The host's NMI handler ran.
    Nmi,
    /// The host's machine check handler ran.
    MachineCheck,
}

/// What happens while the thread sleeps.
pub type Wakeup = Box<dyn Fn()>;

/// The host. A violation of the order of calls panics the test.
#[derive(Default)]
pub struct SimHost {
    log: RefCell<Vec<Event>>,
    pinned: Cell<bool>,
    irqs_off: Cell<bool>,
    /// TSC.
    pub ticks: Cell<u64>,
    /// The scheduler wants the CPU; the next call of it clears this.
    pub wants_cpu: Cell<bool>,
    /// Signals that come at the n-th look for one; counts down.
    pub signal_after: Cell<Option<u32>>,
    /// What happens during each sleep; a sleep without one ends by a signal.
    pub wakeups: RefCell<VecDeque<Wakeup>>,
    /// Ticks that go by with each look at the clock.
    pub tick: Cell<u64>,
    /// Another thread wants the CPU, while this one waits awake.
    pub crowded: Cell<bool>,
    /// What happens at the n-th look whether the CPU is free; counts down.
    pub awake_after: RefCell<Option<(u32, Wakeup)>>,
    /// Locks sleep, as on PREEMPT_RT.
    pub sleeping_locks: Cell<bool>,
    /// Nothing of the daemon listens to doorbells.
    pub deaf: Cell<bool>,
    /// The next NMI is the rescue timer's.
    pub rescue: Cell<bool>,
    /// Another hypervisor has put the CPUs into VMX operation.
    pub vmx: Cell<bool>,
    /// A page that is none of the guest's memory.
    pub foreign: Cell<Option<u64>>,
    /// What happens at the end of each residency.
    pub at_unpin: RefCell<Option<Wakeup>>,
}

impl SimHost {
    /// Writes down what happened.
    pub fn log(&self, event: Event) {
        self.log.borrow_mut().push(event);
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.log.borrow().clone()
    }

    /// How often it happened.
    pub fn count(&self, event: Event) -> usize {
        self.log.borrow().iter().filter(|other| **other == event).count()
    }

    /// Pinned, with interrupts off.
    pub fn is_quiet(&self) -> bool {
        self.pinned.get() && self.irqs_off.get()
    }

    fn assert_free(&self, what: &str) {
        assert!(!self.pinned.get() && !self.irqs_off.get(), "{what} within a residency");
    }
}

impl Host for SimHost {
    fn pin(&self, _vcpu: usize) {
        self.assert_free("pin");
        self.pinned.set(true);
        self.log(Event::Pin);
    }

    fn unpin(&self, _vcpu: usize) {
        assert!(self.pinned.replace(false) && !self.irqs_off.get());
        self.log(Event::Unpin);
        if let Some(action) = &*self.at_unpin.borrow() {
            action();
        }
    }

    fn irqs_off(&self) {
        assert!(!self.irqs_off.replace(true));
    }

    fn irqs_on(&self) {
        assert!(self.irqs_off.replace(false));
        self.log(Event::Window);
    }

    fn must_yield(&self) -> bool {
        assert!(self.is_quiet(), "the re-entry check must be the last thing before the guest");
        self.wants_cpu.get()
    }

    fn is_alone(&self) -> bool {
        self.assert_free("wait awake");
        let mut later = self.awake_after.borrow_mut();
        match later.take() {
            Some((0, wakeup)) => wakeup(),
            Some((left, wakeup)) => *later = Some((left - 1, wakeup)),
            None => {}
        }
        !self.crowded.get()
    }

    fn reschedule(&self) {
        self.assert_free("schedule");
        self.wants_cpu.set(false);
        self.log(Event::Reschedule);
    }

    fn yield_now(&self) {
        self.assert_free("yield");
        self.log(Event::Yield);
    }

    fn interrupted(&self, _vcpu: usize) -> bool {
        self.assert_free("look for signals");
        match self.signal_after.get() {
            Some(0) => true,
            Some(left) => {
                self.signal_after.set(Some(left - 1));
                false
            }
            None => false,
        }
    }

    fn block(&self, _vcpu: usize, ready: impl Fn() -> bool) -> Result<(), Interrupted> {
        self.assert_free("sleep");
        while !ready() {
            self.log(Event::Block);
            let wakeup = self.wakeups.borrow_mut().pop_front();
            wakeup.ok_or(Interrupted)?();
        }
        Ok(())
    }

    fn kick(&self, vcpu: usize) {
        self.log(Event::Kick(vcpu));
    }

    fn wake(&self, vcpu: usize) {
        assert!(!(self.sleeping_locks.get() && self.pinned.get()), "a sleeping lock within a residency");
        self.log(Event::Wake(vcpu));
    }

    fn has_memory(&self, gpa: u64, _len: u64) -> bool {
        self.assert_free("ask for memory");
        self.foreign.get() != Some(gpa)
    }

    fn set_timer(&self, _vcpu: usize, nanoseconds: Option<u64>) {
        self.log(Event::Timer(nanoseconds));
    }

    fn interrupt_self(&self, _vcpu: usize) {
        assert!(self.is_quiet());
        self.log(Event::InterruptSelf);
    }

    fn nmi_self(&self) {
        self.log(Event::NmiSelf);
    }

    fn notify(&self, doorbell: Doorbell) -> bool {
        assert!(!(self.sleeping_locks.get() && self.pinned.get()), "a sleeping lock within a residency");
        self.log(Event::Notify(doorbell));
        !self.deaf.get()
    }

    fn wall_clock(&self) -> WallClock {
        WallClock { seconds: 1_000_000_000, nanoseconds: 5, tsc: self.ticks.get() }
    }

    fn ticks(&self) -> u64 {
        self.ticks.set(self.ticks.get() + self.tick.get());
        self.ticks.get()
    }

    fn ticks_per_millisecond(&self) -> u64 {
        1000
    }

    fn locks_sleep(&self) -> bool {
        self.sleeping_locks.get()
    }

    fn rescued(&self) -> bool {
        self.rescue.replace(false)
    }
}

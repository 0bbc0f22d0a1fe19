//! The scripted guest.

use crate::host::{Event, SimHost};
use colinux_abi::{
    hypercall::{self as call, shutdown},
    ioctl::VcpuState,
};
use colinux_cpu::{Arrivals, Exit};
use colinux_monitor::{Paging, World};
use std::collections::VecDeque;

/// What a crossing brings.
pub struct Left {
    exit: Exit,
    /// What arrived in the passage.
    pub arrivals: Option<Arrivals>,
    /// How the guest pages, if it cannot be entered again so.
    pub bad_paging: Option<Paging>,
}

/// One stay in the guest: what happens meanwhile, and how it ends.
pub struct Step {
    left: Left,
    meanwhile: Box<dyn Fn()>,
}

impl Step {
    /// The guest leaves with these registers.
    pub fn new(reason: u64, arg0: u64, arg1: u64) -> Self {
        let left = Left { exit: Exit { reason, arg0, arg1 }, arrivals: None, bad_paging: None };
        Self { left, meanwhile: Box::new(|| {}) }
    }

    /// The guest powers off.
    pub fn power_off() -> Self {
        Self::new(call::SHUTDOWN, shutdown::POWER_OFF, 0)
    }

    /// Changes what else the crossing brings.
    pub fn with(mut self, change: impl FnOnce(&mut Left)) -> Self {
        change(&mut self.left);
        self
    }

    /// Does something while the guest runs.
    pub fn meanwhile(mut self, action: impl Fn() + 'static) -> Self {
        self.meanwhile = Box::new(action);
        self
    }
}

/// A guest that leaves as scripted. Entered once more than scripted, it panics the test.
pub struct Guest<'a> {
    host: &'a SimHost,
    steps: VecDeque<Step>,
    loaded: bool,
    arrivals: Option<Arrivals>,
    bad_paging: Option<Paging>,
    /// Where it was started, in order.
    pub starts: Vec<VcpuState>,
    /// What its hypercalls returned.
    pub returns: Vec<u64>,
}

impl<'a> Guest<'a> {
    /// A guest with this script.
    pub fn new(host: &'a SimHost, steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self {
            host,
            steps,
            loaded: false,
            arrivals: None,
            bad_paging: None,
            starts: Vec::new(),
            returns: Vec::new(),
        }
    }

    /// Steps that were not reached.
    pub fn steps_left(&self) -> usize {
        self.steps.len()
    }
}

// SAFETY: touches no CPU.
unsafe impl World for Guest<'_> {
    fn set_start(&mut self, state: &VcpuState) {
        self.starts.push(*state);
    }

    unsafe fn load(&mut self, _: Option<[u64; 4]>) {
        assert!(self.host.is_quiet() && !self.loaded);
        self.loaded = true;
    }

    unsafe fn put(&mut self) {
        assert!(self.host.is_quiet() && self.loaded);
        self.loaded = false;
    }

    unsafe fn cross(&mut self) -> Exit {
        assert!(self.host.is_quiet() && self.loaded && !self.starts.is_empty());
        self.host.log(Event::Cross);
        let step = self.steps.pop_front().expect("the script is over");
        (step.meanwhile)();
        (self.arrivals, self.bad_paging) = (step.left.arrivals, step.left.bad_paging);
        step.left.exit
    }

    fn take_arrivals(&mut self) -> Option<Arrivals> {
        self.arrivals.take()
    }

    fn host_in_vmx(&mut self) -> bool {
        assert!(self.host.is_quiet());
        self.host.vmx.get()
    }

    fn bad_paging(&mut self) -> Option<Paging> {
        self.bad_paging
    }

    fn set_return(&mut self, value: u64) {
        self.returns.push(value);
    }

    unsafe fn raise_vector(&mut self, vector: u8) {
        assert!(self.host.is_quiet());
        self.host.log(Event::Vector(vector));
    }

    unsafe fn raise_nmi(&mut self) {
        assert!(self.host.is_quiet());
        self.host.log(Event::Nmi);
    }

    unsafe fn raise_machine_check(&mut self) {
        assert!(self.host.is_quiet());
        self.host.log(Event::MachineCheck);
    }
}

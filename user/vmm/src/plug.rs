//! What only the guest's kernel can do, while it runs: use fewer vCPUs or more again, and take memory that has come.

use crate::VmmError;
use colinux_abi::page::{event, order};
use colinux_devices::{Answer, OrderSlot};
use colinux_driver::{GuestMemory, Vm};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long the guest's kernel may take for an answer: it has to move programs, interrupts and timers away from a CPU.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks for it.
const STEP: Duration = Duration::from_millis(10);
/// vCPU that is told.
const TOLD_VCPU: u32 = 0;

/// Gives orders to the guest's kernel.
pub(crate) struct Plug {
    vm: Vm,
    memory: Arc<GuestMemory>,
    vcpus: u32,
    /// None before the first boot and between two.
    slot: Mutex<Option<OrderSlot>>,
}

impl Plug {
    pub(crate) fn new(vm: &Vm, memory: &Arc<GuestMemory>, vcpus: u32) -> Self {
        Self { vm: vm.clone(), memory: Arc::clone(memory), vcpus, slot: Mutex::default() }
    }

    fn slot(&self) -> MutexGuard<'_, Option<OrderSlot>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kernel boots with its window at guest-physical address `window`.
    pub(crate) fn boots(&self, window: u64) {
        *self.slot() = Some(OrderSlot::new(Arc::clone(&self.memory), window));
    }

    /// Has the guest use `count` vCPUs, without a count as many as it does. Returns how many it uses.
    pub(crate) fn cpus(&self, count: Option<u32>) -> Result<u32, VmmError> {
        if count.is_some_and(|count| !(1..=self.vcpus).contains(&count)) {
            return Err(VmmError::VcpuCount { most: self.vcpus });
        }
        let Answer { error, online } = self.ask(order::CPUS, [count.unwrap_or(0).into(), 0])?;
        done("change its CPUs", error).map(|()| online.min(self.vcpus))
    }

    /// Has the guest use the memory at guest-physical address `gpa` of `len` bytes, too.
    pub(crate) fn memory(&self, gpa: u64, len: u64) -> Result<(), VmmError> {
        let answer = self.ask(order::MEMORY, [gpa, len])?;
        done("take more memory", answer.error)
    }

    fn ask(&self, kind: u32, args: [u64; 2]) -> Result<Answer, VmmError> {
        let mut slot = self.slot();
        let slot = slot.as_mut().ok_or(VmmError::NoAnswer)?;
        if !slot.give(kind, args)? {
            return Err(VmmError::NoAnswer);
        }
        self.vm.raise(TOLD_VCPU, event::ORDER)?;
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(answer) = slot.answer()? {
                return Ok(answer);
            }
            if Instant::now() >= end {
                return Err(VmmError::NoAnswer);
            }
            thread::sleep(STEP);
        }
    }
}

fn done(what: &'static str, error: i32) -> Result<(), VmmError> {
    match error {
        0.. => Ok(()),
        error => {
            Err(VmmError::Refused { what, source: io::Error::from_raw_os_error(error.saturating_neg()) })
        }
    }
}

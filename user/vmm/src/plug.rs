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
    /// None before the first boot and between two. Held for moments only: a boot waits for it.
    slot: Mutex<Slot>,
    /// Held by whoever has ordered something, until it is answered.
    turn: Mutex<()>,
}

/// The slot of the kernel that runs.
#[derive(Default)]
struct Slot {
    orders: Option<OrderSlot>,
    /// Kernels that have booted.
    boots: u64,
}

impl Plug {
    pub(crate) fn new(vm: &Vm, memory: &Arc<GuestMemory>, vcpus: u32) -> Self {
        let (vm, memory) = (vm.clone(), Arc::clone(memory));
        Self { vm, memory, vcpus, slot: Mutex::default(), turn: Mutex::default() }
    }

    /// A kernel boots with its window at guest-physical address `window`.
    pub(crate) fn boots(&self, window: u64) {
        let mut slot = lock(&self.slot);
        slot.orders = Some(OrderSlot::new(Arc::clone(&self.memory), window));
        slot.boots += 1;
    }

    /// The kernel has ended: it answers nothing any more.
    pub(crate) fn ends(&self) {
        lock(&self.slot).orders = None;
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
        let _turn = lock(&self.turn);
        ask(&self.slot, kind, args, || Ok(self.vm.raise(TOLD_VCPU, event::ORDER)?))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an order, has the guest told by `tell`, and waits for the answer, as long as that kernel runs.
fn ask(
    slot: &Mutex<Slot>,
    kind: u32,
    args: [u64; 2],
    tell: impl FnOnce() -> Result<(), VmmError>,
) -> Result<Answer, VmmError> {
    let boots = {
        let mut slot = lock(slot);
        if !slot.orders.as_mut().ok_or(VmmError::NoAnswer)?.give(kind, args)? {
            return Err(VmmError::NoAnswer);
        }
        slot.boots
    };
    tell()?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        {
            let slot = lock(slot);
            let orders = slot.orders.as_ref().filter(|_| slot.boots == boots);
            if let Some(answer) = orders.ok_or(VmmError::NoAnswer)?.answer()? {
                return Ok(answer);
            }
        }
        thread::sleep(STEP);
    }
    Err(VmmError::NoAnswer)
}

fn done(what: &'static str, error: i32) -> Result<(), VmmError> {
    match error {
        0.. => Ok(()),
        error => {
            Err(VmmError::Refused { what, source: io::Error::from_raw_os_error(error.saturating_neg()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    const WINDOW: u64 = 0x20_0000;

    #[test]
    fn an_order_ends_with_the_kernel_that_it_was_given_to() {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(WINDOW), 2 << 20)]).unwrap());
        let new = || Some(OrderSlot::new(Arc::clone(&memory), WINDOW));
        let slot = Mutex::new(Slot { orders: new(), boots: 1 });
        let start = Instant::now();
        for next in [None, new()] {
            let (sender, told) = channel();
            thread::scope(|scope| {
                let asks = scope.spawn(|| {
                    ask(&slot, order::CPUS, [1, 0], || {
                        sender.send(()).unwrap();
                        Ok(())
                    })
                });
                told.recv().unwrap();
                // Nobody has answered, and nobody holds it.
                let mut slot = lock(&slot);
                slot.orders = next;
                slot.boots += 1;
                drop(slot);
                assert!(matches!(asks.join().unwrap(), Err(VmmError::NoAnswer)));
            });
            lock(&slot).orders = new();
        }
        assert!(start.elapsed() < LIMIT / 2);
    }
}

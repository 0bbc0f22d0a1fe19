//! What the vCPUs of one guest share.

use crate::error::HostError;
use crate::host::{Host, ZeroInit};
use crate::vcpu::{Nudge, Vcpu};
use crate::window::Window;
use colinux_abi::device::MAX_QUEUES;
use colinux_abi::ioctl::Stats;
use colinux_abi::page::event;
use colinux_abi::{MAX_DEVICES, MAX_VCPUS};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// Queues that a device can have.
const QUEUES: u64 = MAX_QUEUES as u64;

/// The hot state of a VM: atomics only, no lock. All zero is a VM without vCPUs.
pub struct Vm {
    vcpu_count: AtomicU32,
    inside: AtomicU32,
    ended: AtomicBool,
    resetting: AtomicBool,
    halt_poll: AtomicU32,
    window: AtomicPtr<u8>,
    vcpus: [Vcpu; MAX_VCPUS],
}

// SAFETY: atomics and arrays of them; a null window means none.
unsafe impl ZeroInit for Vm {}

impl Default for Vm {
    fn default() -> Self {
        Self {
            vcpu_count: AtomicU32::new(0),
            inside: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            resetting: AtomicBool::new(false),
            halt_poll: AtomicU32::new(0),
            window: AtomicPtr::new(core::ptr::null_mut()),
            vcpus: core::array::from_fn(|_| Vcpu::default()),
        }
    }
}

impl Vm {
    /// Sets the number of vCPUs; once, before anything else.
    ///
    /// # Errors
    /// [`HostError::Invalid`] unless it is 1..=`MAX_VCPUS`.
    pub fn set_vcpu_count(&self, count: u32) -> Result<(), HostError> {
        if count == 0 || count as usize > MAX_VCPUS {
            return Err(HostError::Invalid);
        }
        self.vcpu_count.store(count, Ordering::SeqCst);
        Ok(())
    }

    /// Sets how long a vCPU that has nothing to do waits awake at most, in microseconds.
    pub fn set_halt_poll(&self, microseconds: u32) {
        self.halt_poll.store(microseconds, Ordering::Relaxed);
    }

    /// Microseconds for which a vCPU that has nothing to do waits awake at most.
    pub(crate) fn halt_poll(&self) -> u64 {
        self.halt_poll.load(Ordering::Relaxed).into()
    }

    /// Number of vCPUs.
    pub fn vcpu_count(&self) -> usize {
        self.vcpu_count.load(Ordering::Relaxed) as usize
    }

    /// A vCPU of this VM.
    pub fn vcpu(&self, index: usize) -> Option<&Vcpu> {
        self.vcpus.get(..self.vcpu_count())?.get(index)
    }

    fn vcpus(&self) -> &[Vcpu] {
        self.vcpus.get(..self.vcpu_count()).unwrap_or(&[])
    }

    /// Sets where the host reaches the window.
    ///
    /// # Safety
    /// As for [`Window::new`], for the life of the VM.
    pub unsafe fn set_window(&self, base: *mut u8) {
        self.window.store(base, Ordering::SeqCst);
    }

    /// The window, once it is set.
    pub fn window(&self) -> Option<Window> {
        let base = self.window.load(Ordering::Acquire);
        // SAFETY: by the contract of `set_window`.
        (!base.is_null()).then(|| unsafe { Window::new(base) })
    }

    /// The guest has ended, or was stopped.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Ends the guest; true for whoever was first. All vCPUs leave.
    pub fn end(&self, host: &impl Host) -> bool {
        let first = !self.ended.swap(true, Ordering::SeqCst);
        for index in 0..self.vcpu_count() {
            self.nudge(host, index);
        }
        first
    }

    /// Brings a vCPU to its re-entry check.
    pub fn nudge(&self, host: &impl Host, index: usize) {
        let Some(vcpu) = self.vcpu(index) else { return };
        match vcpu.nudge() {
            Nudge::None => {}
            Nudge::Wake => host.wake(index),
            Nudge::Kick => {
                vcpu.counters.kicks.bump();
                host.kick(index);
            }
        }
    }

    /// Raises events on a vCPU.
    ///
    /// # Errors
    /// [`HostError::NotFound`] without such a vCPU, [`HostError::Invalid`] without a window.
    pub fn raise(&self, host: &impl Host, index: usize, events: u64) -> Result<(), HostError> {
        self.vcpu(index).ok_or(HostError::NotFound)?;
        self.window().ok_or(HostError::Invalid)?.raise(index, events);
        self.nudge(host, index);
        Ok(())
    }

    /// Raises bits of a device's `isr`. Without a window there is no driver to tell, so nothing is done.
    pub fn raise_device(&self, host: &impl Host, device: usize, isr: u64) {
        let Some(window) = self.window() else { return };
        if device < MAX_DEVICES {
            self.nudge(host, window.raise_device(device, isr));
        }
    }

    /// Interrupts the guest for queue number `queue` of device number `device`. What there is not is of no effect.
    pub fn raise_queue(&self, host: &impl Host, device: u64, queue: u64) {
        if let (Ok(device), 0..QUEUES) = (usize::try_from(device), queue) {
            self.raise_device(host, device, 1 << queue);
        }
    }

    /// Tells the guest of console input.
    pub fn raise_console(&self, host: &impl Host) {
        let Some(window) = self.window() else { return };
        let index = window.console_vcpu();
        if index < self.vcpu_count() {
            window.raise(index, event::CONSOLE);
            self.nudge(host, index);
        }
    }

    /// A thread begins `RUN`.
    pub(crate) fn enter(&self, vcpu: &Vcpu) -> Result<(), HostError> {
        if !vcpu.claim() {
            return Err(HostError::Busy);
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.resetting.load(Ordering::SeqCst) {
            self.exit(vcpu);
            return Err(HostError::Busy);
        }
        Ok(())
    }

    pub(crate) fn exit(&self, vcpu: &Vcpu) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        vcpu.release();
    }

    /// Runs `work` while no vCPU is in `RUN` and none can begin.
    ///
    /// # Errors
    /// [`HostError::Busy`] when one is in `RUN`; otherwise what `work` returns.
    pub fn while_quiet<T>(&self, work: impl FnOnce() -> Result<T, HostError>) -> Result<T, HostError> {
        if self.resetting.swap(true, Ordering::SeqCst) {
            return Err(HostError::Busy);
        }
        let result = if self.inside.load(Ordering::SeqCst) == 0 { work() } else { Err(HostError::Busy) };
        self.resetting.store(false, Ordering::SeqCst);
        result
    }

    /// Forgets all vCPU states, so that the guest can be loaded anew.
    ///
    /// # Errors
    /// [`HostError::Busy`] when a vCPU is in `RUN`.
    pub fn reset(&self) -> Result<(), HostError> {
        self.while_quiet(|| {
            self.vcpus().iter().for_each(Vcpu::forget);
            self.ended.store(false, Ordering::SeqCst);
            Ok(())
        })
    }

    /// Forgets one vCPU's state, because its registers are gone with its file. Nobody is in `RUN` with it.
    pub fn forget(&self, index: usize) {
        if let Some(vcpu) = self.vcpu(index) {
            vcpu.forget();
        }
    }

    /// The sum of all counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.vcpus().iter().for_each(|vcpu| vcpu.counters.add_to(&mut stats));
        stats
    }
}

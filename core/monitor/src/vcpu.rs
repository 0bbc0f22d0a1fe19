//! What others see of a vCPU: its run state, where it is now, its counters.

use crate::error::HostError;
use crate::host::Host;
use crate::patience::Patience;
use crate::stats::Counters;
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::VcpuState;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Life of a vCPU. The numbers are those of the atomic that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunState {
    /// Never started.
    New = 0,
    /// Stopped by its guest, or waiting to be started.
    Stopped = 1,
    /// Somebody writes its start state.
    Preparing = 2,
    /// It has a start state that it has not taken.
    Ready = 3,
    /// It has been in the guest.
    Running = 4,
}

impl RunState {
    fn from_u32(value: u32) -> Self {
        match value {
            0 => Self::New,
            1 => Self::Stopped,
            2 => Self::Preparing,
            3 => Self::Ready,
            _ => Self::Running,
        }
    }
}

/// Where the vCPU's thread is, for kicks.
const OUT: u32 = 0;
const IN_GUEST: u32 = 1;
const KICKED: u32 = 2;
const BLOCKED: u32 = 3;

/// What it takes to bring a vCPU to its re-entry check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// Nothing: it is on its way.
    None,
    /// An interrupt on its CPU.
    Kick,
    /// A wake-up.
    Wake,
}

/// Checks a state in which a vCPU is to start: its page table root is the guest's. Not within a residency.
///
/// # Errors
/// [`HostError::Invalid`].
pub fn check_start(host: &impl Host, start: &VcpuState) -> Result<(), HostError> {
    let root = start.cr3 & !(PAGE_SIZE - 1);
    if host.has_memory(root, PAGE_SIZE) { Ok(()) } else { Err(HostError::Invalid) }
}

/// One vCPU. All zero is a new one. On cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct Vcpu {
    state: AtomicU32,
    place: AtomicU32,
    busy: AtomicBool,
    /// Opposite of "silent" (see the run loop), so that zero is right for a new one.
    looks: AtomicBool,
    start: [AtomicU64; 4],
    /// How long it waits awake.
    pub(crate) patience: Patience,
    /// Its counters.
    pub counters: Counters,
}

impl Vcpu {
    /// Its state now.
    pub fn state(&self) -> RunState {
        RunState::from_u32(self.state.load(Ordering::SeqCst))
    }

    fn change(&self, from: RunState, to: RunState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Sets the state in which it starts, and makes it ready.
    ///
    /// # Errors
    /// [`HostError::Busy`] when it runs, or somebody else does the same.
    pub fn prepare(&self, start: &VcpuState) -> Result<(), HostError> {
        let idle = [RunState::New, RunState::Stopped, RunState::Ready];
        if !idle.into_iter().any(|from| self.change(from, RunState::Preparing)) {
            return Err(HostError::Busy);
        }
        for (slot, value) in self.start.iter().zip([start.rip, start.rsp, start.cr3, start.rsi]) {
            slot.store(value, Ordering::Relaxed);
        }
        self.state.store(RunState::Ready as u32, Ordering::SeqCst);
        Ok(())
    }

    /// Takes the start state, if there is one; the vCPU runs then.
    pub(crate) fn take_start(&self) -> Option<VcpuState> {
        if !self.change(RunState::Ready, RunState::Preparing) {
            return None;
        }
        let [rip, rsp, cr3, rsi] = core::array::from_fn(|i| self.start[i].load(Ordering::Relaxed));
        self.state.store(RunState::Running as u32, Ordering::SeqCst);
        Some(VcpuState { rip, rsp, cr3, rsi })
    }

    pub(crate) fn stop(&self) {
        self.change(RunState::Running, RunState::Stopped);
    }

    pub(crate) fn forget(&self) {
        self.state.store(RunState::New as u32, Ordering::SeqCst);
    }

    /// Claims the vCPU for one thread.
    pub(crate) fn claim(&self) -> bool {
        !self.busy.swap(true, Ordering::SeqCst)
    }

    /// The guest will not look for events by itself when it goes on. For the thread that has claimed the vCPU.
    pub(crate) fn is_silent(&self) -> bool {
        !self.looks.load(Ordering::Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.looks.store(!silent, Ordering::Relaxed);
    }

    pub(crate) fn release(&self) {
        self.busy.store(false, Ordering::SeqCst);
    }

    /// Before the re-entry check, whose reads must not be done before this is visible: a nudge finds us either in the guest, or about to look.
    pub(crate) fn enters(&self) {
        self.place.store(IN_GUEST, Ordering::SeqCst);
    }

    /// Whoever does not see this yet sends a kick too many, no more.
    pub(crate) fn leaves(&self) {
        self.place.store(OUT, Ordering::Release);
    }

    pub(crate) fn blocks(&self) {
        self.place.store(BLOCKED, Ordering::SeqCst);
    }

    /// How to get its attention. To be called after the reason for it was made visible.
    pub(crate) fn nudge(&self) -> Nudge {
        match self.place.load(Ordering::SeqCst) {
            BLOCKED => Nudge::Wake,
            IN_GUEST => {
                let first = self.place.compare_exchange(IN_GUEST, KICKED, Ordering::SeqCst, Ordering::SeqCst);
                if first.is_ok() { Nudge::Kick } else { self.late_nudge() }
            }
            _ => Nudge::None,
        }
    }

    /// It moved while we looked; it may sleep already.
    fn late_nudge(&self) -> Nudge {
        if self.place.load(Ordering::SeqCst) == BLOCKED { Nudge::Wake } else { Nudge::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: VcpuState = VcpuState { rip: 1, rsp: 2, cr3: 3, rsi: 4 };

    #[test]
    fn a_start_state_is_taken_once() {
        let vcpu = Vcpu::default();
        assert!(vcpu.take_start().is_none());
        vcpu.prepare(&START).unwrap();
        vcpu.prepare(&START).unwrap();
        assert_eq!(vcpu.take_start().map(|start| start.rsi), Some(4));
        assert!(vcpu.take_start().is_none());
        assert_eq!(vcpu.prepare(&START), Err(HostError::Busy));
        vcpu.stop();
        assert!(vcpu.prepare(&START).is_ok());
    }

    #[test]
    fn one_kick_for_each_entry() {
        let vcpu = Vcpu::default();
        assert_eq!(vcpu.nudge(), Nudge::None);
        vcpu.enters();
        assert_eq!(vcpu.nudge(), Nudge::Kick);
        assert_eq!(vcpu.nudge(), Nudge::None);
        vcpu.leaves();
        vcpu.blocks();
        assert_eq!(vcpu.nudge(), Nudge::Wake);
    }

    #[test]
    fn one_thread_at_a_time() {
        let vcpu = Vcpu::default();
        assert!(vcpu.claim());
        assert!(!vcpu.claim());
        vcpu.release();
        assert!(vcpu.claim());
    }
}

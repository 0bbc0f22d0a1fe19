//! What the threads of a VM share.

use crate::{End, VmmError, console::Output, devices::Devices};
use colinux_driver::{EventFd, Vcpu, Vm};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// One run of a guest, from its first instruction to its end.
pub(crate) struct Shared {
    pub(crate) vm: Vm,
    pub(crate) vcpus: Arc<[Vcpu]>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) output: Output,
    ends: Mutex<Ends>,
    /// Wakes the event loop: signalled when a vCPU has ended.
    pub(crate) wake: Arc<EventFd>,
}

#[derive(Default)]
struct Ends {
    threads: usize,
    output: bool,
    first: Option<Result<End, VmmError>>,
}

impl Shared {
    pub(crate) fn new(
        vm: &Vm,
        vcpus: &Arc<[Vcpu]>,
        devices: &Arc<Devices>,
        output: Output,
        wake: &Arc<EventFd>,
    ) -> Self {
        let (vm, vcpus, devices, wake) =
            (vm.clone(), Arc::clone(vcpus), Arc::clone(devices), Arc::clone(wake));
        Self { vm, vcpus, devices, output, ends: Mutex::default(), wake }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU thread ends; `end` says why, if it is the one that ended the VM.
    pub(crate) fn thread_ends(&self, end: Option<Result<End, VmmError>>) {
        if end.is_some()
            && let Err(error) = self.vm.stop()
        {
            warn!("{error}");
        }
        let mut ends = self.ends();
        ends.threads += 1;
        if ends.first.is_none() {
            ends.first = end;
        }
        drop(ends);
        self.wake.signal();
    }

    /// The console's thread has ended.
    pub(crate) fn output_ends(&self) {
        self.ends().output = true;
        self.wake.signal();
    }

    /// Whether all output is printed.
    pub(crate) fn output_ended(&self) -> bool {
        self.ends().output
    }

    /// Threads that have ended.
    pub(crate) fn ended_threads(&self) -> usize {
        self.ends().threads
    }

    /// How the VM ended, once.
    pub(crate) fn take_end(&self) -> Result<End, VmmError> {
        self.ends().first.take().unwrap_or(Ok(End::Stopped))
    }
}

//! A vhost-vsock of the host's kernel (drivers/vhost/vsock.c, include/uapi/linux/vhost.h).

use super::{Reserve, VsockError};
use crate::{
    Activation, Activity, DeviceHandle, Work,
    service::spawn_confined,
    vhost_kernel::{Memory, set_up, system},
};
use colinux_driver::EventFd;
use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};
use tracing::warn;
use vhost::{VhostBackend, vhost_kern::vsock::Vsock as Kernel, vsock::VhostVsock};

/// VIRTIO_VSOCK_F_SEQPACKET (virtio 1.2, 5.10.3).
pub(super) const DEVICE_FEATURES: u64 = 1 << 1;
/// Receive and transmit.
const SERVED_QUEUES: usize = 2;
/// Bytes of the watching thread's stack.
const STACK: usize = 64 << 10;

/// A device of the kernel that has its address. Dropping it gives the address back and breaks all connections.
pub(super) struct Backend {
    cid: u32,
    kernel: Kernel<Memory>,
    memory: Memory,
}

impl Backend {
    pub(super) fn open(cid: u32) -> Result<Self, VsockError> {
        let memory = Memory::default();
        let kernel = Kernel::new(memory.clone()).map_err(|error| VsockError::Open(system(error)))?;
        kernel.set_owner().map_err(|error| VsockError::Refused(system(error)))?;
        kernel.set_guest_cid(cid.into()).map_err(|error| match system(error) {
            error if error.kind() == io::ErrorKind::AddrInUse => VsockError::Taken(cid),
            error => VsockError::Refused(error),
        })?;
        Ok(Self { cid, kernel, memory })
    }

    pub(super) fn features(&self) -> Result<u64, VsockError> {
        self.kernel.get_features().map_err(|error| VsockError::Refused(system(error)))
    }

    /// Gives the kernel all it needs, and has it begin.
    fn start(&self, activation: &Activation, errors: &EventFd) -> io::Result<()> {
        let features = activation.negotiated.features;
        set_up(&self.kernel, &self.memory, features, activation, SERVED_QUEUES, errors)?;
        self.kernel.start().map_err(system)
    }
}

/// A backend that serves the guest.
pub(super) struct Served {
    backend: Option<Arc<Backend>>,
    reserve: Reserve,
    errors: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Activity for Served {}

impl Served {
    pub(super) fn start(backend: Backend, activation: Activation, reserve: &Reserve) -> io::Result<Self> {
        let errors = Arc::new(EventFd::new()?);
        backend.start(&activation, &errors)?;
        let backend = Arc::new(backend);
        let (watched, reserve) = (Arc::clone(&backend), Arc::clone(reserve));
        let mut served =
            Self { backend: Some(backend), reserve, errors, stop: Arc::default(), watcher: None };
        served.watcher = Some(served.watch(watched, activation.handle)?);
        Ok(served)
    }

    /// Waits for the kernel's complaint about a ring, and then stops the device.
    fn watch(&self, backend: Arc<Backend>, handle: DeviceHandle) -> io::Result<JoinHandle<()>> {
        let (errors, stop) = (Arc::clone(&self.errors), Arc::clone(&self.stop));
        let work = move || {
            let complaint = errors.wait();
            if stop.load(Ordering::Acquire) {
                return;
            }
            backend.stop();
            match complaint {
                Ok(_) => handle.fail(&"a ring is broken"),
                Err(error) => handle.fail(&format_args!("cannot wait for the host's kernel: {error}")),
            }
        };
        spawn_confined("vsock".to_owned(), STACK, Work::Watch, work)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.errors.signal();
        if self.watcher.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that watches vsock panicked");
        }
        if let Some(backend) = self.backend.take() {
            backend.stop();
            let cid = backend.cid;
            drop(backend);
            // Another VM that looks for an address must not find this one free while the guest reboots. If it does, the next activation says so.
            *self.reserve.lock().unwrap_or_else(PoisonError::into_inner) = Backend::open(cid).ok();
        }
    }
}

impl Backend {
    /// Has the kernel leave the rings alone; when this returns, it does.
    fn stop(&self) {
        if let Err(error) = self.kernel.stop() {
            warn!("vsock does not stop: {error}");
        }
    }
}

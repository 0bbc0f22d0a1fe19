//! The thread that serves one queue.

use crate::{BadRequest, Buffers, QueueHandler, registers::Registers};
use colinux_driver::{EventFd, GuestMemory};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};
use tracing::warn;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

/// Bytes of a worker's stack; handlers use a few KiB.
const STACK: usize = 256 << 10;

/// What a worker needs.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) queue: Queue,
    pub(crate) handler: Box<dyn QueueHandler>,
    /// Signalled when the guest adds buffers.
    pub(crate) kick: Arc<EventFd>,
    /// Interrupts the guest when buffers have been used.
    pub(crate) interrupt: Arc<EventFd>,
    /// Interrupts the guest when the device has failed.
    pub(crate) config_interrupt: Arc<EventFd>,
    pub(crate) registers: Registers,
}

/// A running worker.
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    kick: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn spawn(job: Job) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let kick = Arc::clone(&job.kick);
        let stopped = Arc::clone(&stop);
        let builder = thread::Builder::new().name(job.name.clone()).stack_size(STACK);
        let thread = builder.spawn(move || job.run(&stopped))?;
        Ok(Self { stop, kick, thread })
    }

    /// Waits for the request in progress and ends the thread: from then on nothing touches guest memory.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.kick.signal();
        if self.thread.join().is_err() {
            warn!("a device worker panicked");
        }
    }
}

impl Job {
    fn run(mut self, stop: &AtomicBool) {
        let memory = Arc::clone(self.registers.memory());
        while !stop.load(Ordering::Acquire) {
            if let Err(error) = self.serve(&memory, stop) {
                warn!("{}: {error}; the device stops until the guest resets it", self.name);
                self.fail();
                return;
            }
            if let Err(error) = self.kick.wait() {
                warn!("{}: cannot wait for the guest: {error}", self.name);
                self.fail();
                return;
            }
        }
    }

    /// Serves requests until the ring is empty.
    fn serve(&mut self, memory: &GuestMemory, stop: &AtomicBool) -> Result<(), BadRequest> {
        const RING: BadRequest = BadRequest("its ring is broken");
        loop {
            self.queue.disable_notification(memory).map_err(|_| RING)?;
            while let Some(chain) = self.queue.iter(memory).map_err(|_| RING)?.next() {
                let head = chain.head_index();
                let used = self.handler.handle(Buffers::collect(chain, memory)?)?;
                self.queue.add_used(memory, head, used).map_err(|_| RING)?;
                if self.queue.needs_notification(memory).map_err(|_| RING)? {
                    self.interrupt.signal();
                }
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
            if !self.queue.enable_notification(memory).map_err(|_| RING)? {
                return Ok(());
            }
        }
    }

    fn fail(&self) {
        let result = self.registers.update_device_status(|status| status | VIRTIO_CONFIG_S_NEEDS_RESET);
        if let Err(error) = result {
            warn!("{}: {error}", self.name);
        }
        self.config_interrupt.signal();
    }
}

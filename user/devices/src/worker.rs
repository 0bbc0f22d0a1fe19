//! Threads that serve one queue each.

use crate::{
    Activation, ActiveQueue, Activity, BadRequest, Buffers, DeviceHandle, QueueHandler, Work,
    service::{Service, Stop},
};
use colinux_driver::{EventFd, GuestMemory};
use std::{io, sync::Arc};
use virtio_queue::{Queue, QueueOwnedT, QueueT};

/// Bytes of a worker's stack; handlers use a few KiB.
const STACK: usize = 256 << 10;

/// Serves each queue with its handler, on a thread of its own that is shut in for its `work`.
///
/// # Errors
/// The host has no room for another thread, or cannot shut it in.
pub fn serve_each(
    activation: Activation,
    work: Work,
    handlers: Vec<Box<dyn QueueHandler>>,
) -> io::Result<Vec<Box<dyn Activity>>> {
    let Activation { memory, queues, handle, .. } = activation;
    let mut workers: Vec<Box<dyn Activity>> = Vec::new();
    for (number, (queue, handler)) in queues.into_iter().zip(handlers).enumerate() {
        let Some(ActiveQueue { queue, kick, interrupt }) = queue else { continue };
        let (memory, handle) = (Arc::clone(&memory), handle.clone());
        let job = Job { number, queue, handler, kick, interrupt, handle, memory };
        let (name, wake) = (format!("{} queue {number}", job.handle.name()), Arc::clone(&job.kick));
        workers.push(Box::new(Service::spawn(name, STACK, work, &wake, move |stop| job.run(stop))?));
    }
    Ok(workers)
}

/// What a worker needs.
struct Job {
    number: usize,
    queue: Queue,
    handler: Box<dyn QueueHandler>,
    kick: Arc<EventFd>,
    interrupt: Arc<EventFd>,
    handle: DeviceHandle,
    memory: Arc<GuestMemory>,
}

impl Job {
    fn run(mut self, stop: &Stop) {
        let memory = Arc::clone(&self.memory);
        while !stop.is_asked() {
            if let Err(error) = self.serve(&memory, stop) {
                return self.handle.fail(&format_args!("queue {}: {error}", self.number));
            }
            if let Err(error) = self.kick.wait() {
                return self.handle.fail(&format_args!("cannot wait for the guest: {error}"));
            }
        }
    }

    /// Serves requests until the ring is empty.
    fn serve(&mut self, memory: &GuestMemory, stop: &Stop) -> Result<(), BadRequest> {
        const RING: BadRequest = BadRequest::RING;
        loop {
            self.queue.disable_notification(memory).map_err(|_| RING)?;
            while let Some(chain) = self.queue.iter(memory).map_err(|_| RING)?.next() {
                let head = chain.head_index();
                let used = self.handler.handle(Buffers::collect(chain, memory)?)?;
                self.queue.add_used(memory, head, used).map_err(|_| RING)?;
                if self.queue.needs_notification(memory).map_err(|_| RING)? {
                    self.interrupt.signal();
                }
                if stop.is_asked() {
                    return Ok(());
                }
            }
            if !self.queue.enable_notification(memory).map_err(|_| RING)? {
                return Ok(());
            }
        }
    }
}

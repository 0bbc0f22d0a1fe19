//! A queue of a disk.
//!
//! The vCPU's thread answers what needs no wait; the pool's threads answer the rest, in any order. Whoever has an answer puts it into the used ring.

use super::request::{Disk, Pace};
use crate::{BadRequest, Bell, Buffers, DeviceHandle, pool::Pool};
use colinux_driver::{EventFd, GuestMemory};
use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

type Chain = DescriptorChain<Arc<GuestMemory>>;

const RING: BadRequest = BadRequest::RING;

/// A queue while the guest uses it.
pub(super) struct DiskQueue {
    number: usize,
    ring: Mutex<Queue>,
    interrupt: Arc<EventFd>,
    handle: DeviceHandle,
    memory: Arc<GuestMemory>,
    disk: Arc<Disk>,
    /// Places of the ring: a driver has no more requests under way.
    size: usize,
    /// Requests that wait for a thread of the pool.
    waiting: AtomicUsize,
    /// The guest has broken it.
    broken: AtomicBool,
}

/// The queue's bell. It holds the pool, which jobs must not: the last to drop a pool waits for its jobs.
pub(super) struct QueueBell {
    pub(super) queue: Arc<DiskQueue>,
    pub(super) pool: Arc<Pool>,
}

impl Bell for QueueBell {
    fn ring(&self) -> bool {
        let result = self.serve();
        self.queue.judge(result).unwrap_or(false)
    }

    fn interrupt(&self) {
        self.queue.interrupt.signal();
    }
}

impl QueueBell {
    /// Takes requests until the ring is empty; true if the guest is to be interrupted.
    fn serve(&self) -> Result<bool, BadRequest> {
        let (queue, memory) = (&self.queue, &*self.queue.memory);
        let mut ring = queue.ring();
        let mut answered = false;
        while !queue.broken.load(Ordering::Acquire) {
            ring.disable_notification(memory).map_err(|_| RING)?;
            // Looking is cheaper than taking, which checks the ring's addresses each time.
            while ring.avail_idx(memory, Ordering::Acquire).map_err(|_| RING)?.0 != ring.next_avail() {
                let mut available = ring.iter(Arc::clone(&queue.memory)).map_err(|_| RING)?;
                let Some(chain) = available.next() else { break };
                let head = chain.head_index();
                // Others may take requests from this queue meanwhile, or put answers into it.
                drop(ring);
                let used = queue.disk.answer(Buffers::collect(chain.clone(), memory)?, Pace::Now)?;
                if used.is_none() {
                    self.defer(chain)?;
                }
                ring = queue.ring();
                if let Some(used) = used {
                    ring.add_used(memory, head, used).map_err(|_| RING)?;
                    answered = true;
                }
            }
            if !ring.enable_notification(memory).map_err(|_| RING)? {
                break;
            }
        }
        if answered { queue.is_to_be_told(ring) } else { Ok(false) }
    }

    /// Leaves a request to the pool's threads, which read it anew. A guest that repeats itself without waiting for answers does not fill this process's memory.
    fn defer(&self, chain: Chain) -> Result<(), BadRequest> {
        if self.queue.waiting.fetch_add(1, Ordering::AcqRel) >= self.queue.size {
            return Err(BadRequest("more requests are under way than its ring has room for"));
        }
        let queue = Arc::clone(&self.queue);
        let job = move || {
            // Before the answer: as soon as that is there, the guest may make the next request.
            queue.waiting.fetch_sub(1, Ordering::AcqRel);
            if queue.broken.load(Ordering::Acquire) {
                return;
            }
            let result = queue.finish(chain);
            if queue.judge(result) == Some(true) {
                queue.interrupt.signal();
            }
        };
        self.pool.run(Box::new(job));
        Ok(())
    }
}

impl DiskQueue {
    pub(super) fn new(
        number: usize,
        ring: Queue,
        interrupt: Arc<EventFd>,
        handle: DeviceHandle,
        memory: Arc<GuestMemory>,
        disk: Arc<Disk>,
    ) -> Self {
        let size = usize::from(ring.size());
        let (ring, waiting, broken) = (Mutex::new(ring), AtomicUsize::new(0), AtomicBool::new(false));
        Self { number, ring, interrupt, handle, memory, disk, size, waiting, broken }
    }

    fn ring(&self) -> MutexGuard<'_, Queue> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge<T>(&self, result: Result<T, BadRequest>) -> Option<T> {
        result.inspect_err(|error| self.fail(error)).ok()
    }

    fn fail(&self, reason: &dyn Display) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            self.handle.fail(&format_args!("queue {}: {reason}", self.number));
        }
    }

    /// Answers a request, however long it takes; true if the guest is to be interrupted.
    fn finish(&self, chain: Chain) -> Result<bool, BadRequest> {
        let head = chain.head_index();
        let request = Buffers::collect(chain, &self.memory)?;
        let Some(used) = self.disk.answer(request, Pace::Wait)? else { return Ok(false) };
        let mut ring = self.ring();
        ring.add_used(&*self.memory, head, used).map_err(|_| RING)?;
        self.is_to_be_told(ring)
    }

    /// Whether the guest wants to be interrupted because of the answers that were added.
    fn is_to_be_told(&self, mut ring: MutexGuard<'_, Queue>) -> Result<bool, BadRequest> {
        ring.needs_notification(&*self.memory).map_err(|_| RING)
    }
}

//! Frames from the guest to the host (virtio 1.2, section 5.1.6.2).

use super::{Backend, HEADER};
use crate::{ActiveQueue, BadRequest, Buffers};
use colinux_driver::GuestMemory;
use std::io;
use virtio_queue::{QueueOwnedT, QueueT};

/// Frames to take before the rest of the device has its turn.
const BATCH: usize = 128;

/// The queue of frames to send.
pub(super) struct Transmitter {
    pub(super) active: ActiveQueue,
}

/// What has to happen before more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: there is more.
    More,
    /// The guest has to add frames.
    Guest,
    /// The backend has to become writable.
    Backend,
}

/// Who has failed.
#[derive(Debug)]
pub(super) enum Failure {
    Guest(BadRequest),
    Backend(io::Error),
}

impl From<BadRequest> for Failure {
    fn from(bad: BadRequest) -> Self {
        Self::Guest(bad)
    }
}

impl Transmitter {
    /// Sends what the guest has added, or loses it where there is no backend any more.
    pub(super) fn serve(
        &mut self,
        memory: &GuestMemory,
        backend: Option<&mut (dyn Backend + 'static)>,
    ) -> Result<Next, Failure> {
        let before = self.active.queue.next_used();
        let next = match backend {
            None => self.take(memory, |_| Ok(true)),
            Some(backend) => self.send(memory, backend),
        };
        // Also of what went before a failure.
        let used = self.active.queue.next_used() != before;
        if used && self.active.queue.needs_notification(memory).map_err(|_| BadRequest::RING)? {
            self.active.interrupt.signal();
        }
        next
    }

    fn send(&mut self, memory: &GuestMemory, backend: &mut dyn Backend) -> Result<Next, Failure> {
        if !backend.flush().map_err(Failure::Backend)? {
            return Ok(Next::Backend);
        }
        let next = self.take(memory, |packet| backend.send(packet))?;
        let flushed = backend.flush().map_err(Failure::Backend)?;
        Ok(if flushed { next } else { Next::Backend })
    }

    fn take(
        &mut self,
        memory: &GuestMemory,
        mut send: impl FnMut(crate::Slices<'_>) -> io::Result<bool>,
    ) -> Result<Next, Failure> {
        self.active.queue.disable_notification(memory).map_err(|_| BadRequest::RING)?;
        for _ in 0..BATCH {
            let chain = self.active.queue.iter(memory).map_err(|_| BadRequest::RING)?.next();
            let Some(chain) = chain else {
                let more = self.active.queue.enable_notification(memory).map_err(|_| BadRequest::RING)?;
                return Ok(if more { Next::More } else { Next::Guest });
            };
            let head = chain.head_index();
            let packet = Buffers::collect(chain, memory)?.readable;
            if packet.len() < HEADER {
                return Err(BadRequest("a frame without its header").into());
            }
            // A frame that is lost is used, too.
            let room = send(packet);
            self.active.queue.add_used(memory, head, 0).map_err(|_| BadRequest::RING)?;
            if !room.map_err(Failure::Backend)? {
                return Ok(Next::Backend);
            }
        }
        Ok(Next::More)
    }
}

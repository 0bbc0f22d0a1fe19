//! Frames from the host into the guest's buffers (virtio 1.2, section 5.1.6.3).

use super::{Frame, HEADER, used};
use crate::{ActiveQueue, BadRequest, Buffers, Slices};
use colinux_driver::GuestMemory;
use virtio_queue::{QueueOwnedT, QueueT};

/// Offset of `num_buffers` in the header.
const BUFFERS: usize = 10;

/// The queue of receive buffers.
pub(super) struct Receiver {
    pub(super) active: ActiveQueue,
    /// The driver takes a frame in several buffers.
    pub(super) mergeable: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the guest's buffers.
    Received,
    /// The guest has too few buffers, and kicks when it has added some; `more` if it has meanwhile.
    NoRoom {
        /// It is worth another try at once.
        more: bool,
    },
    /// It is larger than what the driver takes, and lost.
    TooLarge,
}

/// A buffer that the guest has made available.
struct Room<'m> {
    head: u16,
    slices: Slices<'m>,
}

impl Receiver {
    /// Puts a frame into buffers. The guest is told by [`Receiver::tell`].
    pub(super) fn put(&mut self, memory: &GuestMemory, frame: &Frame<'_>) -> Result<Outcome, BadRequest> {
        let before = self.active.queue.next_avail();
        let needed = HEADER + frame.bytes.len();
        let rooms = self.gather(memory, needed)?;
        let found: usize = rooms.iter().map(|room| room.slices.len()).sum();
        if found < needed {
            // Asked behind the buffers that were seen; they stay available.
            let more = self.active.queue.enable_notification(memory).map_err(|_| BadRequest::RING)?;
            self.active.queue.set_next_avail(before);
            let never = !self.mergeable && !rooms.is_empty();
            return Ok(if never { Outcome::TooLarge } else { Outcome::NoRoom { more } });
        }
        let mut header = frame.header;
        // Not more than there are in a ring.
        header[BUFFERS..].copy_from_slice(&(rooms.len() as u16).to_le_bytes());
        let (mut head, mut rest) = (&header[..], frame.bytes);
        let fill = |Room { head: index, mut slices }: Room<'_>| {
            let of_header = slices.write(head);
            slices.advance(of_header);
            let of_frame = slices.write(rest);
            (head, rest) = (&head[of_header..], &rest[of_frame..]);
            (index, (of_header + of_frame) as u32)
        };
        let filled: Vec<_> = rooms.into_iter().map(fill).collect();
        used::add_all(&mut self.active.queue, memory, &filled)?;
        Ok(Outcome::Received)
    }

    /// Takes buffers for `needed` bytes, or as many as there are.
    fn gather<'m>(&mut self, memory: &'m GuestMemory, needed: usize) -> Result<Vec<Room<'m>>, BadRequest> {
        let mut rooms: Vec<Room<'m>> = Vec::new();
        let mut found = 0;
        let mut chains = self.active.queue.iter(memory).map_err(|_| BadRequest::RING)?;
        while found < needed && (rooms.is_empty() || self.mergeable) {
            let Some(chain) = chains.next() else { break };
            let head = chain.head_index();
            let slices = Buffers::collect(chain, memory)?.writable;
            if slices.is_empty() {
                return Err(BadRequest("a receive buffer has no room"));
            }
            found += slices.len();
            rooms.push(Room { head, slices });
        }
        Ok(rooms)
    }

    /// Interrupts the guest if it wants to know of the frames put since the used index was `before`.
    pub(super) fn tell(&self, memory: &GuestMemory, before: u16) -> Result<(), BadRequest> {
        if used::is_wanted(&self.active.queue, memory, before)? {
            self.active.interrupt.signal();
        }
        Ok(())
    }

    /// Asks the guest for no kicks.
    pub(super) fn hush(&mut self, memory: &GuestMemory) -> Result<(), BadRequest> {
        self.active.queue.disable_notification(memory).map_err(|_| BadRequest::RING)
    }
}

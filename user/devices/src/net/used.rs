//! Used buffers that the guest sees all at once, or not at all.
//!
//! `virtio-queue` publishes each used buffer by itself. A driver that takes a frame in several buffers counts on finding all of them (virtio 1.2, 5.1.6.4).

use crate::BadRequest;
use colinux_driver::GuestMemory;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::{vring_avail, vring_used, vring_used_elem};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Puts buffers, by head and bytes, into the used ring, and then stores its index.
pub(super) fn add_all(
    queue: &mut Queue,
    memory: &GuestMemory,
    used: &[(u16, u32)],
) -> Result<(), BadRequest> {
    let Some(((head, len), others)) = used.split_last() else { return Ok(()) };
    for (head, len) in others {
        let index = queue.next_used();
        write(queue, memory, index, [u32::from(*head).to_le(), len.to_le()])?;
        queue.set_next_used(index.wrapping_add(1));
    }
    // The last one stores the index, behind all.
    queue.add_used(memory, *head, *len).map_err(|_| BadRequest::RING)
}

fn write(queue: &Queue, memory: &GuestMemory, index: u16, element: [u32; 2]) -> Result<(), BadRequest> {
    const { assert!(size_of::<vring_used_elem>() == size_of::<[u32; 2]>()) };
    let place = size_of::<vring_used>() + usize::from(index % queue.size()) * size_of::<vring_used_elem>();
    let at = queue.used_ring().checked_add(place as u64).ok_or(BadRequest::RING)?;
    memory.write_obj(element, GuestAddress(at)).map_err(|_| BadRequest::RING)
}

/// Whether the guest wants to be interrupted because of all buffers that were used since the index was `before` (virtio 1.2, 2.7.7.2).
pub(super) fn is_wanted(queue: &Queue, memory: &GuestMemory, before: u16) -> Result<bool, BadRequest> {
    let now = queue.next_used();
    if !queue.event_idx_enabled() {
        return Ok(now != before);
    }
    // The guest writes its wish and then looks at the index.
    fence(Ordering::SeqCst);
    let place = size_of::<vring_avail>() + usize::from(queue.size()) * size_of::<u16>();
    let at = queue.avail_ring().checked_add(place as u64).ok_or(BadRequest::RING)?;
    let wish = memory.load(GuestAddress(at), Ordering::Relaxed).map_err(|_| BadRequest::RING)?;
    let wish = u16::from_le(wish);
    Ok(now.wrapping_sub(wish).wrapping_sub(1) < now.wrapping_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use vm_memory::GuestMemoryMmap;

    const SIZE: u16 = 16;
    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;

    fn queue(event_idx: bool) -> (GuestMemory, Queue) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        (memory, queue)
    }

    #[test]
    fn who_looks_between_sees_all_or_nothing() {
        const BATCH: u16 = 8;
        let (memory, mut queue) = queue(false);
        let batch: Vec<_> = (0..BATCH).map(|head| (head, u32::from(head) + 100)).collect();
        thread::scope(|scope| {
            let (queue, memory) = (&mut queue, &memory);
            let writer =
                scope.spawn(move || (0..20_000).for_each(|_| add_all(queue, memory, &batch).unwrap()));
            while !writer.is_finished() {
                let index: u16 = memory.load(GuestAddress(USED + 2), Ordering::Acquire).unwrap();
                assert!(index.is_multiple_of(BATCH), "{index}");
            }
        });
        assert_eq!(queue.next_used(), 20_000_u16.wrapping_mul(BATCH));
        for head in 0..BATCH {
            let at = GuestAddress(USED + 4 + u64::from(head) * 8);
            assert_eq!(memory.read_obj::<[u32; 2]>(at).unwrap(), [head.into(), u32::from(head) + 100]);
        }
    }

    #[test]
    fn a_wish_for_any_of_a_batch_is_heard() {
        let (memory, mut queue) = queue(true);
        let wish = |index: u16| {
            memory.write_obj(index, GuestAddress(AVAILABLE + 4 + 2 * u64::from(SIZE))).unwrap();
        };
        // Also where the index begins anew.
        for start in [0, 5, u16::MAX - 1] {
            queue.set_next_used(start);
            add_all(&mut queue, &memory, &[(0, 1), (1, 1), (2, 1)]).unwrap();
            for wanted in 0..3 {
                wish(start.wrapping_add(wanted));
                assert!(is_wanted(&queue, &memory, start).unwrap(), "{start} {wanted}");
            }
            for unwanted in [start.wrapping_sub(1), start.wrapping_add(3)] {
                wish(unwanted);
                assert!(!is_wanted(&queue, &memory, start).unwrap(), "{start} {unwanted}");
            }
        }
    }
}

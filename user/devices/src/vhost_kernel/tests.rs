use super::*;
use proptest::prelude::*;

const PIECE: u64 = 0x1_0000;

/// Two pieces that are neighbours for the guest and mappings of their own here.
fn memory() -> GuestMemory {
    let ranges = [0, PIECE].map(|at| (GuestAddress(at), PIECE as usize));
    GuestMemory::from_ranges(&ranges).unwrap()
}

fn queue(size: u16, [descriptors, available, used]: [u64; 3]) -> Queue {
    let mut queue = Queue::new(128).unwrap();
    queue.set_size(size);
    queue.try_set_desc_table_address(GuestAddress(descriptors)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(available)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(used)).unwrap();
    queue
}

#[test]
fn a_ring_in_one_piece_is_taken_as_it_is() {
    let config = ring(&queue(128, [PIECE, 0x1000, 0x3000]), &memory()).unwrap();
    assert_eq!((config.queue_size, config.queue_max_size), (128, 128));
    assert_eq!(
        (config.desc_table_addr, config.avail_ring_addr, config.used_ring_addr),
        (PIECE, 0x1000, 0x3000)
    );
    for crossing in [[PIECE - 16, 0, 0], [0, PIECE - 2, 0], [0, 0, PIECE - 4], [2 * PIECE, 0, 0]] {
        assert!(ring(&queue(128, crossing), &memory()).is_err(), "{crossing:x?}");
    }
}

proptest! {
    /// Whatever the guest writes, the kernel gets only rings that this process's mappings of guest memory hold whole.
    #[test]
    fn rings_never_leave_a_piece(
        size in prop::sample::select(vec![1_u16, 2, 64, 128]),
        places in prop::array::uniform3((0..9_u64, -64..64_i64)),
    ) {
        let near = |(quarter, step): (u64, i64)| (quarter * PIECE / 4).saturating_add_signed(step * 16);
        let places = places.map(near);
        if let Ok(config) = ring(&queue(size, places), &memory()) {
            let size = u64::from(size);
            let parts = [
                (config.desc_table_addr, 16 * size),
                (config.avail_ring_addr, 6 + 2 * size),
                (config.used_ring_addr, 6 + 8 * size),
            ];
            for (at, len) in parts {
                prop_assert_eq!(at / PIECE, (at + len - 1) / PIECE);
                prop_assert!(at + len <= 2 * PIECE);
            }
        }
    }
}

//! How memory is found, and given back when it cannot be.

use colinux_abi::MAX_EXTENTS;
use colinux_abi::ioctl::{AddMemory, Extent};
use colinux_monitor::memory::{GRAIN, PhysicalMemory, acquire, in_one_zone, release};
use colinux_monitor::{Extents, HostError};
use colinux_sim::SimMemory;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn request(size: u64, min_piece: u64) -> AddMemory {
    AddMemory { size, min_piece, align: GRAIN, ..Default::default() }
}

fn run(memory: &mut SimMemory, request: &AddMemory) -> Result<Box<Extents>, (HostError, u64)> {
    let mut taken = Box::<Extents>::default();
    let result = acquire(memory, request, &mut taken);
    assert_eq!(taken.bytes(), memory.bytes());
    result.map(|()| taken).map_err(|shortage| (shortage.error, shortage.found))
}

#[test]
fn empty_memory_gives_one_extent() {
    let mut memory = SimMemory::new(0, GIB);
    let taken = run(&mut memory, &request(300 * MIB, GRAIN)).unwrap();
    assert_eq!(taken.as_slice(), [Extent { gpa: 16 * MIB, len: 300 * MIB }]);
}

#[test]
fn pieces_go_around_what_cannot_move() {
    let mut memory = SimMemory::new(0, 256 * MIB);
    memory.pinned = (0..16).map(|i| Extent { gpa: i * 16 * MIB + 5 * MIB, len: 4096 }).collect();
    let taken = run(&mut memory, &request(200 * MIB, GRAIN)).unwrap();
    assert_eq!(taken.bytes(), 200 * MIB);
    assert!(taken.as_slice().len() > 8);
}

#[test]
fn a_contiguous_piece_is_contiguous_and_aligned() {
    let mut memory = SimMemory::new(0, GIB);
    memory.pinned = vec![Extent { gpa: 100 * MIB, len: 4096 }];
    let wish = AddMemory { align: 64 * MIB, ..request(128 * MIB, 128 * MIB) };
    let taken = run(&mut memory, &wish).unwrap();
    assert_eq!(taken.as_slice(), [Extent { gpa: 192 * MIB, len: 128 * MIB }]);
}

#[test]
fn no_contiguous_piece_is_a_shortage_with_nothing_kept() {
    let mut memory = SimMemory::new(0, 256 * MIB);
    memory.pinned = vec![Extent { gpa: 128 * MIB, len: 4096 }];
    assert_eq!(
        run(&mut memory, &request(160 * MIB, 160 * MIB)).err(),
        Some((HostError::NoMemory, 112 * MIB))
    );
}

#[test]
fn a_contiguous_piece_is_found_between_what_is_in_the_way_with_few_attempts() {
    let mut memory = SimMemory::new(0, 4 * GIB);
    // One page in the way every 24 MiB, but for one gap, at no multiple of the piece's size.
    memory.pinned = (0..170)
        .filter(|i| !(70..73).contains(i))
        .map(|i| Extent { gpa: i * 24 * MIB + 9 * MIB, len: 4096 })
        .collect();
    let taken = run(&mut memory, &request(62 * MIB, 62 * MIB)).unwrap();
    let [piece] = taken.as_slice() else { panic!("{:x?}", taken.as_slice()) };
    assert!(piece.len == 62 * MIB && piece.gpa > 69 * 24 * MIB && piece.gpa < 71 * 24 * MIB, "{piece:x?}");
    assert!(memory.attempts < 4096 / 62 + 4096 / 4 + 32, "{}", memory.attempts);
}

#[test]
fn a_contiguous_piece_is_had_when_what_was_in_the_way_for_a_moment_is_gone() {
    let mut memory = SimMemory::new(0, 256 * MIB);
    memory.pinned = vec![Extent { gpa: 128 * MIB, len: 4096 }];
    memory.freed_at = Some(40);
    assert_eq!(run(&mut memory, &request(160 * MIB, 160 * MIB)).unwrap().bytes(), 160 * MIB);
}

#[test]
fn the_search_for_a_contiguous_piece_ends_in_time_and_tells_the_most_at_one_place() {
    let mut memory = SimMemory::new(0, 64 * GIB);
    memory.pinned = (0..4096).map(|i| Extent { gpa: i * 16 * MIB, len: 4096 }).collect();
    memory.patience = Some(100);
    assert_eq!(run(&mut memory, &request(GIB, GIB)).err(), Some((HostError::NoMemory, 12 * MIB)));
    assert!(memory.attempts <= 200, "{}", memory.attempts);
}

#[test]
fn pieces_between_what_is_in_the_way_are_found_before_time_is_up() {
    let mut memory = SimMemory::new(0, 64 * GIB);
    memory.pinned = (0..8192).map(|i| Extent { gpa: i * 8 * MIB + 3 * MIB, len: 4096 }).collect();
    memory.patience = Some(1100);
    let taken = run(&mut memory, &request(6 * GIB, GRAIN)).unwrap();
    assert_eq!(taken.bytes(), 6 * GIB);
    assert!(taken.as_slice().iter().all(|extent| extent.len <= 6 * MIB));
    assert!(memory.attempts < 8000, "{}", memory.attempts);
}

#[test]
fn tebibytes_are_found_with_a_few_attempts_for_each_gibibyte() {
    const TIB: u64 = 1 << 40;
    // Below and above 4 GiB, and a second node far above.
    let zones = [(MIB, 3 * GIB - MIB), (4 * GIB, 8 * TIB - 4 * GIB), (16 * TIB, 8 * TIB)];
    let mut memory =
        SimMemory { zones: zones.map(|(gpa, len)| Extent { gpa, len }).to_vec(), ..Default::default() };
    memory.pinned = (0..64).map(|i| Extent { gpa: i * 256 * GIB + 5 * GIB, len: 4096 }).collect();
    let taken = run(&mut memory, &request(15 * TIB, GRAIN)).unwrap();
    assert_eq!(taken.bytes(), 15 * TIB);
    assert!(taken.as_slice().len() < 128, "{}", taken.as_slice().len());
    assert!(u64::from(memory.attempts) < 24 * 1024 * 20, "{}", memory.attempts);
    // The kernel's piece first, then all the rest, as the loader asks.
    let mut memory = SimMemory { zones: memory.zones, ..Default::default() };
    let kernel = run(&mut memory, &request(62 * MIB, 62 * MIB)).unwrap();
    assert_eq!(kernel.as_slice(), [Extent { gpa: 16 * TIB, len: 62 * MIB }]);
    assert_eq!(memory.attempts, 1);
}

#[test]
fn scattered_pieces_are_as_many_as_the_list_has_room_for() {
    // Every other grain is in use: no two pieces can be joined.
    let mut memory = SimMemory::new(0, 16 * GIB);
    memory.pinned = (0..4096).map(|i| Extent { gpa: i * 2 * GRAIN, len: 4096 }).collect();
    let most = MAX_EXTENTS as u64 * GRAIN;
    let mut taken = run(&mut memory, &request(most, GRAIN)).unwrap();
    assert_eq!(taken.as_slice().len(), MAX_EXTENTS);
    release(&mut memory, &mut taken);
    assert_eq!(run(&mut memory, &request(most + GRAIN, GRAIN)).err(), Some((HostError::TooManyPieces, most)));
    assert!(memory.taken.is_empty());
}

#[test]
fn a_piece_never_spans_zones_or_lies_in_two() {
    let mut memory = SimMemory::new(0, 100 * MIB);
    memory.zones.push(Extent { gpa: 100 * MIB, len: 100 * MIB });
    memory.zones.push(Extent { gpa: 180 * MIB, len: 40 * MIB });
    for (gpa, one) in
        [(96, true), (98, false), (100, true), (176, true), (178, false), (180, false), (220, false)]
    {
        let piece = Extent { gpa: gpa * MIB, len: 4 * MIB };
        assert_eq!(in_one_zone(&memory, piece), one, "{piece:x?}");
    }
    let taken = run(&mut memory, &request(100 * MIB, GRAIN)).unwrap();
    assert!(
        !taken.as_slice().iter().any(|extent| extent.gpa + extent.len > 180 * MIB && extent.gpa < 200 * MIB)
    );
}

#[test]
fn high_zones_come_first() {
    let zones = vec![Extent { gpa: 0, len: 4 * GIB }, Extent { gpa: 4 * GIB, len: GIB }];
    let mut memory = SimMemory { zones, ..Default::default() };
    let taken = run(&mut memory, &request(64 * MIB, GRAIN)).unwrap();
    assert!(taken.as_slice().iter().all(|extent| extent.gpa >= 4 * GIB));
}

#[test]
fn out_of_memory_at_any_attempt_returns_everything() {
    for attempt in 1..20 {
        let mut memory = SimMemory::new(0, 256 * MIB);
        memory.exhausted_at = Some(attempt);
        match run(&mut memory, &request(200 * MIB, 8 * MIB)) {
            Ok(taken) => assert_eq!(taken.bytes(), 200 * MIB),
            Err((error, found)) => {
                assert_eq!(error, HostError::NoMemory);
                assert!(found < 200 * MIB && (attempt == 1) == (found == 0), "{attempt}: {found}");
                assert!(memory.taken.is_empty());
            }
        }
    }
}

#[test]
fn a_fatal_signal_ends_the_search() {
    let mut memory = SimMemory::new(0, GIB);
    memory.stop_at = Some(2);
    assert!(run(&mut memory, &request(200 * MIB, GRAIN)).is_err());
    assert_eq!(memory.attempts, 2);
    assert!(memory.taken.is_empty());
}

#[test]
fn a_search_ends_in_time() {
    let mut memory = SimMemory::new(0, 64 * GIB);
    memory.pinned = vec![Extent { gpa: 0, len: 64 * GIB }];
    memory.patience = Some(100);
    assert!(run(&mut memory, &request(GIB, GRAIN)).is_err());
    assert_eq!(memory.attempts, 100);
}

#[test]
fn the_host_is_not_starved() {
    let mut memory = SimMemory::new(0, GIB);
    memory.spare = Some(101 * MIB);
    assert_eq!(run(&mut memory, &request(102 * MIB, GRAIN)).err(), Some((HostError::NoMemory, 100 * MIB)));
    assert_eq!(memory.attempts, 0);
    assert!(run(&mut memory, &request(100 * MIB, GRAIN)).is_ok());
}

#[test]
fn nonsense_is_refused_before_anything_is_touched() {
    let good = request(16 * MIB, GRAIN);
    let bad = [
        AddMemory { size: 0, ..good },
        AddMemory { size: MIB, ..good },
        AddMemory { size: !(GRAIN - 1), ..good },
        AddMemory { min_piece: 0, ..good },
        AddMemory { min_piece: 32 * MIB, ..good },
        AddMemory { min_piece: 3 * MIB, ..good },
        AddMemory { align: 0, ..good },
        AddMemory { align: 4096, ..good },
        AddMemory { align: 3 * GRAIN, ..good },
        AddMemory { align: 1 << 63, ..good },
        AddMemory { reserved: 1, ..good },
    ];
    for request in bad {
        let mut memory = SimMemory::new(0, GIB);
        assert_eq!(run(&mut memory, &request).err(), Some((HostError::Invalid, 0)), "{request:x?}");
        assert_eq!(memory.attempts, 0);
    }
}

#[test]
fn release_gives_all_back() {
    let mut memory = SimMemory::new(0, GIB);
    let mut taken = run(&mut memory, &request(300 * MIB, GRAIN)).unwrap();
    release(&mut memory, &mut taken);
    assert!(memory.taken.is_empty() && taken.as_slice().is_empty());
    assert!(memory.zone(0).is_some());
}

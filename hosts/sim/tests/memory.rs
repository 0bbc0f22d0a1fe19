//! How memory is found, and given back when it cannot be.

use colinux_abi::ioctl::{AddMemory, Extent, memory::BELOW_4G};
use colinux_monitor::memory::{GRAIN, PhysicalMemory, acquire, release};
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
    assert_eq!(taken.as_slice(), [Extent { gpa: 128 * MIB, len: 128 * MIB }]);
}

#[test]
fn no_contiguous_piece_is_a_shortage_with_nothing_kept() {
    let mut memory = SimMemory::new(0, 256 * MIB);
    memory.pinned = vec![Extent { gpa: 128 * MIB, len: 4096 }];
    assert_eq!(run(&mut memory, &request(160 * MIB, 160 * MIB)).err(), Some((HostError::NoMemory, 0)));
}

#[test]
fn a_piece_never_spans_zones_or_lies_in_two() {
    let mut memory = SimMemory::new(0, 100 * MIB);
    memory.zones.push(Extent { gpa: 100 * MIB, len: 100 * MIB });
    memory.zones.push(Extent { gpa: 180 * MIB, len: 40 * MIB });
    let taken = run(&mut memory, &request(100 * MIB, GRAIN)).unwrap();
    assert!(
        !taken.as_slice().iter().any(|extent| extent.gpa + extent.len > 180 * MIB && extent.gpa < 200 * MIB)
    );
}

#[test]
fn high_zones_come_first_and_below_4g_is_obeyed() {
    let zones = [Extent { gpa: 0, len: 4 * GIB }, Extent { gpa: 4 * GIB, len: GIB }];
    for (flags, low) in [(0, false), (BELOW_4G, true)] {
        let mut memory = SimMemory { zones: zones.to_vec(), ..Default::default() };
        let taken = run(&mut memory, &AddMemory { flags, ..request(64 * MIB, GRAIN) }).unwrap();
        assert_eq!(taken.as_slice().iter().all(|extent| extent.gpa < 4 * GIB), low);
    }
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
        AddMemory { flags: 2, ..good },
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

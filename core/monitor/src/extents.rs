//! A guest's memory: sorted, disjoint pieces, neighbours merged.

use crate::host::ZeroInit;
use crate::memory::overlap;
use colinux_abi::MAX_EXTENTS;
use colinux_abi::ioctl::Extent;

/// The list. All zero is the empty one.
pub struct Extents {
    len: usize,
    list: [Extent; MAX_EXTENTS],
}

// SAFETY: integers only.
unsafe impl ZeroInit for Extents {}

impl Default for Extents {
    fn default() -> Self {
        Self { len: 0, list: [Extent { gpa: 0, len: 0 }; MAX_EXTENTS] }
    }
}

impl Extents {
    /// The pieces, sorted by address.
    pub fn as_slice(&self) -> &[Extent] {
        self.list.get(..self.len).unwrap_or(&[])
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.as_slice().iter().map(|extent| extent.len).sum()
    }

    /// Adds a piece that overlaps none; false when the list is full.
    pub fn add(&mut self, piece: Extent) -> bool {
        let at = self.as_slice().partition_point(|extent| extent.gpa < piece.gpa);
        let joins_left = at
            .checked_sub(1)
            .and_then(|left| self.list.get(left))
            .is_some_and(|left| left.gpa + left.len == piece.gpa);
        let joins_right = self.as_slice().get(at).is_some_and(|right| piece.gpa + piece.len == right.gpa);
        match (joins_left, joins_right) {
            (true, true) => {
                self.list[at - 1].len += piece.len + self.list[at].len;
                self.list.copy_within(at + 1..self.len, at);
                self.len -= 1;
            }
            (true, false) => self.list[at - 1].len += piece.len,
            (false, true) => {
                self.list[at].gpa = piece.gpa;
                self.list[at].len += piece.len;
            }
            (false, false) if self.len == MAX_EXTENTS => return false,
            (false, false) => {
                self.list.copy_within(at..self.len, at + 1);
                self.list[at] = piece;
                self.len += 1;
            }
        }
        true
    }

    /// Takes out a piece that one entry holds; false, with nothing changed, when none does, or the list is full and would need an entry more.
    pub fn remove(&mut self, piece: Extent) -> bool {
        let after = self.as_slice().partition_point(|extent| extent.gpa <= piece.gpa);
        if piece.len == 0 || !self.contains(piece.gpa, piece.len) {
            return false;
        }
        let Some(at) = after.checked_sub(1) else { return false };
        let Some(whole) = self.list.get(at).copied() else { return false };
        let (end, whole_end) = (piece.gpa + piece.len, whole.gpa + whole.len);
        match (whole.gpa < piece.gpa, end < whole_end) {
            (false, false) => {
                self.list.copy_within(at + 1..self.len, at);
                self.len -= 1;
            }
            (true, false) => self.list[at].len = piece.gpa - whole.gpa,
            (false, true) => self.list[at] = Extent { gpa: end, len: whole_end - end },
            (true, true) if self.len == MAX_EXTENTS => return false,
            (true, true) => {
                self.list.copy_within(at..self.len, at + 1);
                self.len += 1;
                self.list[at].len = piece.gpa - whole.gpa;
                self.list[at + 1] = Extent { gpa: end, len: whole_end - end };
            }
        }
        true
    }

    /// Adds all pieces of another list; false, with nothing changed, when there may not be room.
    pub fn add_all(&mut self, other: &Self) -> bool {
        self.len + other.len <= MAX_EXTENTS && other.as_slice().iter().all(|piece| self.add(*piece))
    }

    /// True when any piece has a part of `piece`.
    pub fn overlaps(&self, piece: Extent) -> bool {
        let after = self.as_slice().partition_point(|extent| extent.gpa + extent.len <= piece.gpa);
        self.as_slice().get(after).is_some_and(|extent| overlap(extent, &piece))
    }

    /// True when one piece holds all of `len` bytes at `gpa`.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        let after = self.as_slice().partition_point(|extent| extent.gpa <= gpa);
        let Some(extent) = after.checked_sub(1).and_then(|at| self.as_slice().get(at)) else { return false };
        let into = gpa - extent.gpa;
        into < extent.len && len <= extent.len - into
    }

    /// The first part of `gpa..end` that one piece holds.
    pub fn first_part(&self, gpa: u64, end: u64) -> Option<Extent> {
        let at = self.as_slice().partition_point(|extent| extent.gpa + extent.len <= gpa);
        let extent = self.as_slice().get(at).filter(|extent| extent.gpa < end && gpa < end)?;
        let from = extent.gpa.max(gpa);
        Some(Extent { gpa: from, len: end.min(extent.gpa + extent.len) - from })
    }

    /// Empties the list.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    fn list(pieces: &[(u64, u64)]) -> Box<Extents> {
        let mut extents = Box::<Extents>::default();
        assert!(pieces.iter().all(|&(gpa, len)| extents.add(Extent { gpa, len })));
        extents
    }

    #[test]
    fn neighbours_merge_in_any_order() {
        for pieces in [[(0, 2), (2, 2), (4, 2)], [(4, 2), (0, 2), (2, 2)], [(2, 2), (4, 2), (0, 2)]] {
            assert_eq!(list(&pieces).as_slice(), [Extent { gpa: 0, len: 6 }]);
        }
    }

    #[test]
    fn others_stay_apart_and_sorted() {
        let extents = list(&[(10, 2), (0, 2), (5, 2)]);
        assert_eq!(
            extents.as_slice().iter().map(|extent| extent.gpa).collect::<std::vec::Vec<_>>(),
            [0, 5, 10]
        );
        assert_eq!(extents.bytes(), 6);
    }

    #[test]
    fn contains_knows_ends() {
        let extents = list(&[(10, 10), (30, 10)]);
        assert!(extents.contains(10, 10) && extents.contains(39, 1));
        for (gpa, len) in [(9, 1), (10, 11), (20, 1), (15, 20), (40, 1), (10, u64::MAX), (u64::MAX, 1)] {
            assert!(!extents.contains(gpa, len), "{gpa} {len}");
        }
    }

    #[test]
    fn parts_of_a_range_are_found_in_order() {
        let extents = list(&[(10, 10), (30, 10)]);
        let part = |gpa, end| extents.first_part(gpa, end).map(|part| (part.gpa, part.len));
        assert_eq!(part(0, 100), Some((10, 10)));
        assert_eq!(part(20, 100), Some((30, 10)));
        assert_eq!(part(15, 17), Some((15, 2)));
        assert_eq!(part(35, u64::MAX), Some((35, 5)));
        for (gpa, end) in [(0, 10), (20, 30), (40, 100), (15, 15), (35, 15)] {
            assert_eq!(part(gpa, end), None, "{gpa} {end}");
        }
    }

    #[test]
    fn a_piece_is_taken_out_at_any_place() {
        let remove = |piece: (u64, u64)| {
            let mut extents = list(&[(10, 10), (30, 10)]);
            let done = extents.remove(Extent { gpa: piece.0, len: piece.1 });
            done.then(|| extents.as_slice().iter().map(|e| (e.gpa, e.len)).collect::<std::vec::Vec<_>>())
        };
        for (piece, left) in [
            ((10, 10), std::vec![(30, 10)]),
            ((30, 4), std::vec![(10, 10), (34, 6)]),
            ((36, 4), std::vec![(10, 10), (30, 6)]),
            ((12, 3), std::vec![(10, 2), (15, 5), (30, 10)]),
        ] {
            assert_eq!(remove(piece), Some(left), "{piece:?}");
        }
        for piece in [(9, 2), (19, 2), (25, 2), (10, 30), (10, 0), (38, u64::MAX)] {
            assert_eq!(remove(piece), None, "{piece:?}");
        }
    }

    #[test]
    fn a_full_list_refuses_and_keeps_what_it_has() {
        let mut extents = Box::<Extents>::default();
        for i in 0..MAX_EXTENTS as u64 {
            assert!(extents.add(Extent { gpa: i * 4, len: 2 }));
        }
        assert!(!extents.add(Extent { gpa: MAX_EXTENTS as u64 * 4, len: 2 }));
        assert!(extents.add(Extent { gpa: MAX_EXTENTS as u64 * 4 - 2, len: 1 }));
        assert!(
            !extents.remove(Extent { gpa: MAX_EXTENTS as u64 * 4 - 3, len: 1 }),
            "it would need an entry more"
        );
        assert!(extents.remove(Extent { gpa: MAX_EXTENTS as u64 * 4 - 2, len: 1 }));
        assert!(extents.add(Extent { gpa: 2, len: 2 }));
        assert_eq!(extents.as_slice().len(), MAX_EXTENTS - 1);
    }
}

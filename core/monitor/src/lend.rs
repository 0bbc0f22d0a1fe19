//! Memory that a guest does not need: lent to the host and recovered, or given back for good.
//!
//! The lists only; the pages themselves change hands before or after, as each function says.

use crate::error::HostError;
use crate::extents::Extents;
use crate::memory::{GRAIN, overlap};
use colinux_abi::ioctl::Extent;

fn check(piece: Extent) -> Result<(), HostError> {
    let sane = piece.len != 0 && piece.gpa.is_multiple_of(GRAIN) && piece.len.is_multiple_of(GRAIN);
    if sane && piece.gpa.checked_add(piece.len).is_some() { Ok(()) } else { Err(HostError::Invalid) }
}

/// The range in which windows have been, with another one: a window that has moved is kept, because a thread that reached for it before may write to it still.
/// An empty range is none.
pub fn with_window(range: Extent, window: Extent) -> Extent {
    if range.len == 0 {
        return window;
    }
    let gpa = range.gpa.min(window.gpa);
    let end = (range.gpa + range.len).max(window.gpa + window.len);
    Extent { gpa, len: end - gpa }
}

/// Moves `piece` from the guest's `extents` to `lent`. The pages may go to the host when this has succeeded.
///
/// # Errors
/// [`HostError::Invalid`] unless the piece is a multiple of [`GRAIN`] and lies in one extent, without the range `kept`;
/// [`HostError::TooManyPieces`] when a list is full. Nothing has changed then.
pub fn lend(extents: &mut Extents, lent: &mut Extents, piece: Extent, kept: Extent) -> Result<(), HostError> {
    check_own(extents, piece, kept)?;
    transfer(extents, lent, piece)
}

/// Takes `piece` out of the guest's `extents`. The pages may go to the host when this has succeeded.
///
/// # Errors
/// As [`lend`].
pub fn give(extents: &mut Extents, piece: Extent, kept: Extent) -> Result<(), HostError> {
    check_own(extents, piece, kept)?;
    if extents.remove(piece) { Ok(()) } else { Err(HostError::TooManyPieces) }
}

/// The guest has `piece` and can do without it.
fn check_own(extents: &Extents, piece: Extent, kept: Extent) -> Result<(), HostError> {
    check(piece)?;
    let own = extents.contains(piece.gpa, piece.len) && !overlap(&kept, &piece);
    if own { Ok(()) } else { Err(HostError::Invalid) }
}

/// Checks that `piece` is lent, before the host is asked for it.
///
/// # Errors
/// [`HostError::Invalid`].
pub fn check_lent(lent: &Extents, piece: Extent) -> Result<(), HostError> {
    check(piece)?;
    if lent.contains(piece.gpa, piece.len) { Ok(()) } else { Err(HostError::Invalid) }
}

/// Moves `piece`, whose pages the host has given, from `lent` back to `extents`.
///
/// # Errors
/// [`HostError::Invalid`] if it is not lent (any more), [`HostError::TooManyPieces`] when a list is full. Nothing has changed then, and the pages must go back to the host.
pub fn recover(extents: &mut Extents, lent: &mut Extents, piece: Extent) -> Result<(), HostError> {
    check_lent(lent, piece)?;
    transfer(lent, extents, piece)
}

/// `from` holds the piece.
fn transfer(from: &mut Extents, to: &mut Extents, piece: Extent) -> Result<(), HostError> {
    if !to.add(piece) {
        return Err(HostError::TooManyPieces);
    }
    if !from.remove(piece) {
        // This brings back what was there before, which had room.
        to.remove(piece);
        return Err(HostError::TooManyPieces);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use colinux_abi::MAX_EXTENTS;
    use std::boxed::Box;

    const NONE: Extent = Extent { gpa: 0, len: 0 };

    fn piece(grains: (u64, u64)) -> Extent {
        Extent { gpa: grains.0 * GRAIN, len: grains.1 * GRAIN }
    }

    #[test]
    fn what_is_lent_comes_back() {
        let (mut own, mut lent) = (Box::<Extents>::default(), Box::<Extents>::default());
        assert!(own.add(piece((10, 20))));
        let window = piece((12, 1));
        lend(&mut own, &mut lent, piece((15, 2)), window).unwrap();
        assert_eq!(
            (own.as_slice(), lent.as_slice()),
            (&[piece((10, 5)), piece((17, 13))][..], &[piece((15, 2))][..])
        );
        // Twice, the window, in no extent, not a multiple, and what overflows.
        for bad in
            [piece((15, 1)), piece((12, 2)), piece((40, 1)), Extent { gpa: 20 * GRAIN + 4096, len: GRAIN }]
        {
            assert_eq!(lend(&mut own, &mut lent, bad, window), Err(HostError::Invalid), "{bad:x?}");
        }
        let overflow = Extent { gpa: !(GRAIN - 1), len: GRAIN };
        assert_eq!(lend(&mut own, &mut lent, overflow, NONE), Err(HostError::Invalid));
        assert_eq!(recover(&mut own, &mut lent, piece((20, 1))), Err(HostError::Invalid));
        recover(&mut own, &mut lent, piece((15, 2))).unwrap();
        assert_eq!((own.as_slice(), lent.bytes()), (&[piece((10, 20))][..], 0));
        assert_eq!(recover(&mut own, &mut lent, piece((15, 2))), Err(HostError::Invalid));
    }

    #[test]
    fn what_is_given_is_no_longer_known() {
        let (mut own, mut lent) = (Box::<Extents>::default(), Box::<Extents>::default());
        assert!(own.add(piece((10, 20))));
        let window = piece((12, 1));
        assert_eq!(give(&mut own, piece((11, 2)), window), Err(HostError::Invalid));
        assert_eq!(give(&mut own, piece((29, 2)), window), Err(HostError::Invalid));
        give(&mut own, piece((20, 5)), window).unwrap();
        assert_eq!(own.as_slice(), [piece((10, 10)), piece((25, 5))]);
        assert_eq!(give(&mut own, piece((20, 5)), window), Err(HostError::Invalid));
        assert_eq!(recover(&mut own, &mut lent, piece((20, 5))), Err(HostError::Invalid));
    }

    #[test]
    fn a_window_that_has_moved_is_kept() {
        let (mut own, mut lent) = (Box::<Extents>::default(), Box::<Extents>::default());
        assert!(own.add(piece((10, 20))));
        let kept =
            with_window(with_window(with_window(NONE, piece((14, 1))), piece((12, 1))), piece((13, 1)));
        assert_eq!(kept, piece((12, 3)));
        for grain in 12..15 {
            assert_eq!(give(&mut own, piece((grain, 1)), kept), Err(HostError::Invalid));
            assert_eq!(lend(&mut own, &mut lent, piece((grain, 1)), kept), Err(HostError::Invalid));
        }
        give(&mut own, piece((11, 1)), kept).unwrap();
        give(&mut own, piece((15, 1)), kept).unwrap();
    }

    #[test]
    fn a_full_list_changes_nothing() {
        let (mut own, mut lent) = (Box::<Extents>::default(), Box::<Extents>::default());
        for i in 0..MAX_EXTENTS as u64 {
            assert!(own.add(piece((10 + 4 * i, 3))));
        }
        assert_eq!(lend(&mut own, &mut lent, piece((11, 1)), NONE), Err(HostError::TooManyPieces));
        assert_eq!(give(&mut own, piece((11, 1)), NONE), Err(HostError::TooManyPieces));
        assert_eq!((own.bytes(), lent.bytes()), (3 * GRAIN * MAX_EXTENTS as u64, 0));
        lend(&mut own, &mut lent, piece((10, 1)), NONE).unwrap();
        assert_eq!(lent.bytes(), GRAIN);
    }
}

//! Finding memory for a guest: large pieces first, smaller ones where those are not to be had; all or nothing.

use crate::error::HostError;
use crate::extents::Extents;
use colinux_abi::ioctl::{AddMemory, Extent, memory::BELOW_4G};

/// Everything about guest memory is a multiple of this.
pub const GRAIN: u64 = 2 << 20;
/// Pieces are not tried larger than this, unless one contiguous piece is asked for.
const LARGEST_PIECE: u64 = 64 << 20;
/// Memory below is left alone: devices that reach no further need it.
const FIRST_ADDRESS: u64 = 16 << 20;
const FOUR_GIB: u64 = 4 << 30;

/// What an attempt to take a piece came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is ours, zeroed.
    Got,
    /// It is in use, or there is no such memory.
    InUse,
    /// The caller shall give up.
    Stop,
}

/// The host's memory.
pub trait PhysicalMemory {
    /// Zone number `index`: a range within which a piece must lie. Zones may overlap; a piece must then lie in one alone. `None` after the last.
    fn zone(&self, index: usize) -> Option<Extent>;
    /// Takes a piece, moving its users away, and zeroes it. May take long; lets others run.
    fn take(&mut self, piece: Extent) -> Take;
    /// Gives back what was taken.
    fn give(&mut self, piece: Extent);
    /// False when the search has taken too long.
    fn has_time(&mut self) -> bool;
    /// Bytes that can be taken now without starving the host.
    fn available(&self) -> u64;
}

/// Why memory could not be had; all that was taken was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is in the way.
    pub error: HostError,
    /// Bytes that were found, or that the host could spare where it was not even tried.
    pub found: u64,
}

/// Checks a request.
///
/// # Errors
/// [`HostError::Invalid`].
pub fn check(request: &AddMemory) -> Result<(), HostError> {
    let aligned = request.size.is_multiple_of(GRAIN) && request.min_piece.is_multiple_of(GRAIN);
    let sane = request.size != 0
        && request.size <= 1 << 52
        && request.min_piece != 0
        && request.min_piece <= request.size;
    let align = request.align.is_power_of_two() && (GRAIN..=1 << 40).contains(&request.align);
    if aligned && sane && align && request.flags & !BELOW_4G == 0 { Ok(()) } else { Err(HostError::Invalid) }
}

/// Takes memory as `request` says into `taken`, an empty list.
///
/// # Errors
/// [`Shortage`]; `taken` is empty again.
pub fn acquire(
    memory: &mut impl PhysicalMemory,
    request: &AddMemory,
    taken: &mut Extents,
) -> Result<(), Shortage> {
    taken.clear();
    check(request).map_err(|error| Shortage { error, found: 0 })?;
    let available = memory.available();
    if available < request.size {
        return Err(Shortage { error: HostError::NoMemory, found: available & !(GRAIN - 1) });
    }
    let mut search = Search { memory, request, taken, missing: request.size, over: false };
    search.all_sizes();
    if search.missing == 0 {
        return Ok(());
    }
    let found = taken.bytes();
    release(memory, taken);
    Err(Shortage { error: HostError::NoMemory, found })
}

/// Gives all of a list back and empties it.
pub fn release(memory: &mut impl PhysicalMemory, extents: &mut Extents) {
    extents.as_slice().iter().for_each(|extent| memory.give(*extent));
    extents.clear();
}

struct Search<'a, M> {
    memory: &'a mut M,
    request: &'a AddMemory,
    taken: &'a mut Extents,
    missing: u64,
    /// No more attempts: out of time, of memory, or of room in the list.
    over: bool,
}

impl<M: PhysicalMemory> Search<'_, M> {
    fn all_sizes(&mut self) {
        let least = self.request.min_piece;
        let mut size = least.max(LARGEST_PIECE.min(self.request.size));
        while !self.over && self.missing != 0 {
            self.all_zones(size, size == least);
            if size == least {
                break;
            }
            size = least.max((size / 2).next_multiple_of(GRAIN));
        }
    }

    /// High zones first: low memory is the scarcer.
    fn all_zones(&mut self, size: u64, last_size: bool) {
        let zones = (0..).take_while(|&index| self.memory.zone(index).is_some()).count();
        for index in (0..zones).rev() {
            if let Some(zone) = self.memory.zone(index) {
                self.one_zone(zone, size, last_size);
            }
        }
    }

    fn one_zone(&mut self, zone: Extent, size: u64, last_size: bool) {
        let align = self.request.align;
        let limit = if self.request.flags & BELOW_4G != 0 { FOUR_GIB } else { u64::MAX };
        let end = zone.gpa.saturating_add(zone.len).min(limit);
        let mut gpa = zone.gpa.max(FIRST_ADDRESS).next_multiple_of(align);
        while self.missing != 0 && !self.over {
            let piece = Extent { gpa, len: self.piece_len(size) };
            if gpa.checked_add(piece.len).is_none_or(|piece_end| piece_end > end) {
                return;
            }
            // Of two overlapping candidates the second mostly fails for what the first did, so only the last size looks everywhere.
            let step = if self.attempt(piece) || !last_size { piece.len } else { align };
            gpa += step.next_multiple_of(align);
        }
    }

    /// `size`, or all that is missing where the rest would be too small to use.
    fn piece_len(&self, size: u64) -> u64 {
        if self.missing < size + self.request.min_piece { self.missing } else { size }
    }

    fn attempt(&mut self, piece: Extent) -> bool {
        if !self.memory.has_time() || self.memory.available() < piece.len {
            self.over = true;
            return false;
        }
        if !self.in_one_zone(piece) || self.overlaps_taken(piece) {
            return false;
        }
        match self.memory.take(piece) {
            Take::InUse => return false,
            Take::Stop => {
                self.over = true;
                return false;
            }
            Take::Got => {}
        }
        if self.taken.add(piece) {
            self.missing -= piece.len;
            return true;
        }
        self.memory.give(piece);
        self.over = true;
        false
    }

    fn in_one_zone(&self, piece: Extent) -> bool {
        let zones = (0..).map_while(|index| self.memory.zone(index));
        zones.filter(|zone| overlap(zone, &piece)).count() == 1
    }

    /// What we have already; the host would only tell us that it is in use, after a long look.
    fn overlaps_taken(&self, piece: Extent) -> bool {
        let list = self.taken.as_slice();
        let after = list.partition_point(|extent| extent.gpa + extent.len <= piece.gpa);
        list.get(after).is_some_and(|extent| overlap(extent, &piece))
    }
}

fn overlap(a: &Extent, b: &Extent) -> bool {
    a.gpa < b.gpa.saturating_add(b.len) && b.gpa < a.gpa.saturating_add(a.len)
}

//! Finding memory for a guest: large pieces first, smaller ones where those are not to be had; all or nothing.

use crate::error::HostError;
use crate::extents::Extents;
use colinux_abi::ioctl::{AddMemory, Extent};

/// Everything about guest memory is a multiple of this.
pub const GRAIN: u64 = 2 << 20;
/// Pieces are not tried larger than this, unless one contiguous piece is asked for.
const LARGEST_PIECE: u64 = 64 << 20;
/// Memory below is left alone: devices that reach no further need it.
const FIRST_ADDRESS: u64 = 16 << 20;
/// A contiguous piece that is not found whole is looked for in steps of this size, so that what is in the way is met but once: no free block of a host is larger.
const STEP: u64 = 4 << 20;
/// How often all memory is searched in steps: what is in the way may be so for a moment only, such as a page under I/O.
const ROUNDS: u32 = 3;

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
    /// Gives the search all its time anew.
    fn restart_clock(&mut self);
    /// False when this search alone has taken too long since [`Self::restart_clock`]; time in which it had to wait for others does not count.
    fn has_time(&self) -> bool;
    /// Bytes that can be taken now without starving the host.
    fn available(&self) -> u64;
}

/// Why memory could not be had; all that was taken was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is in the way.
    pub error: HostError,
    /// Bytes that were found (of one contiguous piece: the most at one place), or that the host could spare where it was not even tried.
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
    if aligned && sane && align && request.reserved == 0 { Ok(()) } else { Err(HostError::Invalid) }
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
    let mut search = Search {
        memory,
        request,
        taken,
        missing: request.size,
        over: false,
        longest: 0,
        obstacle: HostError::NoMemory,
    };
    search.memory.restart_clock();
    search.all_sizes();
    if search.missing != 0 && request.min_piece == request.size {
        search.in_steps();
    }
    if search.missing == 0 {
        return Ok(());
    }
    let (error, found) = (search.obstacle, search.longest.max(search.taken.bytes()));
    release(memory, taken);
    Err(Shortage { error, found })
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
    /// No more attempts: out of memory, or of room in the list, or the caller shall give up.
    over: bool,
    /// Bytes of the longest part of a contiguous piece.
    longest: u64,
    /// What is in the way, as far as is known.
    obstacle: HostError,
}

impl<M: PhysicalMemory> Search<'_, M> {
    /// Large pieces first, wherever they are; then smaller ones, place by place, so that what is in the way is met a few times only.
    fn all_sizes(&mut self) {
        let least = self.request.min_piece;
        let largest = least.max(LARGEST_PIECE.min(self.request.size));
        self.all_zones(|search, zone| search.equal_pieces(zone, largest, largest));
        if least < largest {
            self.all_zones(|search, zone| search.smaller_pieces(zone, largest));
        }
        if GRAIN < least && least < self.request.size {
            self.all_zones(|search, zone| search.equal_pieces(zone, least, GRAIN));
        }
    }

    /// High zones first: low memory is the scarcer.
    fn all_zones(&mut self, mut look: impl FnMut(&mut Self, Extent)) {
        let zones = (0..).take_while(|&index| self.memory.zone(index).is_some()).count();
        for index in (0..zones).rev() {
            if let Some(zone) = self.memory.zone(index) {
                look(self, zone);
            }
        }
    }

    /// Tries pieces of one size, `step` bytes from one that cannot be had to the next.
    fn equal_pieces(&mut self, zone: Extent, size: u64, step: u64) {
        let align = self.request.align;
        let (mut gpa, end) = self.bounds(zone, align);
        while !self.done() && fits(gpa, self.piece_len(size), end) {
            let len = self.piece_len(size);
            let step = if self.attempt(Extent { gpa, len }) { len } else { step };
            gpa += step.next_multiple_of(align);
        }
    }

    fn smaller_pieces(&mut self, zone: Extent, size: u64) {
        let align = self.request.align;
        let (mut gpa, end) = self.bounds(zone, align);
        while !self.done() && gpa < end {
            self.halves(gpa, size, end);
            gpa += size.next_multiple_of(align);
        }
    }

    /// Takes what is to be had of `size` bytes at `gpa`, which cannot be had in one piece.
    fn halves(&mut self, gpa: u64, size: u64, end: u64) {
        let half = self.request.min_piece.max((size / 2).next_multiple_of(GRAIN));
        let second = (gpa + half).next_multiple_of(self.request.align);
        if half == size {
            return;
        }
        for gpa in [gpa, second] {
            let piece = Extent { gpa, len: self.piece_len(half) };
            if self.done() || gpa >= end {
                return;
            }
            if !(fits(gpa, piece.len, end) && self.attempt(piece)) {
                self.halves(gpa, half, end);
            }
        }
    }

    /// Looks for a contiguous piece once more, in steps.
    fn in_steps(&mut self) {
        self.memory.restart_clock();
        for _ in 0..ROUNDS {
            self.all_zones(Self::zone_in_steps);
        }
    }

    fn zone_in_steps(&mut self, zone: Extent) {
        let align = self.request.align.max(STEP);
        let (mut gpa, end) = self.bounds(zone, align);
        while !self.done() && fits(gpa, self.request.size, end) {
            if let Err(in_use) = self.step_by_step(Extent { gpa, len: self.request.size }) {
                gpa = (in_use + STEP).next_multiple_of(align);
            }
        }
    }

    /// Takes all of a piece or nothing; the error is the address of the step that could not be had.
    fn step_by_step(&mut self, whole: Extent) -> Result<(), u64> {
        let end = whole.gpa + whole.len;
        for gpa in (whole.gpa..end).step_by(STEP as usize) {
            if !self.attempt(Extent { gpa, len: STEP.min(end - gpa) }) {
                self.longest = self.longest.max(gpa - whole.gpa);
                release(self.memory, self.taken);
                self.missing = whole.len;
                return Err(gpa);
            }
        }
        Ok(())
    }

    /// The first address of a zone that may be tried, and the end.
    fn bounds(&self, zone: Extent, align: u64) -> (u64, u64) {
        (zone.gpa.max(FIRST_ADDRESS).next_multiple_of(align), zone.gpa.saturating_add(zone.len))
    }

    fn done(&self) -> bool {
        self.missing == 0 || self.over || !self.memory.has_time()
    }

    /// `size`, or all that is missing where the rest would be too small to use.
    fn piece_len(&self, size: u64) -> u64 {
        if self.missing < size + self.request.min_piece { self.missing } else { size }
    }

    fn attempt(&mut self, piece: Extent) -> bool {
        if self.memory.available() < piece.len {
            self.over = true;
            return false;
        }
        // Of what we have already, the host would only tell us that it is in use, after a long look.
        if !in_one_zone(self.memory, piece) || self.taken.overlaps(piece) {
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
            if self.request.min_piece < self.request.size {
                self.memory.restart_clock();
            }
            return true;
        }
        self.memory.give(piece);
        (self.over, self.obstacle) = (true, HostError::TooManyPieces);
        false
    }
}

/// A piece may be taken at once: no second zone has a part of it.
pub fn in_one_zone(memory: &impl PhysicalMemory, piece: Extent) -> bool {
    let zones = (0..).map_while(|index| memory.zone(index));
    zones.filter(|zone| overlap(zone, &piece)).count() == 1
}

fn fits(gpa: u64, len: u64, end: u64) -> bool {
    gpa.checked_add(len).is_some_and(|piece_end| piece_end <= end)
}

/// They have an address in common.
pub(crate) fn overlap(a: &Extent, b: &Extent) -> bool {
    a.gpa < b.gpa.saturating_add(b.len) && b.gpa < a.gpa.saturating_add(a.len)
}

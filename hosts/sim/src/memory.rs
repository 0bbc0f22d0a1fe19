//! Scripted memory.

use colinux_abi::ioctl::Extent;
use colinux_monitor::memory::{PhysicalMemory, Take};

/// Host memory with zones, pages that cannot move, and failures to order.
#[derive(Default)]
pub struct SimMemory {
    /// The zones.
    pub zones: Vec<Extent>,
    /// Ranges in use for good.
    pub pinned: Vec<Extent>,
    /// What is taken.
    pub taken: Vec<Extent>,
    /// Attempts so far.
    pub attempts: u32,
    /// From this attempt on, nothing is to be had.
    pub exhausted_at: Option<u32>,
    /// At this attempt a fatal signal comes.
    pub stop_at: Option<u32>,
    /// Bytes that the host can spare, in all.
    pub spare: Option<u64>,
    /// Attempts before the search takes too long.
    pub patience: Option<u32>,
    /// Attempts when the clock was started.
    pub clock: u32,
    /// Attempts until what is pinned is free.
    pub freed_at: Option<u32>,
}

fn overlap(a: &Extent, b: &Extent) -> bool {
    a.gpa < b.gpa + b.len && b.gpa < a.gpa + a.len
}

impl SimMemory {
    /// One zone.
    pub fn new(gpa: u64, len: u64) -> Self {
        Self { zones: vec![Extent { gpa, len }], ..Self::default() }
    }

    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.taken.iter().map(|extent| extent.len).sum()
    }

    fn subtract(&mut self, piece: Extent) {
        let end = piece.gpa + piece.len;
        let parts = self.taken.drain(..).flat_map(|own| {
            let before = Extent { gpa: own.gpa, len: piece.gpa.saturating_sub(own.gpa).min(own.len) };
            let own_end = own.gpa + own.len;
            let after = Extent { gpa: end.max(own.gpa), len: own_end.saturating_sub(end.max(own.gpa)) };
            [before, after]
        });
        self.taken = parts.filter(|part| part.len != 0).collect();
    }
}

impl PhysicalMemory for SimMemory {
    fn zone(&self, index: usize) -> Option<Extent> {
        self.zones.get(index).copied()
    }

    fn take(&mut self, piece: Extent) -> Take {
        self.attempts += 1;
        assert_eq!(
            self.zones.iter().filter(|zone| overlap(zone, &piece)).count(),
            1,
            "{piece:x?} in one zone"
        );
        if self.stop_at.is_some_and(|stop| self.attempts >= stop) {
            return Take::Stop;
        }
        if self.freed_at.is_some_and(|freed| self.attempts >= freed) {
            self.pinned.clear();
        }
        let exhausted = self.exhausted_at.is_some_and(|last| self.attempts >= last);
        if exhausted || self.pinned.iter().chain(&self.taken).any(|used| overlap(used, &piece)) {
            return Take::InUse;
        }
        match self.taken.iter_mut().find(|taken| taken.gpa + taken.len == piece.gpa) {
            Some(before) => before.len += piece.len,
            None => self.taken.push(piece),
        }
        Take::Got
    }

    fn give(&mut self, piece: Extent) {
        let before = self.bytes();
        self.subtract(piece);
        assert_eq!(before - self.bytes(), piece.len, "given back what was not taken: {piece:x?}");
    }

    fn available(&self) -> u64 {
        self.spare.map_or(u64::MAX, |spare| spare.saturating_sub(self.bytes()))
    }

    fn restart_clock(&mut self) {
        self.clock = self.attempts;
    }

    fn has_time(&self) -> bool {
        self.patience.is_none_or(|patience| self.attempts - self.clock < patience)
    }
}

//! The guest's memory while it runs.

use super::{Devices, Model, lock};
use crate::{VmmError, plug::Plug};
use colinux_abi::{ioctl::Extent, page::order::MEMORY_BLOCK};
use colinux_devices::{Balloon, BalloonDevice, NUM_PAGES};
use colinux_driver::{MemoryRequest, Vm};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tracing::warn;

/// Name of the device.
const NAME: &str = "balloon";
/// Bytes with which a guest must be able to go on.
const LEAST: u64 = 64 << 20;
/// How long a guest that boots again may wait for memory that the host uses.
const PATIENCE: Duration = Duration::from_secs(5);

/// The balloon's device.
pub(crate) fn model(balloon: &Arc<Balloon>) -> Model {
    Model { name: NAME.to_owned(), device: Box::new(BalloonDevice::new(balloon)) }
}

/// Sizes of a guest's memory, in bytes.
pub(crate) struct Bounds {
    /// What it is made with.
    pub(crate) total: u64,
    /// It lies below this guest-physical address.
    pub(crate) span: u64,
}

/// How much memory a guest has, for changes while it runs.
pub(crate) struct Memory {
    vm: Vm,
    devices: Arc<Devices>,
    balloon: Arc<Balloon>,
    plug: Arc<Plug>,
    /// Bytes that it has, with what is in the balloon.
    total: AtomicU64,
    span: u64,
    /// Held by whoever changes it.
    changes: Mutex<()>,
}

impl Memory {
    pub(crate) fn new(
        vm: &Vm,
        devices: &Arc<Devices>,
        balloon: &Arc<Balloon>,
        plug: &Arc<Plug>,
        Bounds { total, span }: Bounds,
    ) -> Self {
        let (devices, balloon, plug) = (Arc::clone(devices), Arc::clone(balloon), Arc::clone(plug));
        Self { vm: vm.clone(), devices, balloon, plug, total: total.into(), span, changes: Mutex::default() }
    }

    /// Bytes that it has, with what is in the balloon.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Asks the guest to get along with `size` bytes; it gets more than it has had so far where the host can give them.
    pub(crate) fn resize(&self, size: u64) -> Result<(), VmmError> {
        let _changes = lock(&self.changes);
        if size < LEAST {
            return Err(VmmError::MemorySize { least: LEAST });
        }
        let missing = size.saturating_sub(self.total());
        if missing != 0 {
            self.grow(missing.next_multiple_of(MEMORY_BLOCK))?;
        }
        self.balloon.want(self.total() - size.min(self.total()));
        self.devices.config_changed(NAME, NUM_PAGES)
    }

    /// Takes `len` bytes more from the host, for ever, and has the guest use them.
    fn grow(&self, len: u64) -> Result<(), VmmError> {
        let lent = self.vm.stats()?.lent;
        if lent != 0 {
            return Err(VmmError::StillLent { lent, total: self.total() });
        }
        let before = self.vm.extents()?;
        self.vm.add_memory(&MemoryRequest { size: len, align: MEMORY_BLOCK, min_piece: MEMORY_BLOCK })?;
        let pieces = added(&before, &self.vm.extents()?);
        let (own, result) = offer(&pieces, |piece| self.hand_over(piece));
        let (own, useless) = pieces.split_at(own);
        self.total.fetch_add(own.iter().map(|piece| piece.len).sum(), Ordering::Relaxed);
        useless.iter().for_each(|piece| self.put_back(*piece));
        result
    }

    fn hand_over(&self, piece: Extent) -> Result<(), VmmError> {
        if piece.gpa + piece.len > self.span {
            return Err(VmmError::BeyondSpan(self.span));
        }
        self.plug.memory(piece.gpa, piece.len)
    }

    fn put_back(&self, piece: Extent) {
        if let Err(error) = self.vm.give(piece) {
            warn!("{} MiB stay with the guest, which does not use them: {error}", piece.len >> 20);
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> Result<String, VmmError> {
        let Self { balloon, .. } = self;
        let (total, lent) = (self.total(), self.vm.stats()?.lent);
        let (has, shall) = (total.saturating_sub(balloon.actual()), total.saturating_sub(balloon.wanted()));
        let [total, has, shall, lent] = [total, has, shall, lent].map(|bytes| bytes >> 20);
        Ok(format!(
            "the guest has {has} of {total} MiB and shall have {shall}; the host uses {lent} MiB of it\n"
        ))
    }

    /// Takes back all that the host has, before the guest's memory is used anew.
    pub(crate) fn restore(&self) {
        self.balloon.empty(PATIENCE);
    }
}

/// Offers `pieces` to the guest until it does not take one. Returns how many are its own, and why not all are.
fn offer(pieces: &[Extent], take: impl Fn(Extent) -> Result<(), VmmError>) -> (usize, Result<(), VmmError>) {
    for (index, piece) in pieces.iter().enumerate() {
        match take(*piece) {
            Ok(()) => {}
            // It may answer later: the memory is its own.
            Err(VmmError::NoAnswer) => return (index + 1, Err(VmmError::NoAnswer)),
            Err(refused) => return (index, Err(refused)),
        }
    }
    (pieces.len(), Ok(()))
}

/// The blocks of `after` of which `before` has nothing, neighbours together. Both are sorted by address, and whole blocks have come.
fn added(before: &[Extent], after: &[Extent]) -> Vec<Extent> {
    let is_old = |gpa: u64| {
        let next = before.partition_point(|old| old.gpa + old.len <= gpa);
        before.get(next).is_some_and(|old| old.gpa < gpa + MEMORY_BLOCK)
    };
    let mut pieces: Vec<Extent> = Vec::new();
    for extent in after {
        let first = extent.gpa.next_multiple_of(MEMORY_BLOCK);
        let end = (extent.gpa + extent.len) / MEMORY_BLOCK * MEMORY_BLOCK;
        for gpa in (first..end).step_by(MEMORY_BLOCK as usize).filter(|gpa| !is_old(*gpa)) {
            match pieces.last_mut() {
                Some(last) if last.gpa + last.len == gpa => last.len += MEMORY_BLOCK,
                _ => pieces.push(Extent { gpa, len: MEMORY_BLOCK }),
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_refuses_is_not_its_own() {
        let block = |number: u64| Extent { gpa: number * MEMORY_BLOCK, len: MEMORY_BLOCK };
        let pieces = [block(1), block(2), block(3)];
        let refuses = |why: fn() -> VmmError| {
            let (own, result) = offer(&pieces, |piece| if piece == block(2) { Err(why()) } else { Ok(()) });
            (own, result.unwrap_err().to_string())
        };
        assert_eq!(refuses(|| VmmError::BeyondSpan(0)), (1, VmmError::BeyondSpan(0).to_string()));
        assert_eq!(refuses(|| VmmError::NoAnswer), (2, VmmError::NoAnswer.to_string()));
        let (own, result) = offer(&pieces, |_| Ok(()));
        assert_eq!((own, result.is_ok()), (3, true));
    }

    #[test]
    fn blocks_that_have_come_are_told_from_their_neighbours() {
        let extent = |from: u64, to: u64| Extent { gpa: from << 20, len: (to - from) << 20 };
        // From 130 MiB to the end of a block; what comes joins it, and stands alone.
        let before = [extent(130, 256), extent(640, 700)];
        let after = [extent(130, 512), extent(640, 700), extent(1024, 1152)];
        assert_eq!(added(&before, &after), [extent(256, 512), extent(1024, 1152)]);
        assert_eq!(added(&before, &before), []);
        assert_eq!(added(&[extent(0, 2)], &[extent(0, 256)]), [extent(128, 256)]);
    }
}

//! Where everything goes in guest memory.
//!
//! One contiguous piece, the *image extent*, holds kernel, window and boot area; a second one holds the initrd; the rest of the
//! memory may come in many pieces.

use crate::{LoadError, Machine, paging::LARGE};
use colinux_abi::{ioctl::Extent, window};

/// Bytes of the boot area behind the window: boot_params, command line, stack, page tables.
const BOOT_AREA: u64 = LARGE;
/// Least memory beside kernel and initrd with which a distribution boots.
const ROOM: u64 = 64 << 20;

/// Guest-physical addresses of all that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The image extent; the kernel is at its start.
    pub image: Extent,
    /// Bytes at the start of the image extent that are the kernel's.
    pub kernel_len: u64,
    /// The 2 MiB of the window.
    pub window: u64,
    /// The boot area.
    pub boot: Extent,
    /// Where the initrd goes; of length zero without one.
    pub initrd: Extent,
    /// All memory, sorted by address.
    pub extents: Vec<Extent>,
}

/// Bytes of the image extent for a kernel of `kernel_len` bytes.
fn image_len(kernel_len: u64) -> u64 {
    kernel_len.next_multiple_of(LARGE) + window::SIZE + BOOT_AREA
}

impl Placement {
    fn in_image(image: Extent, kernel_len: u64, initrd: Extent, extents: Vec<Extent>) -> Self {
        let window = image.gpa + kernel_len.next_multiple_of(LARGE);
        let boot = Extent { gpa: window + window::SIZE, len: BOOT_AREA };
        Self { image, kernel_len, window, boot, initrd, extents }
    }

    /// The placement in the same memory for another kernel and initrd, after a reboot that may have followed an upgrade.
    ///
    /// # Errors
    /// They do not fit, or the host has the kernel's place ([`Self::extents`] lacks it).
    pub fn again(&self, kernel_len: u64, initrd_len: u64) -> Result<Self, LoadError> {
        if image_len(kernel_len) > self.image.len {
            return Err(LoadError::Grown("kernel"));
        }
        let is_there = |piece: &&Extent| {
            let holds =
                |extent: &Extent| extent.gpa <= piece.gpa && piece.gpa + piece.len <= extent.gpa + extent.len;
            piece.len == 0 || self.extents.iter().any(holds)
        };
        let image = Some(&self.image).filter(is_there).ok_or(LoadError::Lent)?;
        let free =
            |extent: &&Extent| extent.gpa >= image.gpa + image.len || extent.gpa + extent.len <= image.gpa;
        let initrd = Some(&self.initrd)
            .filter(is_there)
            .into_iter()
            .chain(self.extents.iter().filter(free))
            .find(|extent| extent.len >= initrd_len)
            .ok_or(LoadError::Grown("initrd"))?;
        Ok(Self::in_image(self.image, kernel_len, *initrd, self.extents.clone()))
    }
}

/// Takes `total` bytes of memory (rounded down to 2 MiB) for a kernel of `kernel_len` and an initrd of `initrd_len` bytes.
///
/// # Errors
/// The memory is too small, or the host cannot give it.
pub fn allocate(
    machine: &impl Machine,
    total: u64,
    kernel_len: u64,
    initrd_len: u64,
) -> Result<Placement, LoadError> {
    let image_len = image_len(kernel_len);
    let initrd_len = initrd_len.next_multiple_of(LARGE);
    let total = total / LARGE * LARGE;
    let need = image_len + initrd_len;
    if total < need + ROOM {
        return Err(LoadError::MemoryTooSmall { need, advice: need + 2 * ROOM });
    }
    let image = Extent { gpa: machine.add_memory(image_len, image_len)?, len: image_len };
    let mut initrd = Extent::default();
    if initrd_len > 0 {
        initrd = Extent { gpa: machine.add_memory(initrd_len, initrd_len)?, len: initrd_len };
    }
    // The driver takes large pieces first; small ones are better than no guest.
    machine.add_memory(total - need, LARGE)?;
    Ok(Placement::in_image(image, kernel_len, initrd, machine.extents()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::MachineError;
    use std::cell::RefCell;

    /// Gives memory in pieces of at most `largest`, with holes between.
    pub(crate) struct FakeMachine {
        pub(crate) extents: RefCell<Vec<Extent>>,
        pub(crate) largest: u64,
        pub(crate) window: RefCell<Option<u64>>,
    }

    impl FakeMachine {
        pub(crate) fn new(largest: u64) -> Self {
            Self { extents: RefCell::default(), largest, window: RefCell::default() }
        }
    }

    impl Machine for FakeMachine {
        fn add_memory(&self, size: u64, min_piece: u64) -> Result<u64, MachineError> {
            let mut extents = self.extents.borrow_mut();
            if min_piece > self.largest {
                return Err(MachineError::NoMemory("fragmented".into()));
            }
            let mut next = extents.last().map_or(0x1_4000_0000, |last: &Extent| last.gpa + last.len + LARGE);
            let first = next;
            let mut left = size;
            while left > 0 {
                let len = left.min(self.largest);
                extents.push(Extent { gpa: next, len });
                next += len + LARGE;
                left -= len;
            }
            Ok(first)
        }

        fn extents(&self) -> Result<Vec<Extent>, MachineError> {
            Ok(self.extents.borrow().clone())
        }

        fn set_window(&self, gpa: u64) -> Result<(), MachineError> {
            *self.window.borrow_mut() = Some(gpa);
            Ok(())
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_overlaps() {
        let machine = FakeMachine::new(128 * MIB);
        let placement = allocate(&machine, 512 * MIB, 52 * MIB + 0x1234, 30 * MIB + 5).unwrap();
        assert_eq!(placement.window, placement.image.gpa + 54 * MIB);
        assert_eq!(placement.boot.gpa, placement.window + 2 * MIB);
        assert_eq!(placement.boot.gpa + placement.boot.len, placement.image.gpa + placement.image.len);
        assert_eq!(placement.initrd.len, 32 * MIB);
        assert_eq!(placement.extents.iter().map(|extent| extent.len).sum::<u64>(), 512 * MIB);
    }

    #[test]
    fn a_fragmented_host_gives_small_pieces() {
        let machine = FakeMachine::new(64 * MIB);
        let placement = allocate(&machine, 512 * MIB, 52 * MIB, 30 * MIB).unwrap();
        assert_eq!(placement.extents.len(), 9);
        let machine = FakeMachine::new(16 * MIB);
        let error = allocate(&machine, 512 * MIB, 52 * MIB, 30 * MIB).unwrap_err();
        assert!(matches!(error, LoadError::Machine(MachineError::NoMemory(_))));
    }

    #[test]
    fn too_little_memory_is_refused_before_any_is_taken() {
        let machine = FakeMachine::new(128 * MIB);
        let error = allocate(&machine, 64 * MIB, 52 * MIB, 30 * MIB).unwrap_err();
        assert!(matches!(error, LoadError::MemoryTooSmall { .. }));
        assert!(machine.extents.borrow().is_empty());
    }

    #[test]
    fn after_an_upgrade_the_initrd_may_move_but_the_kernel_may_not_grow() {
        let machine = FakeMachine::new(512 * MIB);
        let placement = allocate(&machine, 512 * MIB, 52 * MIB, 31 * MIB).unwrap();
        let again = placement.again(40 * MIB, 32 * MIB).unwrap();
        assert_eq!(
            (again.window, again.initrd),
            (placement.image.gpa + 40 * MIB, Extent { len: 32 * MIB, ..placement.initrd })
        );
        let moved = placement.again(52 * MIB, 100 * MIB).unwrap();
        assert!(moved.initrd.gpa > placement.initrd.gpa && moved.initrd.len >= 100 * MIB);
        let mut lent = placement.clone();
        // The host keeps the initrd's place, then also the kernel's.
        lent.extents.retain(|extent| extent.gpa != placement.initrd.gpa);
        let moved = lent.again(52 * MIB, 31 * MIB).unwrap();
        assert!(moved.initrd.gpa != placement.initrd.gpa && lent.extents.contains(&moved.initrd));
        lent.extents.retain(|extent| extent.gpa != placement.image.gpa);
        assert!(matches!(lent.again(52 * MIB, 0), Err(LoadError::Lent)));
        assert!(matches!(placement.again(53 * MIB, 0), Err(LoadError::Grown("kernel"))));
        assert!(matches!(placement.again(52 * MIB, 512 * MIB), Err(LoadError::Grown("initrd"))));
    }
}

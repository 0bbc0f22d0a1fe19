//! The tiny page table: maps the passage's pages at the host's and at the guest's addresses, and nothing else. One for each VM.

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A zeroed page that becomes a table.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Where the table can be written.
    pub va: *mut u64,
    /// Its physical address.
    pub pa: u64,
}

/// One page of the passage.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Virtual address, in whichever world.
    pub va: u64,
    /// Physical address.
    pub pa: u64,
    /// Code (read and execute) or data (read and write).
    pub code: bool,
}

/// Entry for a page of the passage, in the tiny table and in the window's.
pub const fn entry(pa: u64, code: bool) -> u64 {
    pa | PRESENT | ACCESSED | if code { 0 } else { WRITABLE | DIRTY | NO_EXECUTE }
}

/// Most tables needed for `mappings` mappings: the root, and for each mapping one of each lower level.
pub const fn most_frames(la57: bool, mappings: usize) -> usize {
    1 + mappings * if la57 { 4 } else { 3 }
}

/// Where tables come from.
pub trait Frames {
    /// A zeroed page of the caller's own, each handed out once; `None` when there is no more.
    fn take(&mut self) -> Option<Frame>;
    /// Where the frame of this physical address, handed out before, can be written.
    fn at(&self, pa: u64) -> *mut u64;
}

/// A page table being made.
pub struct Builder<F: Frames> {
    root: Frame,
    levels: u32,
    frames: F,
}

impl<F: Frames> Builder<F> {
    /// Starts a table of 4 levels, or 5 with `la57`. `None` when there is no frame.
    pub fn new(la57: bool, mut frames: F) -> Option<Self> {
        let root = frames.take()?;
        Some(Self { root, levels: if la57 { 5 } else { 4 }, frames })
    }

    /// Physical address of the root, for CR3.
    pub fn root(&self) -> u64 {
        self.root.pa
    }

    #[cfg(test)]
    fn into_frames(self) -> F {
        self.frames
    }

    /// Maps one page. `None` when there are no more frames.
    pub fn map(&mut self, mapping: Mapping) -> Option<()> {
        let mut table = self.root.va;
        for level in (1..self.levels).rev() {
            table = self.descend(table, index(mapping.va, level))?;
        }
        // SAFETY: frames are whole pages of the caller's, indices are below 512.
        unsafe { table.add(index(mapping.va, 0)).write(entry(mapping.pa, mapping.code)) };
        Some(())
    }

    fn descend(&mut self, table: *mut u64, index: usize) -> Option<*mut u64> {
        // SAFETY: as in `map`.
        let slot = unsafe { &mut *table.add(index) };
        if *slot & PRESENT == 0 {
            let frame = self.frames.take()?;
            *slot = frame.pa | PRESENT | WRITABLE | ACCESSED;
            return Some(frame.va);
        }
        Some(self.frames.at(*slot & ADDRESS))
    }
}

const fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * level) & 511) as usize
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    /// Frames whose "physical" address is 0x1000 times their number.
    struct Pool {
        pages: Vec<Box<[u64; 512]>>,
        left: usize,
    }

    impl Frames for Pool {
        fn take(&mut self) -> Option<Frame> {
            self.left = self.left.checked_sub(1)?;
            self.pages.push(Box::new([0; 512]));
            let pa = self.pages.len() as u64 * 0x1000;
            Some(Frame { va: self.at(pa), pa })
        }

        fn at(&self, pa: u64) -> *mut u64 {
            self.pages[pa as usize / 0x1000 - 1].as_ptr().cast_mut()
        }
    }

    fn walk(pool: &Pool, root: u64, levels: u32, va: u64) -> u64 {
        (0..levels).rev().fold(root, |pa, level| {
            let table = &pool.pages[(pa & ADDRESS) as usize / 0x1000 - 1];
            table[index(va, level)]
        })
    }

    const H_CODE: Mapping = Mapping { va: 0xffff_ffff_c0a3_b000, pa: 0xabc_d000, code: true };
    const G_DATA: Mapping = Mapping { va: 0xffff_ffff_f808_0000, pa: 0x1234_5000, code: false };

    fn check(la57: bool) {
        let mut builder = Builder::new(la57, Pool { pages: Vec::new(), left: 100 }).unwrap();
        builder.map(H_CODE).unwrap();
        builder.map(G_DATA).unwrap();
        let root = builder.root();
        let pool = builder.into_frames();
        assert!(pool.pages.len() <= most_frames(la57, 2));
        let levels = if la57 { 5 } else { 4 };
        assert_eq!(walk(&pool, root, levels, H_CODE.va), 0xabc_d000 | PRESENT | ACCESSED);
        assert_eq!(
            walk(&pool, root, levels, G_DATA.va),
            0x1234_5000 | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE
        );
        assert_eq!(walk(&pool, root, levels, G_DATA.va + 0x1000), 0);
    }

    #[test]
    fn maps_code_and_data_at_both_depths() {
        check(false);
        check(true);
    }

    #[test]
    fn out_of_frames_is_none() {
        let mut builder = Builder::new(false, Pool { pages: Vec::new(), left: 3 }).unwrap();
        assert!(builder.map(H_CODE).is_none());
    }
}

//! The page tables on which the kernel's first instructions run (Intel SDM volume 3, 4.5).

/// Present, writable, accessed, dirty; for entries that point to tables and for pages of data and code alike.
pub(crate) const TABLE: u64 = 0x63;
const LARGE_PAGE: u64 = 1 << 7;
/// Bytes of a large page.
pub(crate) const LARGE: u64 = 2 << 20;
const ENTRIES: usize = 512;

/// A tree of page tables that lie behind each other in guest memory.
pub(crate) struct PageTables {
    base: u64,
    levels: u32,
    tables: Vec<[u64; ENTRIES]>,
}

impl PageTables {
    /// An empty tree whose root is at guest-physical `base`, of 4 or 5 levels.
    pub(crate) fn new(base: u64, five_level: bool) -> Self {
        let levels = if five_level { 5 } else { 4 };
        Self { base, levels, tables: vec![[0; ENTRIES]] }
    }

    /// The root, as CR3 takes it.
    pub(crate) fn root(&self) -> u64 {
        self.base
    }

    /// The tables, to be written to `root()` and on.
    pub(crate) fn tables(&self) -> &[[u64; ENTRIES]] {
        &self.tables
    }

    /// Maps the 2 MiB at `va` to those at `pa`; both aligned to 2 MiB.
    pub(crate) fn map_large(&mut self, va: u64, pa: u64) {
        self.set_directory_entry(va, pa | TABLE | LARGE_PAGE);
    }

    /// Has the page table at `table` map the 2 MiB at `va`.
    pub(crate) fn link_table(&mut self, va: u64, table: u64) {
        self.set_directory_entry(va, table | TABLE);
    }

    fn set_directory_entry(&mut self, va: u64, entry: u64) {
        let mut table = 0;
        for level in (3..=self.levels).rev() {
            table = self.next_table(table, index(va, level));
        }
        self.tables[table][index(va, 2)] = entry;
    }

    fn next_table(&mut self, table: usize, index: usize) -> usize {
        let entry = self.tables[table][index];
        if entry != 0 {
            return ((entry & !0xfff) - self.base) as usize / 4096;
        }
        let new = self.tables.len();
        self.tables.push([0; ENTRIES]);
        self.tables[table][index] = (self.base + new as u64 * 4096) | TABLE;
        new
    }
}

fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1))) as usize % ENTRIES
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Walks as the CPU does; `read(address)` reads a word of guest memory.
    pub(crate) fn walk(read: impl Fn(u64) -> u64, root: u64, levels: u32, va: u64) -> Option<u64> {
        let mut table = root;
        for level in (1..=levels).rev() {
            let entry = read(table + index(va, level) as u64 * 8);
            if entry & 1 == 0 {
                return None;
            }
            let address = entry & 0x000f_ffff_ffff_f000;
            if level == 2 && entry & LARGE_PAGE != 0 {
                return Some(address + (va & (LARGE - 1)));
            }
            table = address;
        }
        Some(table + (va & 0xfff))
    }

    fn walk_tables(tables: &PageTables, va: u64) -> Option<u64> {
        let read = |address: u64| {
            let offset = (address - tables.base) as usize;
            tables.tables[offset / 4096][offset % 4096 / 8]
        };
        walk(read, tables.root(), tables.levels, va)
    }

    proptest! {
        #[test]
        fn maps_what_it_was_told_and_nothing_else(
            five_level: bool,
            pages in prop::collection::btree_set(0_u64..1 << 25, 1..40),
            other in 0_u64..1 << 25,
        ) {
            let mut tables = PageTables::new(0x1234_5000, five_level);
            for page in &pages {
                tables.map_large(page * LARGE, (page + 7) * LARGE);
            }
            for page in &pages {
                prop_assert_eq!(walk_tables(&tables, page * LARGE + 0x123), Some((page + 7) * LARGE + 0x123));
            }
            prop_assert_eq!(walk_tables(&tables, other * LARGE).is_some(), pages.contains(&other));
        }
    }

    #[test]
    fn addresses_of_the_kernel_half_use_the_last_entries() {
        for five_level in [false, true] {
            let mut tables = PageTables::new(0x10_0000, five_level);
            tables.link_table(colinux_abi::window::BASE, 0xabc_d000);
            let last = tables.tables().last().unwrap();
            assert_eq!(last[colinux_abi::window::FIXMAP_SLOT], 0xabc_d000 | TABLE);
            assert_eq!(tables.tables()[0][511], 0x10_1000 | TABLE);
        }
    }
}

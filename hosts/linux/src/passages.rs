//! The pages of the crossing: one data page for each vCPU, and the VM's tiny page table.

use crate::alloc::Pages;
use crate::bindings::memory::{PAGE_STRUCT, vmalloc_to_page, vmemmap_base};
use colinux_abi::PAGE_SIZE;
use colinux_abi::window::{BASE, PAGE_TABLE, PASSAGE_CODE, PASSAGE_DATA, passage_data};
use colinux_cpu::tiny::{Builder, Frame, Frames, Mapping, entry, most_frames};
use colinux_cpu::{PassageData, code_page};
use colinux_monitor::HostError;

/// All passages of a VM.
pub struct Passages {
    data: Pages,
    /// The tiny page table, root first.
    tables: Pages,
    count: usize,
}

/// Frames out of one run of pages.
struct Pool<'a> {
    pages: &'a Pages,
    used: usize,
    count: usize,
}

impl Frames for Pool<'_> {
    fn take(&mut self) -> Option<Frame> {
        let index = self.used;
        if index == self.count {
            return None;
        }
        self.used += 1;
        Some(Frame { va: self.pages.at(index).cast(), pa: self.pages.physical(index) })
    }

    fn at(&self, pa: u64) -> *mut u64 {
        (pa - self.pages.physical(0) + self.pages.at(0) as u64) as *mut u64
    }
}

/// Physical address of the passage's code, which lies in the module's text.
fn code_physical() -> u64 {
    // SAFETY: module text is vmalloc memory; the page's number follows from its place in the array of page structures.
    unsafe {
        let page = vmalloc_to_page(code_page()) as u64;
        let first = (&raw const vmemmap_base).read();
        (page - first) / PAGE_STRUCT.get() as u64 * PAGE_SIZE
    }
}

impl Passages {
    /// Makes the passages of `count` vCPUs.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn new(count: usize, la57: bool) -> Result<Self, HostError> {
        // The data pages lie side by side in both worlds, so they need few tables: at most two of each level for the host's alias.
        let frames = most_frames(la57, 5);
        let this = Self { data: Pages::zeroed(count)?, tables: Pages::zeroed(frames)?, count };
        let pool = Pool { pages: &this.tables, used: 0, count: frames };
        let mut builder = Builder::new(la57, pool).ok_or(HostError::NoMemory)?;
        this.map_all(&mut builder).ok_or(HostError::NoMemory)?;
        let root = builder.root();
        for index in 0..count {
            // SAFETY: the page is ours and zero; the table maps it.
            unsafe { PassageData::init(this.at(index), index, root) };
        }
        Ok(this)
    }

    fn map_all(&self, builder: &mut Builder<Pool<'_>>) -> Option<()> {
        let code = code_physical();
        builder.map(Mapping { va: code_page() as u64, pa: code, code: true })?;
        builder.map(Mapping { va: BASE + PASSAGE_CODE, pa: code, code: true })?;
        (0..self.count).try_for_each(|index| {
            let pa = self.data.physical(index);
            builder.map(Mapping { va: self.data.at(index) as u64, pa, code: false })?;
            builder.map(Mapping { va: passage_data(index), pa, code: false })
        })
    }

    /// The data page of a vCPU, in the host.
    pub fn at(&self, index: usize) -> *mut PassageData {
        self.data.at(index).cast()
    }

    /// Enters the passage into the window's page table.
    ///
    /// # Safety
    /// `window` is where the host reaches the window's 2 MiB; no vCPU runs.
    pub unsafe fn map_into(&self, window: *mut u8) {
        let slot = |offset: u64| (window as u64 + PAGE_TABLE + offset / PAGE_SIZE * 8) as *mut u64;
        // SAFETY: the slots lie in the window's page table.
        unsafe {
            slot(PASSAGE_CODE).write_volatile(entry(code_physical(), true));
            for index in 0..self.count {
                let data = entry(self.data.physical(index), false);
                slot(PASSAGE_DATA + index as u64 * PAGE_SIZE).write_volatile(data);
            }
        }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.data.bytes() + self.tables.bytes()
    }
}

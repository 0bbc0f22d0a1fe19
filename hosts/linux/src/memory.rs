//! Guest memory: `alloc_contig_range()`, which moves other users of the pages away.

use crate::alloc::direct_map;
use crate::bindings::memory::{
    _totalram_pages, CONTIG_TAKES_FLAGS, MIGRATE_MOVABLE, NODE_ZONES, PAGE_REFERENCES, PAGE_STRUCT,
    ZONE_SIZE, ZONE_SPAN, ZONE_START, ZONES, adjust_managed_page_count, alloc_contig_range, contig_page_data,
    free_pages, generic_online_page, gfp_kernel, node_data, nr_node_ids, page_is_ram, pfn_to_online_page,
    si_mem_available, vmemmap_base,
};
use crate::bindings::{Opaque, sched};
use crate::host::tsc_khz;
use crate::sync::Mutex;
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::Extent;
use colinux_monitor::HostError;
use colinux_monitor::memory::{GRAIN, PhysicalMemory, Take};
use core::arch::x86_64::_rdtsc;
use core::ops::Range;
use core::sync::atomic::{AtomicI32, Ordering};

/// Milliseconds without a find after which a search gives up. Time in which others search does not count.
const PATIENCE: u64 = 10_000;
/// The part of its memory that a host keeps, beyond what it has in use: one in so many. Moving pages away needs free ones, too.
const RESERVE: i64 = 32;
/// Pages between two looks whether there is memory at all: no memory block is smaller.
const STEP: u64 = 512;
const EINTR: i32 = 4;

/// Held while a range is taken. The kernel isolates the blocks of a range first, and refuses a range of which somebody else has isolated a block
/// (`set_migratetype_isolate()`, mm/page_isolation.c): of two searches side by side each would find memory in use that is free, and pass it by.
static TURN: Mutex<()> = Mutex::new(());

/// At module load.
///
/// # Errors
/// As [`Mutex::init`].
pub fn start() -> Result<(), HostError> {
    TURN.init()
}

/// The host's memory, for one search.
pub struct HostMemory {
    /// Ticks that this search took itself, since its clock was started.
    spent: u64,
    /// Ticks of all attempts.
    total: u64,
    /// Of the longest.
    longest: u64,
}

impl HostMemory {
    /// Begins a search.
    pub fn new() -> Self {
        Self { spent: 0, total: 0, longest: 0 }
    }

    /// Takes pages when it is our turn; what the kernel says.
    fn isolate(&mut self, start: u64, end: u64) -> i32 {
        let kind = if CONTIG_TAKES_FLAGS.get() { 0 } else { MIGRATE_MOVABLE.get() as u32 };
        let Some(_turn) = TURN.lock_killable() else { return -EINTR };
        let begun = ticks();
        // SAFETY: all of the range has page structures, and lies in one zone.
        let result = unsafe { alloc_contig_range(start, end, kind, gfp_kernel()) };
        let taken = ticks().wrapping_sub(begun);
        self.spent += taken;
        self.total += taken;
        self.longest = self.longest.max(taken);
        result
    }

    /// Nanoseconds of all attempts, and of the longest.
    pub fn cost(&self) -> (u64, u64) {
        (nanoseconds(self.total), nanoseconds(self.longest))
    }

    /// Address behind all memory.
    pub fn span(&self) -> u64 {
        (0..).map_while(|index| self.zone(index)).map(|zone| zone.gpa + zone.len).max().unwrap_or(0)
    }

    /// Gives the host a piece that will be wanted back: it comes last among the host's free memory.
    ///
    /// What is freed in the ordinary way comes first, and a kernel that needs room for its own things takes all of the first large block for them,
    /// so that it can never be moved again (`__rmqueue_fallback()`, mm/page_alloc.c). Memory that is added at run time comes last.
    pub fn lend(&mut self, piece: Extent) {
        let (start, end) = (piece.gpa / PAGE_SIZE, (piece.gpa + piece.len) / PAGE_SIZE);
        for first in (start..end).step_by(STEP as usize) {
            let count = STEP.min(end - first);
            if count == STEP && can_add() && freeze(first..end.min(first + STEP)) {
                add(first);
            } else {
                self.give(Extent { gpa: first * PAGE_SIZE, len: count * PAGE_SIZE });
            }
            cond_resched();
        }
    }
}

fn can_add() -> bool {
    generic_online_page::present() && adjust_managed_page_count::present()
}

/// Frees [`STEP`] pages without references, to the end of the list of free blocks.
fn add(first: u64) {
    let page = page(first);
    // SAFETY: the pages are a whole block, were allocated one by one, and are nobody's. They count as the host's already, so that what is added is taken off.
    unsafe {
        generic_online_page(page, STEP.ilog2());
        adjust_managed_page_count(page, -(STEP as i64));
    }
}

/// Gives up the only reference to each page, as `page_ref_freeze()` does; false with nothing changed if anybody else has one.
fn freeze(pages: Range<u64>) -> bool {
    let only_ours = |pfn| references(pfn).compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let Some(foreign) = pages.clone().find(|pfn| !only_ours(*pfn)) else { return true };
    (pages.start..foreign).for_each(|pfn| references(pfn).store(1, Ordering::Release));
    false
}

fn references(pfn: u64) -> &'static AtomicI32 {
    // SAFETY: page structures of memory that is ours stay; the kernel, too, changes the count atomically.
    unsafe { AtomicI32::from_ptr(PAGE_REFERENCES.ptr(page(pfn)).cast()) }
}

/// `struct page` of a page.
pub fn page(pfn: u64) -> Opaque {
    // SAFETY: constant after boot.
    let map = unsafe { (&raw const vmemmap_base).read() };
    (map + pfn * PAGE_STRUCT.get() as u64) as Opaque
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { _rdtsc() }
}

fn nanoseconds(ticks: u64) -> u64 {
    let khz = u64::from(tsc_khz()).max(1);
    ticks / khz * 1_000_000 + ticks % khz * 1_000_000 / khz
}

/// Lets others run, where the kernel is not preemptible.
pub fn cond_resched() {
    if sched::cond_resched::present() {
        // SAFETY: process context, no spinlock held.
        unsafe { sched::cond_resched() };
    }
}

/// `struct pglist_data` of a node; null for a node that is not there.
fn node(index: usize) -> Opaque {
    // SAFETY: `node_data` has `nr_node_ids` pointers; without NUMA there is one node, which is a variable.
    unsafe {
        if node_data::present() && nr_node_ids::present() {
            let count = (&raw const nr_node_ids).read() as usize;
            let nodes = (&raw const node_data).cast::<Opaque>();
            return if index < count { nodes.add(index).read_volatile() } else { core::ptr::null_mut() };
        }
        if contig_page_data::present() && index == 0 {
            (&raw const contig_page_data).cast_mut()
        } else {
            core::ptr::null_mut()
        }
    }
}

fn node_count() -> usize {
    if node_data::present() && nr_node_ids::present() {
        // SAFETY: constant after boot.
        return unsafe { (&raw const nr_node_ids).read() } as usize;
    }
    1
}

/// There is memory all over the range.
fn is_memory(pfn: u64, end: u64) -> bool {
    (pfn..end).step_by(STEP as usize).all(|pfn| {
        // SAFETY: any page frame number may be asked for.
        unsafe {
            page_is_ram(pfn) == 1 && (!pfn_to_online_page::present() || !pfn_to_online_page(pfn).is_null())
        }
    })
}

impl PhysicalMemory for HostMemory {
    fn zone(&self, index: usize) -> Option<Extent> {
        let zones = ZONES.get() as usize;
        let node_index = index.checked_div(zones)?;
        if node_index >= node_count() {
            return None;
        }
        let node = node(node_index);
        if node.is_null() {
            return Some(Extent { gpa: 0, len: 0 });
        }
        // SAFETY: the node has this many zones of this size.
        unsafe {
            let zone = NODE_ZONES.ptr(node).cast::<u8>().add(index % zones * ZONE_SIZE.get());
            Some(Extent { gpa: ZONE_START.read(zone) * PAGE_SIZE, len: ZONE_SPAN.read(zone) * PAGE_SIZE })
        }
    }

    fn take(&mut self, piece: Extent) -> Take {
        let (start, end) = (piece.gpa / PAGE_SIZE, (piece.gpa + piece.len) / PAGE_SIZE);
        cond_resched();
        if !is_memory(start, end) {
            return Take::InUse;
        }
        match self.isolate(start, end) {
            0 => {
                clear(piece);
                Take::Got
            }
            error if error == -EINTR => Take::Stop,
            _ => Take::InUse,
        }
    }

    fn give(&mut self, piece: Extent) {
        let first = direct_map() + piece.gpa;
        for offset in (0..piece.len).step_by(PAGE_SIZE as usize) {
            // One by one: free_contig_range() warns of a page that somebody else still holds.
            // SAFETY: the pages are ours, allocated one by one; who still holds one (I/O in flight) has a reference of its own.
            unsafe { free_pages(first + offset, 0) };
            if offset.is_multiple_of(STEP * PAGE_SIZE) {
                cond_resched();
            }
        }
    }

    fn available(&self) -> u64 {
        // SAFETY: any context; a plain word.
        let (available, total) =
            unsafe { (si_mem_available(), (&raw const _totalram_pages).read_volatile()) };
        u64::try_from(available - total / RESERVE).unwrap_or(0) * PAGE_SIZE
    }

    fn restart_clock(&mut self) {
        self.spent = 0;
    }

    fn has_time(&self) -> bool {
        self.spent < PATIENCE * u64::from(tsc_khz())
    }
}

fn clear(piece: Extent) {
    let base = direct_map() + piece.gpa;
    for offset in (0..piece.len).step_by(GRAIN as usize) {
        // SAFETY: the pages are ours, and the kernel maps all memory here.
        unsafe { core::ptr::write_bytes((base + offset) as *mut u8, 0, GRAIN as usize) };
        cond_resched();
    }
}

//! Guest memory: `alloc_contig_range()`, which moves other users of the pages away.

use crate::alloc::direct_map;
use crate::bindings::memory::{
    _totalram_pages, CONTIG_TAKES_FLAGS, MIGRATE_MOVABLE, NODE_ZONES, ZONE_SIZE, ZONE_SPAN, ZONE_START,
    ZONES, alloc_contig_range, contig_page_data, free_contig_range, gfp_kernel, node_data, nr_node_ids,
    page_is_ram, pfn_to_online_page, si_mem_available,
};
use crate::bindings::{Opaque, sched};
use crate::host::tsc_khz;
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::Extent;
use colinux_monitor::memory::{GRAIN, PhysicalMemory, Take};
use core::arch::x86_64::_rdtsc;

/// Milliseconds after which a search gives up.
const PATIENCE: u64 = 30_000;
/// The part of its memory that a host keeps, beyond what it has in use: one in so many. Moving pages away needs free ones, too.
const RESERVE: i64 = 32;
/// Pages between two looks whether there is memory at all: no memory block is smaller.
const STEP: u64 = 512;
const EINTR: i32 = 4;

/// The host's memory, for one search.
pub struct HostMemory {
    deadline: u64,
}

impl HostMemory {
    /// Begins a search.
    pub fn new() -> Self {
        Self { deadline: ticks() + PATIENCE * u64::from(tsc_khz()) }
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { _rdtsc() }
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
        let kind = if CONTIG_TAKES_FLAGS.get() { 0 } else { MIGRATE_MOVABLE.get() as u32 };
        // SAFETY: all of the range has page structures, and lies in one zone.
        match unsafe { alloc_contig_range(start, end, kind, gfp_kernel()) } {
            0 => {
                clear(piece);
                Take::Got
            }
            error if error == -EINTR => Take::Stop,
            _ => Take::InUse,
        }
    }

    fn give(&mut self, piece: Extent) {
        let mut pfn = piece.gpa / PAGE_SIZE;
        let end = pfn + piece.len / PAGE_SIZE;
        while pfn < end {
            let count = STEP.min(end - pfn);
            // SAFETY: the pages are ours; who still holds one (I/O in flight) has a reference of its own.
            unsafe { free_contig_range(pfn, count) };
            pfn += count;
            cond_resched();
        }
    }

    fn available(&self) -> u64 {
        // SAFETY: any context; a plain word.
        let (available, total) =
            unsafe { (si_mem_available(), (&raw const _totalram_pages).read_volatile()) };
        u64::try_from(available - total / RESERVE).unwrap_or(0) * PAGE_SIZE
    }

    fn has_time(&mut self) -> bool {
        (self.deadline.wrapping_sub(ticks()) as i64) > 0
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

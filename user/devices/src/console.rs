//! The console rings of the window ([`colinux_abi::page::RingIndex`]).

use crate::MemoryError;
use colinux_abi::{
    page::{RingIndex, VmPage},
    window::{CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE, VM_PAGE},
};
use colinux_driver::GuestMemory;
use std::{
    mem::offset_of,
    sync::{Arc, atomic::Ordering},
};
use vm_memory::{Bytes, GuestAddress};

/// The daemon's ends of both rings. The daemon's own counters are never read back from the guest.
pub struct ConsoleRings {
    memory: Arc<GuestMemory>,
    window: u64,
    out_tail: u32,
    in_head: u32,
}

impl ConsoleRings {
    /// The rings of the window at guest-physical address `window`, both empty.
    pub fn new(memory: Arc<GuestMemory>, window: u64) -> Self {
        Self { memory, window, out_tail: 0, in_head: 0 }
    }

    fn counter(&self, offset: usize) -> GuestAddress {
        GuestAddress(self.window + VM_PAGE + offset as u64)
    }

    /// Takes the bytes that the guest has written, at most a ring's worth.
    ///
    /// # Errors
    /// The window is not guest memory.
    pub fn take_output(&mut self) -> Result<Vec<u8>, MemoryError> {
        let index = offset_of!(VmPage, console_out);
        let head: u32 =
            self.memory.load(self.counter(index + offset_of!(RingIndex, head)), Ordering::Acquire)?;
        // A guest that claims more than the ring holds has overwritten what was there: take what there is now.
        let count = u64::from(head.wrapping_sub(self.out_tail)).min(CONSOLE_OUT_SIZE) as u32;
        let mut bytes = vec![0; count as usize];
        let start = head.wrapping_sub(count);
        self.copy(CONSOLE_OUT, CONSOLE_OUT_SIZE, start, bytes.len(), |range, at| {
            self.memory.read_slice(&mut bytes[range], at)
        })?;
        self.out_tail = head;
        self.memory.store(head, self.counter(index + offset_of!(RingIndex, tail)), Ordering::Release)?;
        Ok(bytes)
    }

    /// Gives input to the guest; returns how many bytes fitted.
    ///
    /// # Errors
    /// The window is not guest memory.
    pub fn put_input(&mut self, bytes: &[u8]) -> Result<usize, MemoryError> {
        let index = offset_of!(VmPage, console_in);
        let tail: u32 =
            self.memory.load(self.counter(index + offset_of!(RingIndex, tail)), Ordering::Acquire)?;
        let used = u64::from(self.in_head.wrapping_sub(tail));
        // A tail that makes no sense leaves no room, so nothing of it is trusted.
        let room = CONSOLE_IN_SIZE.saturating_sub(used) as usize;
        let count = bytes.len().min(room);
        self.copy(CONSOLE_IN, CONSOLE_IN_SIZE, self.in_head, count, |range, at| {
            self.memory.write_slice(&bytes[range], at)
        })?;
        self.in_head = self.in_head.wrapping_add(count as u32);
        self.memory.store(
            self.in_head,
            self.counter(index + offset_of!(RingIndex, head)),
            Ordering::Release,
        )?;
        Ok(count)
    }

    /// Says how large the user's terminal is, in characters.
    ///
    /// # Errors
    /// The window is not guest memory.
    pub fn set_size(&mut self, rows: u16, columns: u16) -> Result<(), MemoryError> {
        let size = u32::from(rows) << 16 | u32::from(columns);
        self.memory.store(size, self.counter(offset_of!(VmPage, console_size)), Ordering::Release)
    }

    /// Calls `copy` for the one or two pieces in which `count` bytes from counter `start` lie in a ring.
    fn copy(
        &self,
        ring: u64,
        size: u64,
        start: u32,
        count: usize,
        mut copy: impl FnMut(std::ops::Range<usize>, GuestAddress) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let offset = u64::from(start) % size;
        let first = count.min((size - offset) as usize);
        copy(0..first, GuestAddress(self.window + ring + offset))?;
        copy(first..count, GuestAddress(self.window + ring))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    const WINDOW: u64 = 0x20_0000;

    fn rings() -> ConsoleRings {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(WINDOW), 2 << 20)]).unwrap();
        ConsoleRings::new(Arc::new(memory), WINDOW)
    }

    fn print(rings: &ConsoleRings, head: u32, bytes: &[u8]) -> u32 {
        for (at, byte) in (head..).zip(bytes) {
            let at = u64::from(at) % CONSOLE_OUT_SIZE;
            rings.memory.write_obj(*byte, GuestAddress(WINDOW + CONSOLE_OUT + at)).unwrap();
        }
        let head = head.wrapping_add(bytes.len() as u32);
        rings
            .memory
            .store(head, GuestAddress(WINDOW + offset_of!(VmPage, console_out) as u64), Ordering::Release)
            .unwrap();
        head
    }

    #[test]
    fn output_wraps_around() {
        let mut rings = rings();
        let mut head = 0;
        for round in 0..10_u8 {
            let text: Vec<u8> = (0..10_000).map(|i| round.wrapping_add(i as u8)).collect();
            head = print(&rings, head, &text);
            assert_eq!(rings.take_output().unwrap(), text);
        }
        assert!(rings.take_output().unwrap().is_empty());
    }

    #[test]
    fn a_broken_producer_costs_only_its_own_output() {
        let mut rings = rings();
        print(&rings, 0x8000_0000, b"x");
        assert_eq!(rings.take_output().unwrap().len() as u64, CONSOLE_OUT_SIZE);
        print(&rings, 0x8000_0001, b"fine");
        assert_eq!(rings.take_output().unwrap(), b"fine");
    }

    #[test]
    fn input_stops_when_the_ring_is_full() {
        let mut rings = rings();
        assert_eq!(rings.put_input(&[7; 5000]).unwrap() as u64, CONSOLE_IN_SIZE);
        assert_eq!(rings.put_input(b"more").unwrap(), 0);
        let tail =
            GuestAddress(WINDOW + (offset_of!(VmPage, console_in) + offset_of!(RingIndex, tail)) as u64);
        rings.memory.store(3_u32, tail, Ordering::Release).unwrap();
        assert_eq!(rings.put_input(b"more").unwrap(), 3);
        assert_eq!(rings.memory.read_obj::<[u8; 3]>(GuestAddress(WINDOW + CONSOLE_IN)).unwrap(), *b"mor");
        rings.memory.store(0x7000_0000_u32, tail, Ordering::Release).unwrap();
        assert_eq!(rings.put_input(b"more").unwrap(), 0);
    }
}

//! Orders to the guest's kernel ([`colinux_abi::page::OrderPage`]).

use crate::MemoryError;
use colinux_abi::{
    page::{OrderPage, VmPage},
    window::VM_PAGE,
};
use colinux_driver::GuestMemory;
use std::{
    mem::offset_of,
    sync::{Arc, atomic::Ordering},
};
use vm_memory::{AtomicAccess, Bytes, GuestAddress};

/// What the guest's kernel says to an order. Nothing of it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0, or a negative error number of its.
    pub error: i32,
    /// vCPUs that it uses.
    pub online: u32,
}

/// Where the orders of one boot are written.
pub struct OrderSlot {
    memory: Arc<GuestMemory>,
    page: u64,
    last: u32,
}

impl OrderSlot {
    /// That of the window at guest-physical address `window`; no order was given yet.
    pub fn new(memory: Arc<GuestMemory>, window: u64) -> Self {
        Self { memory, page: window + VM_PAGE + offset_of!(VmPage, order) as u64, last: 0 }
    }

    fn load<T: AtomicAccess>(&self, offset: usize) -> Result<T, MemoryError> {
        self.memory.load(GuestAddress(self.page + offset as u64), Ordering::Acquire)
    }

    fn store<T: AtomicAccess>(&self, offset: usize, value: T) -> Result<(), MemoryError> {
        self.memory.store(value, GuestAddress(self.page + offset as u64), Ordering::Release)
    }

    /// Writes an order of `kind` (one of [`colinux_abi::page::order`]), if the guest has answered the last one; false if it has not.
    /// The guest is to be told by [`colinux_abi::page::event::ORDER`].
    ///
    /// # Errors
    /// The window is not guest memory.
    pub fn give(&mut self, kind: u32, args: [u64; 2]) -> Result<bool, MemoryError> {
        if self.last != 0 && self.answer()?.is_none() {
            return Ok(false);
        }
        for (index, argument) in args.into_iter().enumerate() {
            self.store(offset_of!(OrderPage, args) + index * size_of::<u64>(), argument)?;
        }
        self.store(offset_of!(OrderPage, kind), kind)?;
        self.last = self.last.wrapping_add(1).max(1);
        self.store(offset_of!(OrderPage, number), self.last)?;
        Ok(true)
    }

    /// The answer to the last order, once there is one.
    ///
    /// # Errors
    /// The window is not guest memory.
    pub fn answer(&self) -> Result<Option<Answer>, MemoryError> {
        if self.load::<u32>(offset_of!(OrderPage, done))? != self.last {
            return Ok(None);
        }
        let error = self.load(offset_of!(OrderPage, error))?;
        Ok(Some(Answer { error, online: self.load(offset_of!(OrderPage, online))? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use colinux_abi::page::order;
    use vm_memory::GuestMemoryMmap;

    const WINDOW: u64 = 0x20_0000;

    #[test]
    fn one_order_at_a_time_is_answered() {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(WINDOW), 2 << 20)]).unwrap());
        let mut slot = OrderSlot::new(memory, WINDOW);
        assert!(slot.give(order::MEMORY, [1 << 27, 2 << 27]).unwrap());
        assert_eq!(slot.load::<u64>(offset_of!(OrderPage, args) + 8).unwrap(), 2 << 27);
        assert_eq!(slot.answer().unwrap(), None);
        assert!(!slot.give(order::CPUS, [1, 0]).unwrap(), "a second one");
        slot.store(offset_of!(OrderPage, error), -16).unwrap();
        slot.store(offset_of!(OrderPage, online), 3_u32).unwrap();
        slot.store(offset_of!(OrderPage, done), 1_u32).unwrap();
        assert_eq!(slot.answer().unwrap(), Some(Answer { error: -16, online: 3 }));
        assert!(slot.give(order::CPUS, [1, 0]).unwrap());
        assert_eq!(slot.answer().unwrap(), None);
    }
}

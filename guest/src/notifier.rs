//! Blocks on the notifier chains of the kernel (include/linux/notifier.h).

use crate::room::Room;

const ROOM: usize = 64;

kbind::sizes! {
    static SIZE = "notifier_block" <= ROOM;
}

kbind::fields! {
    static NOTIFIER_CALL: u64 = "notifier_block.notifier_call" takes 3;
    static PRIORITY: i32 = "notifier_block.priority";
}

/// A `notifier_fn_t`: the block, the event, and what it is about.
pub type Call = extern "C" fn(*mut u8, u64, *const u8) -> i32;

/// A `struct notifier_block`, for one chain.
pub struct Block(Room<ROOM>);

impl Block {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Room::new())
    }

    /// Fills the block and returns its address. Before it is registered; those of high priority are called first.
    pub fn fill(&self, call: Call, priority: i32) -> *mut u8 {
        let block = self.0.ptr();
        // SAFETY: the room is large enough (checked by the loader), and no chain has it yet.
        unsafe {
            NOTIFIER_CALL.write(block, call as *const () as u64);
            PRIORITY.write(block, priority);
        }
        block
    }
}

//! The operations of a guest's program: four words each, the last one for the result.

/// The operation's code (or a hypercall's reason), two arguments and the result.
pub type Op = [u64; 4];

/// Codes below those of [`colinux_abi::hypercall`], counted from the top so that no reason can be mistaken for one.
pub mod code {
    pub const STI: u64 = u64::MAX;
    pub const CLI: u64 = u64::MAX - 1;
    pub const SPIN: u64 = u64::MAX - 2;
    pub const WAIT: u64 = u64::MAX - 3;
    pub const REPEAT: u64 = u64::MAX - 4;
    pub const SET_XMM: u64 = u64::MAX - 5;
    pub const GET_XMM: u64 = u64::MAX - 6;
    pub const XSAVE_ON: u64 = u64::MAX - 7;
    pub const COUNT: u64 = u64::MAX - 8;
}

/// Lets interrupts in.
pub const STI: Op = [code::STI, 0, 0, 0];
/// Keeps interrupts out.
pub const CLI: Op = [code::CLI, 0, 0, 0];
/// Jumps to itself for ever.
pub const SPIN: Op = [code::SPIN, 0, 0, 0];
/// Reads XMM15 as the result.
pub const GET_XMM: Op = [code::GET_XMM, 0, 0, 0];
/// Sets CR4.OSXSAVE and XCR0 to x87 and SSE.
pub const XSAVE_ON: Op = [code::XSAVE_ON, 0, 0, 0];

/// Counts down from `turns`: two instructions each.
pub const fn count(turns: u64) -> Op {
    [code::COUNT, turns, 0, 0]
}

/// Spins until one of `events` is pending, and takes them.
pub const fn wait(events: u64) -> Op {
    [code::WAIT, events, 0, 0]
}

/// Sets XMM15.
pub const fn set_xmm(value: u64) -> Op {
    [code::SET_XMM, value, 0, 0]
}

/// A hypercall.
pub const fn call(reason: u64, first: u64, second: u64) -> Op {
    [reason, first, second, 0]
}

/// Goes back to the operation at `target` (see [`crate::guest::op_address`]) until `count` rounds are done.
pub const fn repeat(count: u64, target: u64) -> Op {
    [code::REPEAT, count, target, 0]
}

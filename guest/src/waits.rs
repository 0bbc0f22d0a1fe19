//! Waits for another CPU, which may be one that has no CPU of the host just now.
//!
//! A kernel waits with `pause` (`cpu_relax()`), often with interrupts off, which are then off on the real CPU: the host cannot take it back. So the loader makes each
//! `pause` of the kernel's text a software interrupt. Its entry (in `stubs.s`) pauses, and when that has gone on for a while it asks the host to let others run.
//! Everything else that waits has its interrupts on.

use crate::hypercall::call;
use colinux_abi::hypercall::YIELD;
use colinux_abi::page::VcpuPage;
use core::mem::offset_of;

/// An exception that no CPU raises (Intel SDM volume 3, table 7-1: reserved). The kernel writes its gate once, early, with all others.
pub const VECTOR: u8 = 26;
/// Pauses between two ways out; a power of two. A lock that is held by a running CPU is free by then.
pub const PATIENCE: usize = 64;
/// Counter of pauses, 32 bits, in the page of the vCPU. The first two words belong to `irq`.
pub const COUNTER: usize = offset_of!(VcpuPage, scratch) + 16;

const _: () = assert!(PATIENCE.is_power_of_two());

/// Waits for a moment in the round `round` of a wait, counted from 1: what is waited for may need this vCPU's CPU of the host.
pub fn pause(round: u32) {
    core::hint::spin_loop();
    if round.is_multiple_of(PATIENCE as u32) {
        call(YIELD, 0, 0);
    }
}

kbind::waits! { "_stext" to "_etext" = VECTOR; }

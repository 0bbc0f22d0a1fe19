//! `pv_ops.cpu.set_debugreg`: breakpoint registers are written here, and noted in the vCPU page, from where the crossing and the host know what is
//! armed without reading the registers.

use crate::hypercall::{index, irqs_off, vcpu_page};
use colinux_abi::window;
use core::sync::atomic::Ordering;

kbind::hooks! {
    OLD_SET => "pv_ops+paravirt_patch_template.cpu.set_debugreg" = set_debugreg: 2, was "native_set_debugreg|pv_native_set_debugreg";
}

/// Enable bits of DR7 (Intel SDM volume 3, 18.2.4).
const ENABLES: u64 = 0xff;
/// DR7 with nothing armed: the bit that is always one.
const OFF: u64 = 1 << 10;
/// An address that no CPU can generate; DR0-3 take any (Intel SDM volume 3, 18.2.6).
const NOWHERE: u64 = 1 << 62;
/// DR0-3.
const ADDRESSES: usize = 4;
const DR7: usize = 5;

/// Place of a debug register in `VcpuPage::debug`.
fn place(register: i32) -> Option<usize> {
    match register {
        0..=3 => Some(register as usize),
        6 => Some(4),
        7 => Some(DR7),
        _ => None,
    }
}

extern "C" fn set_debugreg(register: i32, value: u64) {
    irqs_off(|| {
        let Some(place) = place(register) else { return write(register, value) };
        let record = &vcpu_page(index()).debug;
        let note = |value| record[place].store(value, Ordering::Release);
        // An NMI may take the CPU to the host and back between any two of these lines: what is armed is on record, and only that is armed again.
        match place {
            DR7 if value & ENABLES == 0 => {
                note(OFF);
                write(register, value);
                note(0);
            }
            DR7 => {
                note(value);
                // The host need not have loaded addresses of which nothing was armed.
                (0..)
                    .zip(&record[..ADDRESSES])
                    .for_each(|(i, address)| write(i, address.load(Ordering::Relaxed)));
                write(register, value);
            }
            _ => {
                let value = if place < ADDRESSES { allowed(value) } else { value };
                note(value);
                write(register, value);
            }
        }
    });
}

fn write(register: i32, value: u64) {
    // SAFETY: the loader has checked that this is native_set_debugreg().
    unsafe {
        core::mem::transmute::<u64, unsafe extern "C" fn(i32, u64)>(OLD_SET.addr())(register, value);
    }
}

/// The crossing touches the window while no #DB can be taken: a breakpoint there goes where nothing is. (The kernel bars its own entry area likewise:
/// `arch_build_bp_info`, arch/x86/kernel/hw_breakpoint.c.)
fn allowed(address: u64) -> u64 {
    if address.wrapping_sub(window::BASE) < window::SIZE { NOWHERE } else { address }
}

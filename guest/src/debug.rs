//! `pv_ops.cpu.set_debugreg`: breakpoint registers are written here, and noted in the vCPU page, from where the crossing and the host know what is
//! armed without reading the registers.

use crate::hypercall::{index, irqs_off, vcpu_page};
use core::sync::atomic::Ordering;

kbind::hooks! {
    OLD_SET => "pv_ops+paravirt_patch_template.cpu.set_debugreg" = set_debugreg: 2, was "native_set_debugreg|pv_native_set_debugreg";
}

/// Enable bits of DR7 (Intel SDM volume 3, 18.2.4).
const ENABLES: u64 = 0xff;
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
        // SAFETY: the loader has checked that this is native_set_debugreg().
        let write = || unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(i32, u64)>(OLD_SET.addr())(register, value);
        };
        let Some(place) = place(register) else { return write() };
        let note = &vcpu_page(index()).debug[place];
        // What is armed must be on record for as long as it is: the host may get the CPU between the two writes.
        if place == DR7 && value & ENABLES == 0 {
            write();
            note.store(0, Ordering::Release);
        } else {
            note.store(value, Ordering::Release);
            write();
        }
    });
}

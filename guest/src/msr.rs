//! `pv_ops.cpu.read_msr` and friends: the kernel reaches the MSRs that [`colinux_logic::msr`] allows.

use colinux_logic::msr::{Read, Write, read, write};

kbind::hooks! {
    OLD_READ => "pv_ops+paravirt_patch_template.cpu.read_msr" = read_msr: 1, was "native_read_msr";
    OLD_READ_SAFE => "pv_ops+paravirt_patch_template.cpu.read_msr_safe" = read_msr_safe: 2, was "native_read_msr_safe";
    OLD_WRITE => overload "pv_ops+paravirt_patch_template.cpu.write_msr" = write_msr: 2, was "native_write_msr";
    OLD_WRITE_SAFE => overload "pv_ops+paravirt_patch_template.cpu.write_msr_safe" = write_msr_safe: 2, was "native_write_msr_safe";
    OLD_WRITE_HALVES => overload "pv_ops+paravirt_patch_template.cpu.write_msr" = write_msr_halves: 3, was "native_write_msr";
    OLD_WRITE_HALVES_SAFE => overload "pv_ops+paravirt_patch_template.cpu.write_msr_safe" = write_msr_halves_safe: 3, was "native_write_msr_safe";
}

/// `-EIO`, what the kernel's own safe variants return after a fault.
const FAULT: i32 = -5;

fn native_read_safe(msr: u32, error: *mut i32) -> u64 {
    // SAFETY: the loader has checked that this is native_read_msr_safe, which survives any number.
    unsafe {
        core::mem::transmute::<u64, unsafe extern "C" fn(u32, *mut i32) -> u64>(OLD_READ_SAFE.addr())(
            msr, error,
        )
    }
}

extern "C" fn read_msr(msr: u32) -> u64 {
    match read(msr) {
        // SAFETY: native_read_msr, which warns after a fault and goes on.
        Read::Hardware => unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(u32) -> u64>(OLD_READ.addr())(msr)
        },
        Read::IfPresent => native_read_safe(msr, &mut 0),
        Read::Value(value) => value,
        Read::Absent => 0,
    }
}

extern "C" fn read_msr_safe(msr: u32, error: *mut i32) -> u64 {
    let (value, result) = match read(msr) {
        Read::Hardware | Read::IfPresent => return native_read_safe(msr, error),
        Read::Value(value) => (value, 0),
        Read::Absent => (0, FAULT),
    };
    // SAFETY: the kernel passes a word for the error.
    unsafe { error.write(result) };
    value
}

/// Since 6.16 the value is whole.
extern "C" fn write_msr(msr: u32, value: u64) {
    if write(msr) == Write::Hardware {
        // SAFETY: native_write_msr, with what the kernel wants to write.
        unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(u32, u64)>(OLD_WRITE.addr())(msr, value);
        }
    }
}

extern "C" fn write_msr_safe(msr: u32, value: u64) -> i32 {
    write_safely(msr, || {
        // SAFETY: native_write_msr_safe, with what the kernel wants to write.
        unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(u32, u64) -> i32>(OLD_WRITE_SAFE.addr())(
                msr, value,
            )
        }
    })
}

extern "C" fn write_msr_halves(msr: u32, low: u32, high: u32) {
    if write(msr) == Write::Hardware {
        // SAFETY: native_write_msr, with what the kernel wants to write.
        unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(u32, u32, u32)>(OLD_WRITE_HALVES.addr())(
                msr, low, high,
            );
        }
    }
}

extern "C" fn write_msr_halves_safe(msr: u32, low: u32, high: u32) -> i32 {
    write_safely(msr, || {
        // SAFETY: native_write_msr_safe, with what the kernel wants to write.
        unsafe {
            core::mem::transmute::<u64, unsafe extern "C" fn(u32, u32, u32) -> i32>(
                OLD_WRITE_HALVES_SAFE.addr(),
            )(msr, low, high)
        }
    })
}

fn write_safely(msr: u32, native: impl FnOnce() -> i32) -> i32 {
    match write(msr) {
        Write::Hardware => native(),
        Write::Dropped => 0,
        Write::Absent => FAULT,
    }
}

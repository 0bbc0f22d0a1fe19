//! Single instructions as functions. Names follow the instruction.

use crate::descriptor::DescriptorPointer;
use core::arch::asm;

/// IA32_EFER.
pub const MSR_EFER: u32 = 0xc000_0080;
/// IA32_STAR.
pub const MSR_STAR: u32 = 0xc000_0081;
/// IA32_LSTAR.
pub const MSR_LSTAR: u32 = 0xc000_0082;
/// CSTAR (used by AMD).
pub const MSR_CSTAR: u32 = 0xc000_0083;
/// IA32_FMASK.
pub const MSR_SFMASK: u32 = 0xc000_0084;
/// IA32_FS_BASE.
pub const MSR_FS_BASE: u32 = 0xc000_0100;
/// IA32_GS_BASE.
pub const MSR_GS_BASE: u32 = 0xc000_0101;
/// IA32_KERNEL_GS_BASE.
pub const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// IA32_TSC_AUX.
pub const MSR_TSC_AUX: u32 = 0xc000_0103;
/// IA32_SYSENTER_CS.
pub const MSR_SYSENTER_CS: u32 = 0x174;
/// IA32_SYSENTER_ESP.
pub const MSR_SYSENTER_ESP: u32 = 0x175;
/// IA32_SYSENTER_EIP.
pub const MSR_SYSENTER_EIP: u32 = 0x176;

/// Reads an MSR.
///
/// # Safety
/// The CPU has the MSR.
#[inline]
pub(crate) unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by contract the MSR exists; reading the ones named here has no side effect.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The CPU has the MSR, and the host kernel can live with the value until it is put back.
#[inline]
pub(crate) unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: by contract.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
}

macro_rules! read_register {
    ($($(#[$doc:meta])* $name:ident: $register:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name() -> u64 {
            let value;
            // SAFETY: the driver runs in ring 0; reading a control or debug register changes nothing.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    )*};
}

read_register! {
    /// CR0.
    cr0: "cr0";
    /// CR4.
    cr4: "cr4";
    /// DR0.
    dr0: "dr0";
    /// DR1.
    dr1: "dr1";
    /// DR2.
    dr2: "dr2";
    /// DR3.
    dr3: "dr3";
    /// DR6.
    dr6: "dr6";
    /// DR7.
    dr7: "dr7";
}

/// Writes DR0-3.
///
/// # Safety
/// DR7 arms none of them.
pub(crate) unsafe fn set_breakpoints(values: &[u64; 4]) {
    // SAFETY: by contract.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3],
            options(nomem, nostack, preserves_flags));
    }
}

/// Writes DR6.
///
/// # Safety
/// The upper half is zero.
pub(crate) unsafe fn set_dr6(value: u64) {
    // SAFETY: by contract.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Writes DR7.
///
/// # Safety
/// The breakpoints that it arms belong to the world that runs next.
pub(crate) unsafe fn set_dr7(value: u64) {
    // SAFETY: by contract.
    unsafe { asm!("mov dr7, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

macro_rules! selector {
    ($($name:ident: $register:literal;)*) => {$(
        #[inline]
        pub(crate) fn $name() -> u16 {
            let value: u16;
            // SAFETY: reading a selector changes nothing.
            unsafe { asm!(concat!($register, " {:x}"), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    )*};
}

macro_rules! segment {
    ($($name:ident: $register:literal;)*) => {$(
        #[inline]
        pub(crate) fn $name() -> u16 {
            let value: u16;
            // SAFETY: reading a selector changes nothing.
            unsafe { asm!(concat!("mov {:x}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    )*};
}

selector! {
    str: "str";
    sldt: "sldt";
}

segment! {
    ds: "ds";
    es: "es";
    fs: "fs";
    gs: "gs";
    ss: "ss";
}

/// The GDT register.
pub(crate) fn sgdt() -> DescriptorPointer {
    let mut pointer = DescriptorPointer::default();
    // SAFETY: stores 10 bytes into `pointer`.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    pointer
}

/// The IDT register.
pub(crate) fn sidt() -> DescriptorPointer {
    let mut pointer = DescriptorPointer::default();
    // SAFETY: stores 10 bytes into `pointer`.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    pointer
}

/// XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set.
pub(crate) unsafe fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by contract.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Sets XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set, the value is one that the CPU accepted before, and no FPU state of the host is live.
pub(crate) unsafe fn xsetbv0(value: u64) {
    // SAFETY: by contract.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack, preserves_flags))
    };
}

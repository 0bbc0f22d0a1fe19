//! Patterns in registers, held across interrupts, preemption and crossings.

use crate::compat::Compat;
use crate::watch::Watch;
use std::arch::{asm, is_x86_feature_detected};
use std::io::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SPIN: u64 = 2000;
/// Checks for each run of a 32-bit program.
const SELDOM: u64 = 32;

/// Holds patterns derived from `seed` for `seconds`; prints how many checks passed, or the register that changed.
pub fn run(seconds: u64, seed: u64) -> ExitCode {
    match hold(Duration::from_secs(seconds), seed) {
        Ok((checks, None)) => {
            println!("OK {checks} checks");
            ExitCode::SUCCESS
        }
        Ok((checks, Some(name))) => {
            println!("CHANGED {name} after {checks} checks");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no breakpoint or no 32-bit program: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many checks passed, and the register that changed then.
fn hold(time: Duration, seed: u64) -> Result<(u64, Option<&'static str>)> {
    let end = Instant::now() + time;
    let (mut watch, compat) = (Watch::new(seed)?, Compat::new()?);
    let mut checks = 0u64;
    while Instant::now() < end {
        let pattern = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ checks;
        let changed = if !watch.holds()? {
            Some("breakpoints")
        } else if checks.is_multiple_of(SELDOM) && !compat.holds()? {
            Some("32-bit system calls")
        } else {
            check_all(pattern)
        };
        if changed.is_some() {
            return Ok((checks, changed));
        }
        checks += 1;
    }
    Ok((checks, None))
}

fn check_all(pattern: u64) -> Option<&'static str> {
    type Check = (&'static str, fn(u64) -> bool);
    const CHECKS: [Check; 6] = [
        ("xmm", xmm),
        ("ymm", ymm),
        ("x87", x87),
        ("gs base", gs_base),
        ("pkru", pkru),
        ("tsc_aux", |_| tsc_aux()),
    ];
    CHECKS.iter().find(|(_, check)| !check(pattern)).map(|(name, _)| *name)
}

fn xmm(pattern: u64) -> bool {
    let (first, last): (u64, u64);
    // SAFETY: only clobbers what it names.
    unsafe {
        asm!("movq xmm3, {p}", "movq xmm14, {q}", "2:", "pause", "dec {n}", "jnz 2b", "movq {a}, xmm3", "movq {b}, xmm14",
            p = in(reg) pattern, q = in(reg) !pattern, n = inout(reg) SPIN => _, a = out(reg) first, b = out(reg) last,
            out("xmm3") _, out("xmm14") _);
    }
    first == pattern && last == !pattern
}

fn ymm(pattern: u64) -> bool {
    if !is_x86_feature_detected!("avx") {
        return true;
    }
    let value = [pattern, !pattern, pattern.rotate_left(17), pattern.rotate_left(31)];
    let mut back = [0u64; 4];
    // SAFETY: AVX is there; the arrays are 32 bytes.
    unsafe {
        asm!("vmovdqu ymm7, [{v}]", "2:", "pause", "dec {n}", "jnz 2b", "vmovdqu [{b}], ymm7", "vzeroupper",
            v = in(reg) &value, b = in(reg) &mut back, n = inout(reg) SPIN => _, out("ymm7") _);
    }
    back == value
}

fn x87(pattern: u64) -> bool {
    let value = (pattern >> 12) as i64;
    let mut back = 0i64;
    // SAFETY: pushes and pops one x87 register.
    unsafe {
        asm!("fild qword ptr [{v}]", "2:", "pause", "dec {n}", "jnz 2b", "fistp qword ptr [{b}]",
            v = in(reg) &value, b = in(reg) &mut back, n = inout(reg) SPIN => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
    }
    back == value
}

fn gs_base(pattern: u64) -> bool {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_GET_GS: i32 = 0x1004;
    let value = pattern & 0x7fff_ffff_f000;
    let mut back = 0u64;
    // SAFETY: nothing in this program uses GS.
    unsafe {
        libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, value);
        spin();
        libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut back);
    }
    back == value
}

fn pkru(pattern: u64) -> bool {
    if !has_ospke() {
        return true;
    }
    // Keys 1..15 are in use by nobody here; key 0 stays open.
    let value = pattern as u32 & !3;
    let back: u32;
    // SAFETY: OSPKE is set; key 0 is the only key of our pages.
    unsafe {
        asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0);
        spin();
        asm!("rdpkru", in("ecx") 0, out("eax") back, out("edx") _);
    }
    back == value
}

fn has_ospke() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.ecx & 1 << 4 != 0
}

/// TSC_AUX names the CPU (Linux' vdso getcpu): it must agree with the kernel when the thread did not move in between.
fn tsc_aux() -> bool {
    if !has_rdtscp() {
        return true;
    }
    for _ in 0..16 {
        let before = kernel_cpu();
        let mut aux = 0;
        // SAFETY: the CPU has RDTSCP.
        unsafe { std::arch::x86_64::__rdtscp(&raw mut aux) };
        if before == kernel_cpu() {
            return aux & 0xfff == before;
        }
    }
    true
}

fn has_rdtscp() -> bool {
    std::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 27 != 0
}

fn kernel_cpu() -> u32 {
    let mut cpu = 0u32;
    // SAFETY: the kernel writes one u32.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, 0, 0) };
    cpu
}

fn spin() {
    for _ in 0..SPIN {
        std::hint::spin_loop();
    }
}

//! NMIs and machine checks from the guest's first instruction on.
//!
//! They belong to the host (its watchdog, perf, the rescue NMI that ends a guest which spins with interrupts off). The stubs are in `stubs.s`; here is how they get
//! into the IDT that `startup_64_load_idt` (arch/x86/kernel/head64.c, since 6.18 arch/x86/boot/startup/gdt_idt.c) loads before any C code runs: the table is a page of zeroes in the image,
//! so the loader writes two gates into it, as it writes hooks.

use crate::irq::{redirect, stub};

/// A present interrupt gate of ring 0 without IST, code segment `__KERNEL_CS` of the boot GDT (2, arch/x86/include/asm/segment.h).
const EMPTY_GATE: [u64; 2] = [0x8e00_0010_0000, 0];

const fn gate(vector: u64) -> [u64; 2] {
    let Some(handler) = stub(vector) else { panic!("a vector without a stub") };
    redirect(EMPTY_GATE, handler)
}

kbind::hooks! {
    "bringup_idt_table+32|__pi_bringup_idt_table+32" := value gate(2)[0], was "0";
    "bringup_idt_table+40|__pi_bringup_idt_table+40" := value gate(2)[1], was "0";
    "bringup_idt_table+288|__pi_bringup_idt_table+288" := value gate(18)[0], was "0";
    "bringup_idt_table+296|__pi_bringup_idt_table+296" := value gate(18)[1], was "0";
}

const _: () = {
    let nmi = gate(2);
    assert!(nmi[0] & 0xffff_0000 == 0x10_0000);
    assert!(nmi[0] >> 32 & 0xffff == 0x8e00);
    assert!(nmi[1] == 0xffff_ffff);
};

//! Interrupts: which stubs the gates of the kernel's IDT get, and what a virtual event does.
//!
//! Kernel side: `idt_setup_from_table` and `idt_setup_apic_and_irq_gates` (arch/x86/kernel/idt.c) write every gate through
//! `pv_ops.cpu.write_idt_entry`; `DEFINE_IDTENTRY_SYSVEC(sysvec_x86_platform_ipi)` (arch/x86/kernel/irq.c) calls `x86_platform_ipi_callback`.

use crate::hypercall::{index, vcpu_page, vm};
use crate::{console, deferred, orders, power, smp, time, virtio, waits, wall_clock};
use colinux_abi::page::{VcpuPage, VmPage, event};
use colinux_abi::{PAGE_SIZE, hypercall, window};
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::Ordering;

kbind::symbols! {
    static PLATFORM_IPI = "asm_sysvec_x86_platform_ipi";
    static PLATFORM_IPI_CALLBACK = "x86_platform_ipi_callback";
    static PREEMPT_COUNT = "__preempt_count|pcpu_hot+pcpu_hot.preempt_count";
}

kbind::functions! {
    fn generic_smp_call_function_single_interrupt();
    fn irq_work_run();
}

kbind::hooks! {
    OLD_WRITE_IDT_ENTRY => "pv_ops+paravirt_patch_template.cpu.write_idt_entry" = write_idt_entry: 3, was "native_write_idt_entry";
    "pv_ops+paravirt_patch_template.cpu.load_idt" = load_idt: 1, was "native_load_idt";
    "pv_ops+paravirt_patch_template.irq.safe_halt" = colinux_idle: 0, was "native_safe_halt|pv_native_safe_halt";
    "pv_ops+paravirt_patch_template.irq.halt" = halt: 0, was "native_halt";
}

unsafe extern "C" {
    /// In `stubs.s`.
    fn colinux_idle();
}

/// Where `stubs.s` puts the entries: the first bytes of the object.
const ENTRIES: u64 = window::BASE + window::OBJECT;
const NMI_ENTRY: u64 = ENTRIES;
const MACHINE_CHECK_ENTRY: u64 = ENTRIES + 16;
const VECTOR_ENTRIES: u64 = ENTRIES + 32;
const WAIT_ENTRY: u64 = VECTOR_ENTRIES + 0xe0 * 16;
const WAIT: u64 = waits::VECTOR as u64;

const fn signed(address: u64) -> i64 {
    address as i64
}

const SCRATCH: usize = offset_of!(VcpuPage, scratch);

global_asm!(
    include_str!("stubs.s"),
    bringup = const signed(window::BASE + window::VM_PAGE) + offset_of!(VmPage, bringup_vcpu) as i64,
    vcpu_pages = const signed(window::vcpu_page(0)),
    passage_data = const signed(window::passage_data(0)),
    vcpu_to_passage = const window::passage_data(0) as i64 - window::vcpu_page(0) as i64,
    window = const signed(window::BASE),
    window_size = const window::SIZE,
    platform_ipi = sym PLATFORM_IPI,
    interrupt = const hypercall::INTERRUPT,
    idle = const hypercall::IDLE,
    nmi = const hypercall::NMI,
    on_the_way = const hypercall::ON_THE_WAY,
    passage_code = const signed(window::BASE + window::PASSAGE_CODE),
    page = const PAGE_SIZE,
    machine_check = const hypercall::MACHINE_CHECK,
    irqs_off = const hypercall::IRQS_OFF,
    yield = const hypercall::YIELD,
    waits = const waits::COUNTER,
    patience = const waits::PATIENCE,
    nmi_count = const SCRATCH,
    machine_check_count = const SCRATCH + 8,
);

const _: () = {
    // stubs.s knows these.
    assert!(offset_of!(VcpuPage, pending) == 0);
    assert!(offset_of!(VcpuPage, nmi_stack) == 2048);
    assert!(window::BASE + window::PASSAGE_CODE == 0xffff_ffff_f80c_0000);
    assert!(ENTRIES == 0xffff_ffff_f810_0000);
};

/// Address of the stub for a vector, if hardware can raise it on behalf of the host, or the kernel waits by it.
pub const fn stub(vector: u64) -> Option<u64> {
    match vector {
        2 => Some(NMI_ENTRY),
        18 => Some(MACHINE_CHECK_ENTRY),
        WAIT => Some(WAIT_ENTRY),
        // Interrupt 0x80 is a system call, made by the guest's own user mode.
        0x80 => None,
        0x20..=0xff => Some(VECTOR_ENTRIES + (vector - 0x20) * 16),
        _ => None,
    }
}

/// The two words of a 64-bit interrupt gate with another handler (Intel SDM volume 3, figure 7-8).
pub const fn redirect(gate: [u64; 2], handler: u64) -> [u64; 2] {
    let low = gate[0] & 0x0000_ffff_ffff_0000 | handler & 0xffff | (handler >> 16 & 0xffff) << 48;
    [low, gate[1] & !0xffff_ffff | handler >> 32]
}

/// `pv_ops.cpu.write_idt_entry`: keeps the kernel's IST and type, replaces the handler.
extern "C" fn write_idt_entry(table: *mut [u64; 2], entry: i32, gate: *const [u64; 2]) {
    // SAFETY: the kernel passes a gate and a table with that entry, as to native_write_idt_entry.
    unsafe {
        let gate = gate.read();
        let gate = stub(entry as u64).map_or(gate, |handler| redirect(gate, handler));
        table.offset(entry as isize).write_volatile(gate);
    }
}

/// `pv_ops.cpu.load_idt`: a limit of 0xfff + index tells the stubs which vCPU they are on. More than 0xfff has no effect: there are 256 vectors.
extern "C" fn load_idt(descriptor: *const u8) {
    let mut table = [0u8; 10];
    // SAFETY: the kernel passes a pseudo descriptor of ten bytes.
    unsafe { descriptor.copy_to_nonoverlapping(table.as_mut_ptr(), 10) };
    let is_whole = u16::from_le_bytes([table[0], table[1]]) >= 0xfff;
    let vcpu = index();
    if is_whole {
        let limit = 0xfff + vcpu as u16;
        table[..2].copy_from_slice(&limit.to_le_bytes());
    }
    // SAFETY: the table is the kernel's.
    unsafe { asm!("lidt [{}]", in(reg) table.as_ptr(), options(nostack, preserves_flags)) };
    if is_whole {
        smp::arrived(vcpu);
    }
}

/// `pv_ops.irq.halt`: with interrupts on a halt ends at the next interrupt; with interrupts off it would be the end of this CPU.
extern "C" fn halt() {
    let flags: u64;
    // SAFETY: only reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    if flags & 0x200 != 0 {
        crate::hypercall::call(hypercall::IDLE, 0, 0);
    } else {
        smp::stop_this_cpu();
    }
}

/// Takes the place of the platform IPI's handler. The word is in .bss, so it cannot be set before the kernel has cleared that.
pub fn install_upcall() {
    deferred::prepare();
    // SAFETY: the word is a function pointer that only platform code of other machines sets.
    unsafe { crate::room::poke(PLATFORM_IPI_CALLBACK.addr(), upcall as *const () as u64) };
}

/// Runs in interrupt context: takes this vCPU's events and does what each stands for.
extern "C" fn upcall() {
    let vcpu = index();
    let events = vcpu_page(vcpu).pending.swap(0, Ordering::AcqRel);
    let has = |bit| events & bit != 0;
    if has(event::TIMER) {
        time::expired(vcpu);
    }
    if has(event::RESCHEDULE) {
        reschedule();
    }
    if has(event::CALL_FUNCTION | event::CALL_FUNCTION_SINGLE) {
        // SAFETY: interrupt context, interrupts off, as from its own vector.
        unsafe { generic_smp_call_function_single_interrupt() };
    }
    if has(event::IRQ_WORK) {
        // SAFETY: as above.
        unsafe { irq_work_run() };
    }
    deferred::handle(events & (event::DEVICE | event::CONSOLE));
    if has(event::STOP) {
        power::orderly();
    }
    if has(event::CLOCK) {
        wall_clock::look_again();
    }
    if has(event::ORDER) {
        orders::ordered();
    }
    if has(event::CPU_STOP) {
        smp::stop_this_cpu();
    }
}

/// The events that end in drivers.
pub fn handle_devices(events: u64) {
    if events & event::DEVICE != 0 {
        virtio::interrupt(vm().device_pending.swap(0, Ordering::AcqRel));
    }
    if events & event::CONSOLE != 0 {
        console::input();
    }
}

/// `scheduler_ipi()`: tells preempt_enable() on this CPU that a reschedule is due. Bit 31 of the count is inverted (arch/x86/include/asm/preempt.h).
/// Clearing it without need costs one call of schedule() that finds nothing to do.
fn reschedule() {
    // SAFETY: the symbol is the address within the per-CPU segment; interrupts are off, so this stays on the CPU.
    unsafe {
        asm!("btr dword ptr gs:[{}], 31", in(reg) PREEMPT_COUNT.addr(), options(nostack));
    }
}

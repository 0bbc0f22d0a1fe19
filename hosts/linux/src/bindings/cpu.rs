//! CPUs: FPU, calls to others, interrupts.

use super::Opaque;

kbind::imports! {
    pub fn kernel_fpu_begin_mask(mask: u32);
    pub fn kernel_fpu_end();
    pub fn smp_call_function_single_async(cpu: i32, call: Opaque) -> i32;
    pub fn smp_call_function_single(cpu: i32, function: u64, info: *mut u8, wait: i32) -> i32;
    pub fn irq_work_queue(work: Opaque);
    pub fn irq_work_sync(work: Opaque);
    pub fn register_nmi_handler(kind: u32, action: Opaque) -> i32 = "__register_nmi_handler";
    pub fn unregister_nmi_handler(kind: u32, name: *const u8);
    pub static apic: Opaque;
    pub static __num_online_cpus: i32;
    pub optional static nr_cpu_ids: u32;
}

kbind::symbols! {
    /// Per-CPU: DR7 as the kernel wants it.
    pub static DR7 = "cpu_dr7";
    /// Per-CPU: DR0-3 as the kernel wants them.
    pub static BREAKPOINTS = "cpu_debugreg@cpu_dr7";
}

kbind::fields! {
    pub static APIC_SEND_IPI: u64 = "apic.send_IPI";
    pub static CALL_FUNCTION: u64 = "__call_single_data.func";
    pub static CALL_INFO: u64 = "__call_single_data.info";
    pub static IRQ_WORK_FUNCTION: u64 = "irq_work.func";
    pub static NMI_LIST: [u64; 2] = "nmiaction.list";
    pub static NMI_FUNCTION: u64 = "nmiaction.handler";
    pub static NMI_NAME: u64 = "nmiaction.name";
}

/// Room for `struct __call_single_data`.
pub const CALL: usize = 64;
/// Room for `struct irq_work`.
pub const IRQ_WORK: usize = 64;
/// Room for `struct nmiaction`.
pub const NMI_ACTION: usize = 128;

kbind::sizes! {
    pub static CALL_SIZE = "__call_single_data" <= CALL;
    pub static IRQ_WORK_SIZE = "irq_work" <= IRQ_WORK;
    pub static NMI_ACTION_SIZE = "nmiaction" <= NMI_ACTION;
}

kbind::enums! {
    pub static NMI_LOCAL = "NMI_LOCAL";
}

/// Vector of the NMI, by the architecture.
pub const NMI_VECTOR: i32 = 2;

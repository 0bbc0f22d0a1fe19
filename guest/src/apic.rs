//! The interrupt controller: none. The kernel's own `apic_noop` (arch/x86/kernel/apic/apic_noop.c) is chosen in the image, and five of its
//! functions are replaced there: how to start a CPU, and who am I. IPIs go through `smp_ops` instead, see [`crate::smp`].

use crate::hypercall::{call, index, irqs_off};
use crate::nopc::set_if;
use crate::smp;
use colinux_abi::hypercall::RAISE;
use colinux_abi::page::event;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

kbind::symbols! {
    static BOOT_CPU_PHYSICAL_APICID: optional = "boot_cpu_physical_apicid";
    static SMP_FOUND_CONFIG = "smp_found_config";
    static APIC_DISABLED: optional = "disable_apic|apic_is_disabled";
    static BOOT_CPU_APIC_VERSION: optional = "boot_cpu_apic_version";
    static BOOT_CPU_DATA = "boot_cpu_data";
}

kbind::fields! {
    static CAPABILITIES: u32 = "cpuinfo_x86.x86_capability";
}

kbind::hooks! {
    "apic" := symbol "apic_noop";
    overload "apic_noop+apic.wakeup_secondary_cpu" = wakeup: 2, was "noop_wakeup_secondary_cpu";
    overload "apic_noop+apic.wakeup_secondary_cpu" = wakeup_cpu: 3, was "noop_wakeup_secondary_cpu";
    "apic_noop+apic.read" = read: 1, was "noop_apic_read";
    "apic_noop+apic.write" = write: 2, was "noop_apic_write";
    optional "apic_noop+apic.eoi_write" = write: 2, was "noop_apic_write";
    "apic_noop+apic.get_apic_id" = get_apic_id: 1, was "noop_get_apic_id";
    "apic_noop+apic.send_IPI_self" = send_self: 1, was "noop_send_IPI_self";
    optional "apic_noop+apic.phys_pkg_id" = phys_pkg_id: 2, was "noop_phys_pkg_id";
}

/// APIC registers (Intel SDM volume 3, table 11-1).
const ID: u32 = 0x20;
const VERSION: u32 = 0x30;
/// An integrated APIC with some LVT entries, as `generic_processor_info()` is told.
pub const VERSION_VALUE: u32 = 0x14;

/// CPUID leaf 1, EDX: the first word of a kernel's capabilities.
const HAS_APIC: u32 = 1 << 9;

extern "C" fn wakeup(apic_id: u32, _start: u64) -> i32 {
    smp::start_vcpu(apic_id as usize)
}

/// Since 6.17 the number of the CPU comes along.
extern "C" fn wakeup_cpu(apic_id: u32, start: u64, _cpu: u32) -> i32 {
    wakeup(apic_id, start)
}

extern "C" fn read(register: u32) -> u32 {
    match register {
        ID => (index() as u32) << 24,
        VERSION => VERSION_VALUE,
        _ => 0,
    }
}

/// The kernel's own does nothing either, but warns of a boot CPU that has an APIC, see [`settle`].
extern "C" fn write(_register: u32, _value: u32) {}

extern "C" fn get_apic_id(register: u32) -> u32 {
    register >> 24
}

/// Only `arch_irq_work_raise()` interrupts its own CPU.
extern "C" fn send_self(_vector: i32) {
    irqs_off(|| call(RAISE, 1 << index(), event::IRQ_WORK));
}

/// The boot has come so far that nothing but new CPUs looks for an APIC any more.
static LATE: AtomicBool = AtomicBool::new(false);

fn capabilities() -> &'static AtomicU32 {
    // SAFETY: an aligned word of the kernel that has this type; CPUs that come later change it by plain writes, but they come one at a time, see `hide`.
    unsafe { AtomicU32::from_ptr(CAPABILITIES.ptr(BOOT_CPU_DATA.addr() as *mut u8)) }
}

/// Late in the boot, when nothing but new CPUs looks for an APIC any more.
///
/// Has the kernel do IRQ work at once, by an interrupt of its own. It asks for this bit of the boot CPU and would wait for a tick without it; RCU of kernels that preempt relies on
/// less (`rcu_read_unlock_special()` makes a work anew that is still in a list).
///
/// And lets a CPU that comes later set up its APIC, which is [`read`] and [`write`]: where APICs are disabled the kernel notes each time that there is no IO-APIC either
/// (`disable_ioapic_support()`), in a word that is read-only after the boot since 6.12.
pub fn settle() {
    disable(false);
    LATE.store(true, Ordering::Release);
    show();
}

/// A CPU starts, which looks for an APIC: where the boot CPU has one, that of older AMD CPUs asks PCI ports about its own (`early_init_amd()`).
pub fn hide() {
    capabilities().fetch_and(!HAS_APIC, Ordering::AcqRel);
}

/// A CPU has started, and has left in the boot CPU's capabilities only those of its own. Or it does not start.
///
/// Work that came while the bit was hidden has raised no interrupt, and no tick does it now that the bit is there (`irq_work_tick()`); what comes later would
/// raise none either, as the list is not empty (`__irq_work_queue_local()`). So all CPUs look.
pub fn show() {
    if LATE.load(Ordering::Acquire) {
        capabilities().fetch_or(HAS_APIC, Ordering::AcqRel);
        call(RAISE, smp::online(), event::IRQ_WORK);
    }
}

/// All vCPUs are cores of one package (up to 6.8; later kernels ask CPUID).
extern "C" fn phys_pkg_id(apic_id: u32, shift: i32) -> i32 {
    apic_id.checked_shr(shift as u32).unwrap_or(0) as i32
}

/// What an MP table would have said.
pub fn prepare() {
    set_if(&BOOT_CPU_PHYSICAL_APICID, 0);
    set_if(&BOOT_CPU_APIC_VERSION, VERSION_VALUE);
    // SAFETY: an int of the kernel; boot, nothing runs beside us.
    unsafe { crate::room::poke(SMP_FOUND_CONFIG.addr(), 1u32) };
}

/// Does `work` while the kernel knows of no APIC of the boot CPU (`BAD_APICID`).
pub fn while_unknown(work: impl FnOnce()) {
    set_if(&BOOT_CPU_PHYSICAL_APICID, u32::MAX);
    work();
    set_if(&BOOT_CPU_PHYSICAL_APICID, 0);
}

/// Whether there is no local APIC to set up on any CPU. A `bool` since 6.6, an int before; the bytes above are padding or zero.
pub fn disable(disabled: bool) {
    if let Some(address) = APIC_DISABLED.addr() {
        // SAFETY: little-endian: the low byte is the value in both.
        unsafe { crate::room::poke(address, u8::from(disabled)) };
    }
}

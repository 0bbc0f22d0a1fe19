//! The interrupt controller: none. The kernel's own `apic_noop` (arch/x86/kernel/apic/apic_noop.c) is chosen in the image, and four of its
//! functions are replaced there: how to start a CPU, and who am I. IPIs go through `smp_ops` instead, see [`crate::smp`].

use crate::hypercall::index;
use crate::nopc::set_flag;
use crate::smp;

kbind::symbols! {
    static BOOT_CPU_PHYSICAL_APICID: optional = "boot_cpu_physical_apicid";
    static SMP_FOUND_CONFIG = "smp_found_config";
    static APIC_DISABLED: optional = "disable_apic|apic_is_disabled";
    static BOOT_CPU_APIC_VERSION: optional = "boot_cpu_apic_version";
}

kbind::hooks! {
    "apic" := symbol "apic_noop";
    "apic_noop+apic.wakeup_secondary_cpu" = wakeup: 2, was "noop_wakeup_secondary_cpu";
    "apic_noop+apic.read" = read: 1, was "noop_apic_read";
    "apic_noop+apic.get_apic_id" = get_apic_id: 1, was "noop_get_apic_id";
    optional "apic_noop+apic.phys_pkg_id" = phys_pkg_id: 2, was "noop_phys_pkg_id";
}

/// APIC registers (Intel SDM volume 3, table 11-1).
const ID: u32 = 0x20;
const VERSION: u32 = 0x30;
/// An integrated APIC with some LVT entries, as `generic_processor_info()` is told.
pub const VERSION_VALUE: u32 = 0x14;

extern "C" fn wakeup(apic_id: u32, _start: u64) -> i32 {
    smp::start_vcpu(apic_id as usize)
}

extern "C" fn read(register: u32) -> u32 {
    match register {
        ID => (index() as u32) << 24,
        VERSION => VERSION_VALUE,
        _ => 0,
    }
}

extern "C" fn get_apic_id(register: u32) -> u32 {
    register >> 24
}

/// All vCPUs are cores of one package (up to 6.8; later kernels ask CPUID).
extern "C" fn phys_pkg_id(apic_id: u32, shift: i32) -> i32 {
    apic_id.checked_shr(shift as u32).unwrap_or(0) as i32
}

/// What an MP table would have said.
pub fn prepare() {
    set_flag(&BOOT_CPU_PHYSICAL_APICID, 0);
    set_flag(&BOOT_CPU_APIC_VERSION, VERSION_VALUE);
    // SAFETY: an int of the kernel; boot, nothing runs beside us.
    unsafe { crate::room::poke(SMP_FOUND_CONFIG.addr(), 1u32) };
}

/// No local APIC to set up on any CPU. A `bool` since 6.6, an int before; the bytes above are padding or zero.
pub fn disable(disabled: bool) {
    if let Some(address) = APIC_DISABLED.addr() {
        // SAFETY: little-endian: the low byte is the value in both.
        unsafe { crate::room::poke(address, u8::from(disabled)) };
    }
}

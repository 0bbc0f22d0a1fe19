//! There is no PC here. The hardware belongs to the host: the guest neither looks for it nor may touch it.
//!
//! Set by hook and variable, not on the command line, which a user may change.

use crate::notifier::Block;
use crate::room::{Room, poke};
use crate::{console, memory};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use kbind::{OptSymbol, Symbol};

kbind::symbols! {
    static LEGACY_I8042 = "x86_platform+x86_platform_ops.legacy.i8042";
    static LEGACY_RTC = "x86_platform+x86_platform_ops.legacy.rtc";
    static LEGACY_WARM_RESET: optional = "x86_platform+x86_platform_ops.legacy.warm_reset";
    static LEGACY_NO_VGA: optional = "x86_platform+x86_platform_ops.legacy.no_vga";
    static LEGACY_BIOS_REGIONS = "x86_platform+x86_platform_ops.legacy.reserve_bios_regions";
    static LEGACY_PNPBIOS: optional = "x86_platform+x86_platform_ops.legacy.devices.pnpbios";
    static ACPI_DISABLED: optional = "acpi_disabled";
    static ACPI_NOIRQ: optional = "acpi_noirq";
    static ACPI_PCI_DISABLED: optional = "acpi_pci_disabled";
    static PCI_PROBE: optional = "pci_probe";
    static KEXEC_LOAD_DISABLED: optional = "kexec_load_disabled";
    static REAL_MODE_HEADER = "real_mode_header";
    static IOPORT_RESOURCE = "ioport_resource";
    static IOMEM_RESOURCE = "iomem_resource";
}

kbind::sizes! {
    static REAL_MODE_HEADER_SIZE = "real_mode_header" <= REAL_MODE_ROOM;
}

kbind::fields! {
    static RESOURCE_START: u64 = "resource.start";
    static RESOURCE_END: u64 = "resource.end";
    static RESOURCE_NAME: u64 = "resource.name";
    static RESOURCE_CHILD: u64 = "resource.child";
    static RESOURCE_SIBLING: u64 = "resource.sibling";
    static MODULE_NAME: [u8; 56] = "module.name";
}

kbind::enums! {
    static MODULE_STATE_LIVE = "MODULE_STATE_LIVE";
    static MODULE_STATE_COMING = "MODULE_STATE_COMING";
}

kbind::functions! {
    fn request_region(parent: u64, start: u64, size: u64, name: *const u8, flags: i32) -> *mut u8 = "__request_region";
    fn release_region(parent: u64, start: u64, size: u64) = "__release_region";
    fn register_module_notifier(block: *mut u8) -> i32;
}

kbind::hooks! {
    "x86_platform+x86_platform_ops.set_legacy_features" = set_legacy_features: 0, was "0";
    "x86_platform+x86_platform_ops.get_nmi_reason" = zero: 0, was "default_get_nmi_reason";
    optional "x86_platform+x86_platform_ops.realmode_reserve" = zero: 0, was "reserve_real_mode";
    optional "x86_platform+x86_platform_ops.realmode_init" = zero: 0, was "init_real_mode";
    "x86_init+x86_init_ops.resources.probe_roms" = zero: 0, was "probe_roms";
    "x86_init+x86_init_ops.resources.reserve_resources" = zero: 0, was "reserve_standard_io_resources";
    optional "x86_init+x86_init_ops.resources.dmi_setup" = zero: 0, was "dmi_setup";
    "x86_init+x86_init_ops.irqs.pre_vector_init" = zero: 0, was "init_ISA_irqs";
    "x86_init+x86_init_ops.irqs.intr_mode_select" = zero: 0, was "apic_intr_mode_select";
    "x86_init+x86_init_ops.irqs.intr_mode_init" = zero: 0, was "apic_intr_mode_init";
    "x86_init+x86_init_ops.irqs.create_pci_msi_domain" = zero: 0, was "native_create_pci_msi_domain";
    "x86_init+x86_init_ops.pci.arch_init" = zero: 0, was "0";
    "x86_init+x86_init_ops.pci.init" = zero: 0, was "pci_acpi_init|pci_legacy_init";
    "x86_init+x86_init_ops.pci.init_irq" = zero: 0, was "pcibios_irq_init";
    "x86_init+x86_init_ops.pci.fixup_irqs" = zero: 0, was "pcibios_fixup_irqs";
    optional "pv_ops+paravirt_patch_template.cpu.io_delay" = zero: 0, was "native_io_delay";
    "legacy_pic" := symbol "null_legacy_pic", was "default_legacy_pic";
}

const REAL_MODE_ROOM: usize = 256;
/// `notifier_from_errno(-ENODEV)` (include/linux/notifier.h): NOTIFY_STOP_MASK | (NOTIFY_OK + ENODEV).
const REFUSE: i32 = 0x8000 | (1 + 19);

/// Modules that poke ports, MSRs or firmware tables without asking anybody, or that would take the CPU from the host.
const VETOED: [&str; 30] = [
    "acpi_cpufreq",
    "amd_energy",
    "coretemp",
    "cpuid",
    "floppy",
    "fam15h_power",
    "i8042",
    "intel_powerclamp",
    "intel_rapl_common",
    "intel_rapl_msr",
    "it87",
    "k10temp",
    "k8temp",
    "kvm",
    "kvm_amd",
    "kvm_intel",
    "msr",
    "nvram",
    "parport_pc",
    "pata_legacy",
    "pcc_cpufreq",
    "pcspkr",
    "powernow_k8",
    "qemu_fw_cfg",
    "rapl",
    "rtc_cmos",
    "snd_pcsp",
    "sp5100_tco",
    "via_cputemp",
    "w83627hf",
];

static REAL_MODE: Room<REAL_MODE_ROOM> = Room::new();
static MODULE_NOTIFIER: Block = Block::new();

/// Serves hooks that return nothing, 0 or a null pointer.
extern "C" fn zero() -> u64 {
    0
}

fn set(word: &Symbol, value: u32) {
    // SAFETY: an int or enum of the kernel; boot, nothing runs beside us.
    unsafe { poke(word.addr(), value) };
}

/// For words of the kernel, in the boot.
pub fn set_if(word: &OptSymbol, value: u32) {
    if let Some(address) = word.addr() {
        // SAFETY: as above.
        unsafe { poke(address, value) };
    }
}

/// `x86_platform.set_legacy_features`, the end of `x86_early_init_platform_quirks()`. All zero is "absent".
extern "C" fn set_legacy_features() {
    set(&LEGACY_I8042, 0);
    set(&LEGACY_RTC, 0);
    set(&LEGACY_BIOS_REGIONS, 0);
    set_if(&LEGACY_WARM_RESET, 0);
    set_if(&LEGACY_PNPBIOS, 0);
    set_if(&LEGACY_NO_VGA, 1);
}

/// What `acpi=off pci=off` would set, and no kexec: a new kernel would start on the real machine.
pub fn set_variables() {
    set_if(&ACPI_DISABLED, 1);
    set_if(&ACPI_NOIRQ, 1);
    set_if(&ACPI_PCI_DISABLED, 1);
    set_if(&PCI_PROBE, 0);
    set_if(&KEXEC_LOAD_DISABLED, 1);
    // SAFETY: a pointer that only smpboot reads, for a start address that our wake-up does not use.
    unsafe { poke(REAL_MODE_HEADER.addr(), REAL_MODE.addr()) };
}

/// All I/O ports and all memory that is not ours are the host's: drivers that ask are refused. Process context.
pub fn claim_resources() {
    claim_rest(IOPORT_RESOURCE.addr(), 0, 0x10000);
    // SAFETY: a resource of the kernel, constant by now.
    let end = unsafe { RESOURCE_END.read(IOMEM_RESOURCE.addr() as *const u8) };
    let mut start = 0;
    for extent in memory::extents() {
        claim_rest(IOMEM_RESOURCE.addr(), start, extent.gpa.saturating_sub(start));
        start = extent.gpa + extent.len;
    }
    claim_rest(IOMEM_RESOURCE.addr(), start, end.saturating_sub(start).saturating_add(1));
}

/// Claims a range but for what others have of it, which the log then names. In the boot: nobody else claims meanwhile.
fn claim_rest(parent: u64, start: u64, size: u64) {
    if size == 0 || claim(parent, start, size) {
        return;
    }
    let (mut from, last) = (start, start.saturating_add(size - 1));
    // SAFETY: resources of the kernel; their list is sorted by address, and changes by our claims only, which go before the one that is looked at.
    let mut other = unsafe { RESOURCE_CHILD.read(parent as *const u8) } as *const u8;
    while !other.is_null() {
        // SAFETY: as above.
        let (begin, end) = unsafe { (RESOURCE_START.read(other), RESOURCE_END.read(other)) };
        if end >= from && begin <= last {
            claim(parent, from, begin.saturating_sub(from));
            let (begin, end) = (begin.max(from), end.min(last));
            if !claim(parent, begin, end - begin + 1) {
                // SAFETY: as above; names end with a zero byte.
                let name = unsafe { name(RESOURCE_NAME.read(other)) };
                console::log(format_args!("not claimed for the host: {begin:#x}-{end:#x} of {name:?}"));
            }
            from = end.saturating_add(1);
        }
        // SAFETY: as above.
        other = unsafe { RESOURCE_SIBLING.read(other) } as *const u8;
    }
    if from <= last {
        claim(parent, from, last - from + 1);
    }
}

/// # Safety
/// Null, or the address of a string that stays.
unsafe fn name(address: u64) -> &'static CStr {
    match address {
        0 => c"",
        // SAFETY: passed on to the caller.
        _ => unsafe { CStr::from_ptr(address as *const c_char) },
    }
}

/// Claims a range; false when somebody has a part of it, which then is not free either. Process context.
fn claim(parent: u64, start: u64, size: u64) -> bool {
    // SAFETY: process context.
    size > 0 && unsafe { !request_region(parent, start, size, c"colinux host".as_ptr().cast(), 0).is_null() }
}

fn release(parent: u64, start: u64, size: u64) {
    // SAFETY: process context.
    unsafe { release_region(parent, start, size) };
}

/// Most pieces of memory that come while the guest runs.
const MAX_PIECES: usize = 256;
/// Those that have come: guest-physical addresses of their first and behind their last byte.
static PIECES: [[AtomicU64; 2]; MAX_PIECES] = [const { [const { AtomicU64::new(0) }; 2] }; MAX_PIECES];
static PIECE_COUNT: AtomicUsize = AtomicUsize::new(0);
const ENOSPC: i32 = -28;

/// The addresses around `gpa` that are not the guest's.
fn hole(gpa: u64) -> [u64; 2] {
    // SAFETY: a resource of the kernel, constant.
    let end = unsafe { RESOURCE_END.read(IOMEM_RESOURCE.addr() as *const u8) };
    let pieces = PIECES.iter().take(PIECE_COUNT.load(Ordering::Relaxed));
    let pieces = pieces.map(|piece| [0, 1].map(|i: usize| piece[i].load(Ordering::Relaxed)));
    let all = memory::extents().iter().map(|extent| [extent.gpa, extent.gpa + extent.len]).chain(pieces);
    all.fold(
        [0, end.saturating_add(1)],
        |[from, to], [start, end]| {
            if end <= gpa { [from.max(end), to] } else { [from, to.min(start)] }
        },
    )
}

/// Has `add` give the kernel a piece of memory at `gpa` of `len` bytes, which is the host's no longer; `add` returns 0 or an error, and so does this.
/// On one thread at a time, in process context.
pub fn with_memory(gpa: u64, len: u64, add: impl FnOnce() -> i32) -> i32 {
    let count = PIECE_COUNT.load(Ordering::Relaxed);
    let Some(piece) = PIECES.get(count) else { return ENOSPC };
    let (iomem, [start, end], behind) = (IOMEM_RESOURCE.addr(), hole(gpa), gpa + len);
    let unclaimed = claim(iomem, gpa, len);
    if unclaimed {
        release(iomem, gpa, len)
    } else {
        release(iomem, start, end - start)
    }
    let error = add();
    if error == 0 {
        piece[0].store(gpa, Ordering::Relaxed);
        piece[1].store(behind, Ordering::Relaxed);
        PIECE_COUNT.store(count + 1, Ordering::Relaxed);
    }
    let parts = if error == 0 { [[start, gpa], [behind, end]] } else { [[start, end], [end, end]] };
    if !unclaimed {
        for [from, to] in parts {
            claim(iomem, from, to - from);
        }
    }
    error
}

/// Gets told of modules: vetoes some, and tells [`crate::virtio`] of the others.
pub fn watch_modules() {
    let block = MODULE_NOTIFIER.fill(module_event, 0);
    // SAFETY: the block is static; process context.
    unsafe { register_module_notifier(block) };
}

/// A `notifier_fn_t` on the module chain.
extern "C" fn module_event(_block: *mut u8, state: u64, module: *const u8) -> i32 {
    // SAFETY: the kernel passes the module.
    let name = unsafe { MODULE_NAME.read(module) };
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let name = &name[..length];
    if state == MODULE_STATE_COMING.get() && VETOED.iter().any(|vetoed| vetoed.as_bytes() == name) {
        return REFUSE;
    }
    if state == MODULE_STATE_LIVE.get() {
        crate::virtio::module_loaded(name);
    }
    0
}

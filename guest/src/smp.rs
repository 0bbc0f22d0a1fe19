//! Several CPUs: vCPU `i` is CPU `i` with APIC ID `i`. Inter-processor interrupts are events that the host raises on the other vCPU.
//!
//! `native_cpu_up` (up to 6.4) and `native_kick_ap` (since) are used as they are, one CPU at a time; they end in `apic->wakeup_secondary_cpu`.

use crate::hypercall::{call, index, irqs_off, vcpu_count, vcpu_page, vm};
use crate::nopc::set_if;
use crate::room::{peek, poke};
use crate::{apic, console, memory};
use colinux_abi::hypercall::{RAISE, START_VCPU, STOP_VCPU, YIELD};
use colinux_abi::page::{event, feature};
use core::sync::atomic::{AtomicU64, Ordering};

kbind::symbols! {
    static SECONDARY_STARTUP = "secondary_startup_64";
    static INIT_TOP_PGT = "init_top_pgt";
    static ONLINE_MASK = "__cpu_online_mask";
    static PRESET_LPJ = "preset_lpj";
    static LOOPS_PER_JIFFY = "loops_per_jiffy";
    static CPUID_TO_APICID: optional = "cpuid_to_apicid";
    static NUM_PROCESSORS: optional = "num_processors";
    static VIRT_SPIN_LOCK: optional = "virt_spin_lock_key";
    static PARALLEL_BRINGUP: optional = "x86_cpuinit+x86_cpuinit_ops.parallel_bringup";
}

kbind::functions! {
    overload fn generic_processor_info(apic_id: i32) -> i32 = "generic_processor_info";
    overload fn generic_processor_info_of_version(apic_id: i32, version: i32) -> i32 = "generic_processor_info";
    optional fn topology_register_boot_apic(apic_id: u32);
    optional fn topology_register_apic(apic_id: u32, acpi_id: u32, present: bool);
    fn smp_prepare_cpus_common();
    fn set_cpu_online(cpu: u32, online: bool);
    fn play_dead_common();
    optional fn static_key_enable(key: u64);
}

kbind::hooks! {
    "x86_init+x86_init_ops.mpparse.find_smp_config|x86_init+x86_init_ops.mpparse.find_mptable" = find: 0;
    optional "x86_init+x86_init_ops.mpparse.get_smp_config" = get_smp_config: 1;
    optional "x86_init+x86_init_ops.mpparse.early_parse_smp_cfg" = find: 0;
    optional "x86_init+x86_init_ops.mpparse.parse_smp_cfg" = parse: 0;
    "smp_ops+smp_ops.smp_prepare_cpus" = prepare_cpus: 1, was "native_smp_prepare_cpus";
    "smp_ops+smp_ops.smp_send_reschedule" = send_reschedule: 1, was "native_smp_send_reschedule";
    "smp_ops+smp_ops.send_call_func_ipi" = send_call: 1, was "native_send_call_func_ipi";
    "smp_ops+smp_ops.send_call_func_single_ipi" = send_call_single: 1, was "native_send_call_func_single_ipi";
    "smp_ops+smp_ops.stop_other_cpus" = stop_other_cpus: 1, was "native_stop_other_cpus";
    optional "smp_ops+smp_ops.crash_stop_other_cpus" = crash_stop_other_cpus: 0;
    "smp_ops+smp_ops.play_dead" = play_dead: 0, was "native_play_dead";
}

/// -EIO.
const IO_ERROR: i32 = -5;

/// Up to 6.8 CPUs are counted here, once; the first call of two asks only for what the memory allocator needs.
extern "C" fn get_smp_config(early: u32) {
    if early != 0 {
        return;
    }
    set_if(&CPUID_TO_APICID, 0u32);
    register(0);
    // SAFETY: an unsigned int of the kernel.
    let is_counted = NUM_PROCESSORS.addr().is_none_or(|count| unsafe { peek::<u32>(count) } != 0);
    if !is_counted {
        // Since 6.6 the boot CPU is not counted here but where its APIC is first read, and then passed over.
        apic::while_unknown(|| register(0));
    }
    (1..vcpu_count() as i32).for_each(register);
}

fn register(vcpu: i32) {
    // SAFETY: boot; this is where an MP table would be read.
    unsafe {
        if let Some(register) = generic_processor_info() {
            register(vcpu);
        } else if let Some(register) = generic_processor_info_of_version() {
            register(vcpu, apic::VERSION_VALUE as i32);
        }
    }
}

/// A kernel without MP table support takes `acpi_disabled` for "no APIC", and that for "one CPU": not so.
extern "C" fn find() {
    apic::disable(false);
}

/// Since 6.9.
extern "C" fn parse() {
    if let (Some(register_boot), Some(register)) = (topology_register_boot_apic(), topology_register_apic()) {
        // SAFETY: boot; this is where an MP table would be read. The boot CPU is enumerated, too, and first.
        unsafe {
            register_boot(0);
            for vcpu in 0..vcpu_count() as u32 {
                register(vcpu, u32::MAX, true);
            }
        }
    }
}

/// `smp_ops.smp_prepare_cpus`: the part of the native one that is not about the APIC.
extern "C" fn prepare_cpus(_max: u32) {
    // SAFETY: called as the native function is.
    unsafe {
        smp_prepare_cpus_common();
        if let Some(parallel) = PARALLEL_BRINGUP.addr() {
            // CPUs that start in parallel would find out who they are from the real APIC.
            poke(parallel, 0u8);
        }
    }
    apic::disable(true);
    keep_calibration();
    take_unfair_locks();
}

/// The kernel's locks have queues: one that is free is handed to the vCPU that has waited longest, and waits for it where that one has no CPU of the host just now. Of many vCPUs on few CPUs each hand-over would
/// take a turn of all of them. The kernel has the lock that hypervisors want (`virt_spin_lock()`, arch/x86/include/asm/qspinlock.h): whoever asks when it is free has it.
fn take_unfair_locks() {
    if vm().features & feature::TURNS == 0 {
        return;
    }
    if let (Some(key), Some(enable)) = (VIRT_SPIN_LOCK.addr(), static_key_enable()) {
        // SAFETY: a key of the kernel; process context, before the other CPUs start and before what is set at boot is read-only. No lock has a queue yet.
        unsafe { enable(key) };
    }
}

/// A starting CPU measures its speed (init/calibrate.c) by a clock that another CPU advances, with interrupts off and without `pause`. All vCPUs are
/// as fast as the first: the user's word `lpj=` would say the same.
fn keep_calibration() {
    // SAFETY: two words of the kernel, written by this CPU alone so far.
    unsafe {
        if peek::<u64>(PRESET_LPJ.addr()) == 0 {
            poke(PRESET_LPJ.addr(), peek::<u64>(LOOPS_PER_JIFFY.addr()));
        }
    }
}

/// What the kernel has heard of a vCPU. Zeroed pages say that it has not arrived.
mod phase {
    /// It starts, and is known by [`colinux_abi::page::VmPage`]'s `bringup_vcpu` alone.
    pub const STARTS: u64 = 0;
    /// It has loaded the kernel's IDT, by which it is known.
    pub const ARRIVED: u64 = 1;
    /// It has told its kernel that it is dead, and is about to stop.
    pub const LEAVES: u64 = 2;
}

/// Word of the vCPU's scratch area; those before it belong to `irq` and `waits`.
const PHASE: usize = 3;

fn phase(vcpu: usize) -> &'static AtomicU64 {
    &vcpu_page(vcpu).scratch[PHASE]
}

/// This vCPU has loaded the kernel's IDT.
pub fn arrived(vcpu: usize) {
    phase(vcpu).store(phase::ARRIVED, Ordering::Release);
}

/// Starts vCPU `vcpu` at `secondary_startup_64`, on the kernel's own page table. Returns 0 or -EIO.
pub fn start_vcpu(vcpu: usize) -> i32 {
    if vcpu >= vcpu_count() {
        return IO_ERROR;
    }
    // The kernel gives up on a CPU after some seconds, but on a busy host that one still comes.
    let last = vm().bringup_vcpu.load(Ordering::SeqCst) as usize;
    if phase(last).load(Ordering::Acquire) == phase::STARTS {
        console::log(format_args!("vCPU {vcpu} cannot start before vCPU {last} has: try again"));
        return IO_ERROR;
    }
    let before = phase(vcpu).swap(phase::STARTS, Ordering::SeqCst);
    vm().bringup_vcpu.store(vcpu as u32, Ordering::SeqCst);
    prepare_start(vcpu);
    apic::hide();
    let mut refused = call(START_VCPU, vcpu as u64, 0) != 0;
    // A CPU tells its kernel that it is dead a moment before it stops; nothing keeps it from that but the want of a CPU of the host.
    while refused && before == phase::LEAVES {
        call(YIELD, 0, 0);
        refused = call(START_VCPU, vcpu as u64, 0) != 0;
    }
    if refused {
        phase(vcpu).store(before, Ordering::SeqCst);
        apic::show();
        return IO_ERROR;
    }
    0
}

/// Writes what vCPU `vcpu` begins with.
fn prepare_start(vcpu: usize) {
    let page = vcpu_page(vcpu);
    // The first instructions call one function, before they load a stack of their own; no NMI comes through the object's stubs until then.
    let stack = &raw const page.nmi_stack as u64 + 1024;
    let state = [SECONDARY_STARTUP.addr(), stack, memory::image_gpa(INIT_TOP_PGT.addr()), 0];
    for (argument, value) in page.args.iter().zip(state) {
        argument.store(value, Ordering::Relaxed);
    }
    page.pending.store(0, Ordering::Release);
}

fn raise(mask: u64, events: u64) {
    call(RAISE, mask, events);
}

extern "C" fn send_reschedule(cpu: i32) {
    raise(1 << (cpu as u64 & 63), event::RESCHEDULE);
}

extern "C" fn send_call(mask: *const u64) {
    // SAFETY: a cpumask of the kernel; its first word holds all CPUs that we can have.
    raise(unsafe { mask.read_volatile() }, event::CALL_FUNCTION);
}

extern "C" fn send_call_single(cpu: i32) {
    raise(1 << (cpu as u64 & 63), event::CALL_FUNCTION_SINGLE);
}

/// Bit `i`: CPU `i` is online.
pub fn online() -> u64 {
    // SAFETY: as in `send_call`.
    unsafe { peek(ONLINE_MASK.addr()) }
}

/// `smp_ops.stop_other_cpus`. A CPU that keeps its interrupts off does not stop by this, so waiting has an end; the host stops all vCPUs anyway
/// when the machine ends.
extern "C" fn stop_other_cpus(_wait: i32) {
    const ROUNDS: u32 = 1000;
    let me = irqs_off(|| 1u64 << index());
    raise(online() & !me, event::CPU_STOP);
    for _ in 0..ROUNDS {
        if online() & !me == 0 {
            break;
        }
        call(YIELD, 0, 0);
    }
}

extern "C" fn crash_stop_other_cpus() {
    stop_other_cpus(0);
}

/// This CPU runs no more.
pub fn stop_this_cpu() -> ! {
    irqs_off(|| {
        // SAFETY: this CPU, interrupts off, as stop_this_cpu() does.
        unsafe { set_cpu_online(index() as u32, false) };
        loop {
            call(STOP_VCPU, 0, 0);
        }
    })
}

/// `smp_ops.play_dead`: the CPU is taken offline and may be started again, from the beginning.
extern "C" fn play_dead() {
    phase(index()).store(phase::LEAVES, Ordering::Release);
    // SAFETY: called as native_play_dead() is: by the idle task of a CPU that goes. Interrupts are off afterwards.
    unsafe { play_dead_common() };
    loop {
        call(STOP_VCPU, 0, 0);
    }
}

/// One line for the log.
pub fn report() {
    let devices = vm().device_count;
    let extents = memory::extents().len();
    console::log(format_args!("{} vCPUs, {devices} devices, {extents} extents of memory", vcpu_count()));
}

//! The machine's end: power-off, halt, reboot, panic.

use crate::console;
use crate::hypercall::shutdown as end;
use crate::notifier::Block;
use crate::room::poke;
use colinux_abi::hypercall::shutdown;

kbind::symbols! {
    static PANIC_NOTIFIER_LIST = "panic_notifier_list";
    static PM_POWER_OFF = "pm_power_off";
}

kbind::functions! {
    fn atomic_notifier_chain_register(chain: u64, block: *mut u8) -> i32;
    fn orderly_poweroff(force: bool);
    optional fn console_flush_on_panic(mode: u32);
}

kbind::hooks! {
    "machine_ops+machine_ops.restart" = restart: 1, was "native_machine_restart";
    "machine_ops+machine_ops.emergency_restart" = restart: 0, was "native_machine_emergency_restart";
    "machine_ops+machine_ops.halt" = halt: 0, was "native_machine_halt";
    "machine_ops+machine_ops.power_off" = power_off: 0, was "native_machine_power_off";
    "machine_ops+machine_ops.shutdown" = kexec: 0, was "native_machine_shutdown";
    optional "machine_ops+machine_ops.crash_shutdown" = kexec: 1, was "native_machine_crash_shutdown";
}

static PANIC_NOTIFIER: Block = Block::new();

extern "C" fn restart() {
    end(shutdown::RESTART);
}

extern "C" fn halt() {
    end(shutdown::HALT);
}

extern "C" fn power_off() {
    end(shutdown::POWER_OFF);
}

/// Only kexec calls these. Another kernel would start on the real machine, beside a running host.
extern "C" fn kexec() {
    console::print(format_args!("colinux: kexec is not possible in a guest\n"));
    end(shutdown::REFUSED);
}

/// Ends the machine when the kernel panics, after the panic's own lines.
pub fn watch_panics() {
    // Last of the chain: others may still print.
    let block = PANIC_NOTIFIER.fill(panicked, i32::MIN);
    // SAFETY: block and chain are static.
    unsafe { atomic_notifier_chain_register(PANIC_NOTIFIER_LIST.addr(), block) };
}

extern "C" fn panicked(_block: *mut u8, _event: u64, _text: *const u8) -> i32 {
    if let Some(flush) = console_flush_on_panic() {
        // SAFETY: as panic() calls it; 0 is CONSOLE_FLUSH_PENDING.
        unsafe { flush(0) };
    }
    end(shutdown::PANIC)
}

/// Tells the kernel that the machine can be switched off, else `poweroff` would only halt.
pub fn start() {
    // SAFETY: a function pointer for platforms, null so far.
    unsafe { poke(PM_POWER_OFF.addr(), power_off as *const () as u64) };
}

/// The user asks for the end: runs /sbin/poweroff, which init systems obey.
pub fn orderly() {
    // SAFETY: only queues work; any context.
    unsafe { orderly_poweroff(false) };
}

//! The guest object: the part of coLinux that lives in the guest kernel's address space.
//!
//! A distribution's kernel knows two ways to run on something that is not a PC: the tables of function pointers that Xen, KVM and
//! jailhouse use (`x86_init`, `x86_platform`, `pv_ops`, `smp_ops`, `machine_ops`, `apic`), and nothing else. The object fills these tables.
//! Before the first instruction the loader writes addresses of the object's functions into data words of the image (the *hooks*), and addresses and offsets
//! of the kernel into words of the object (the *slots*, see the crate `kbind`). Of the kernel's code nothing is changed but its `pause` instructions ([`waits`]).
//!
//! The story of a boot, in the order in which the kernel meets the object:
//!
//! 1. `head_64.S` runs on the bring-up IDT, whose gates 2 and 18 point at [`nmi`]: from here on an NMI that belongs to the host leaves the guest.
//! 2. `idt_setup_early_handler` writes the kernel's own IDT through [`irq`], which puts its stubs into every gate that hardware can use.
//! 3. `early_cpu_init` asks for CPU features through [`cpuid`]; MSRs pass through [`msr`].
//! 4. `x86_platform.set_legacy_features` ([`nopc`]): there is no PC here: no RTC, no i8042, no VGA, no BIOS.
//! 5. `x86_init.resources.memory_setup` ([`boot`]): the first call with a kernel stack and printk. Memory map, early console, variables.
//! 6. `get_smp_config` or `parse_smp_cfg` ([`smp`]): as many CPUs as the VM has vCPUs.
//! 7. `timer_init` ([`time`]): the clock event device; the page tables of user mode get the window too.
//! 8. `smp_prepare_cpus` and `apic.wakeup_secondary_cpu` ([`smp`], [`apic`]): the other vCPUs start.
//! 9. `iommu_init` ([`boot::late`]), the first hook in process context: hvc console, power, ports claimed, virtio devices.
//!
//! Later, the daemon's wishes (fewer vCPUs, more memory) come through [`orders`].
//!
//! When a physical interrupt arrives, a stub leaves the guest with it; when the host raised a *virtual event*, the stub goes on into the kernel's
//! handler of the "platform IPI", whose callback is [`irq::upcall`]. All else is a hypercall ([`hypercall`]).
#![no_std]
#![no_main]

mod apic;
mod boot;
mod console;
mod cpuid;
mod debug;
mod deferred;
mod hypercall;
mod irq;
mod memory;
mod msr;
mod nmi;
mod nopc;
mod notifier;
mod orders;
mod power;
mod room;
mod smp;
mod thread;
mod time;
mod virtio;
mod waits;
mod wall_clock;

use core::panic::PanicInfo;

/// A panic of the object ends the guest: nothing that the object believes holds any more.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    console::print(format_args!("colinux: guest object: {info}\n"));
    hypercall::shutdown(colinux_abi::hypercall::shutdown::REFUSED)
}

//! Good files, to be damaged.

use super::host::{Host, printk};
use super::kallsyms::ORDERS;
use super::kernel::{Kernel, bzimage};
use super::object::{CODE, SLOTS, guest};
use super::record::record;
use kbind::format::{CHECKED, Kind};
use std::sync::LazyLock;

/// Kernels of each layout of kallsyms, one without section headers, and one in a bzImage.
pub static KERNELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let vmlinux = |order| Kernel { order, ..Kernel::default() }.vmlinux();
    let mut kernels: Vec<_> = ORDERS.into_iter().map(vmlinux).collect();
    kernels.push(Kernel { section_headers: false, ..Kernel::default() }.vmlinux());
    let plain = kernels[0].clone();
    kernels.push(bzimage(&plain, plain.len()));
    kernels
});

/// An object with a record of each kind that the kernels can answer.
pub static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    guest(&[
        record(Kind::Symbol, "pv_ops+paravirt_patch_template.cpu.cpuid").slot(SLOTS),
        record(Kind::Field, "console.capability").number(4).slot(SLOTS + 8),
        record(Kind::Size, "console").number(64).slot(SLOTS + 16),
        record(Kind::Enumerator, "WIDE").slot(SLOTS + 24),
        record(Kind::Function, "register_console").prototype(0, &[8]).slot(SLOTS + 32),
        record(Kind::HookFunction, "pv_ops+paravirt_patch_template.cpu.cpuid\0native_cpuid")
            .flags(CHECKED)
            .arity(2)
            .target(CODE),
    ])
});

/// A driver that imports a function and asks for a field.
pub static HOST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    Host::new()
        .declare(printk())
        .call("printk|_printk")
        .ask(record(Kind::Field, "module.init").number(8))
        .write()
});

//! Damaged files: whatever the bytes, the answer is an error or a result, never a panic.

mod support;

use kbind::format::{CHECKED, Kind};
use kbind_resolve::{KernelImage, link_guest, make_module};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::host::{Host, printk};
use support::kallsyms::ORDERS;
use support::kernel::{Kernel, bzimage};
use support::object::{CODE, SLOTS, guest};
use support::record::record;

static KERNELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let vmlinux = |order| Kernel { order, ..Kernel::default() }.vmlinux();
    let mut kernels: Vec<_> = ORDERS.into_iter().map(vmlinux).collect();
    kernels.push(Kernel { section_headers: false, ..Kernel::default() }.vmlinux());
    let plain = kernels[0].clone();
    kernels.push(bzimage(&plain, plain.len()));
    kernels
});

static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
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

static HOST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    Host::new()
        .declare(printk())
        .call("printk|_printk")
        .ask(record(Kind::Field, "module.init").number(8))
        .write()
});

/// Writes `changes` (each a place, as a part of the whole, and a byte) and cuts the end off.
fn damage(bytes: &[u8], changes: &[(f64, u8)], keep: f64) -> Vec<u8> {
    let mut bytes = bytes[..(bytes.len() as f64 * keep) as usize].to_vec();
    let len = bytes.len();
    for &(place, value) in changes {
        if let Some(byte) = bytes.get_mut((place * len as f64) as usize) {
            *byte = value;
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0..1.0, any::<u8>()), 0..40)
}

/// Mostly whole files, so that the damage is met deep inside.
fn keep() -> impl Strategy<Value = f64> {
    prop_oneof![4 => Just(1.0), 1 => 0.0..1.0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn damaged_kernels_are_survived(which in 0..7usize, changes in changes(), keep in keep()) {
        if let Ok(image) = KernelImage::parse(damage(&KERNELS[which], &changes, keep)) {
            let _ = (image.vermagic(), image.build_id(), image.text());
            let _ = link_guest(&image, &GUEST);
            let _ = make_module(&image, &HOST);
        }
    }

    /// The head of a file decides most of what is read from it.
    #[test]
    fn damaged_heads_are_survived(which in 0..7usize, at in 0..2048usize, value: u64) {
        let mut bytes = KERNELS[which].clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let _ = KernelImage::parse(bytes);
    }

    #[test]
    fn damaged_objects_are_survived(changes in changes(), keep in keep()) {
        let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
        let _ = link_guest(&image, &damage(&GUEST, &changes, keep));
        let _ = make_module(&image, &damage(&HOST, &changes, keep));
    }
}

#[test]
fn the_undamaged_files_are_good() {
    for kernel in KERNELS.iter() {
        let image = KernelImage::parse(kernel.clone()).err().map(|error| error.to_string());
        // Without section headers and the symbols that stand in for them there is no BTF.
        assert!(image.is_none_or(|error| error.contains("no BTF")));
    }
    let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
    link_guest(&image, &GUEST).unwrap();
    make_module(&image, &HOST).unwrap();
}

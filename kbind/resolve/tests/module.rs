//! Making of modules, with a small host object made here.

mod support;

use kbind::format::{Kind, OPTIONAL, VARIADIC};
use kbind_resolve::{KernelImage, LinkError, make_module};
use object::elf::{R_X86_64_64, R_X86_64_GOTPCREL, RelocationType};
use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionKind,
    SymbolKind,
};
use support::host::{Host, page_is_ram, printk};
use support::kernel::{Kernel, types};
use support::record::record;

type Module<'a> = ElfFile64<'a, LittleEndian>;

fn make(host: Host) -> Result<Vec<u8>, LinkError> {
    make_module(&KernelImage::parse(Kernel::default().vmlinux()).unwrap(), &host.write())
}

fn problems(host: Host) -> String {
    match make(host) {
        Err(error @ LinkError::Mismatch { .. }) => error.to_string(),
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

fn data<'a>(module: &Module<'a>, section: &str) -> &'a [u8] {
    module.section_by_name(section).unwrap_or_else(|| panic!("no {section}")).data().unwrap()
}

/// Offset, kind, symbol or section name and addend of each relocation.
fn relocations(module: &Module, section: &str) -> Vec<(u64, RelocationType, String, i64)> {
    let section = module.section_by_name(section).unwrap();
    let read = |(offset, relocation): (u64, object::Relocation)| {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("no symbol") };
        let symbol = module.symbol_by_index(symbol).unwrap();
        let name = match symbol.kind() {
            SymbolKind::Section => {
                module.section_by_index(symbol.section_index().unwrap()).unwrap().name().unwrap().into()
            }
            _ => symbol.name().unwrap().to_string(),
        };
        let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("no ELF") };
        (offset, r_type, name, relocation.addend())
    };
    section.relocations().map(read).collect()
}

#[test]
fn the_module_describes_itself() {
    let bytes = make(Host::new()).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let info = String::from_utf8(data(&module, ".modinfo").to_vec()).unwrap();
    for line in ["license=GPL", "description=A test", "name=tiny", "retpoline=Y", "depends="] {
        assert!(info.split('\0').any(|text| text == line), "{line}");
    }
    assert!(info.contains("vermagic=6.99.0-test SMP preempt mod_unload modversions \0"));
    assert!(module.section_by_name(".kbind.meta").is_none());
    let this = data(&module, ".gnu.linkonce.this_module");
    assert_eq!(this.len(), 256);
    assert_eq!(&this[8..13], b"tiny\0");
    let pointers = relocations(&module, ".gnu.linkonce.this_module");
    let text = ".text".to_string();
    assert_eq!(pointers, [(128, R_X86_64_64, text.clone(), 0), (200, R_X86_64_64, text, 16)]);
    assert_eq!(module.section_by_name(".bss").unwrap().size(), 4096);
}

#[test]
fn imports_are_renamed_and_versioned() {
    let host = Host::new().declare(printk()).call("printk|_printk").ask(page_is_ram()).call("page_is_ram");
    let bytes = make(host).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let names: Vec<_> =
        module.symbols().filter(|symbol| symbol.is_undefined()).map(|s| s.name().unwrap()).collect();
    assert_eq!(
        names.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        [&"_printk", &"page_is_ram"]
    );
    let versions = data(&module, "__versions");
    let records: Vec<_> = versions.chunks(64).map(|record| (record[0], record[8..20].to_vec())).collect();
    assert_eq!(versions.len(), 3 * 64);
    assert!(records[0].1.starts_with(b"module_layou") && records[0].0 == 0);
    assert!(records[1].1.starts_with(b"_printk\0") && records[1].0 == 1);
    assert!(records[2].1.starts_with(b"page_is_ram\0") && records[2].0 == 0);
}

fn import_printk(kernel: &Kernel) -> Vec<u8> {
    let host = Host::new().declare(printk()).call("printk|_printk").write();
    make_module(&KernelImage::parse(kernel.vmlinux()).unwrap(), &host).unwrap()
}

#[test]
fn a_kernel_without_checksums_gets_none() {
    let bytes = import_printk(&Kernel { crcs: false, ..Kernel::default() });
    assert!(Module::parse(&*bytes).unwrap().section_by_name("__versions").is_none());
}

/// Ubuntu 6.8 has records of variable length.
#[test]
fn checksums_follow_the_record_of_the_kernel() {
    let bytes = import_printk(&Kernel { btf: Some(types(true)), ..Kernel::default() });
    let module = Module::parse(&*bytes).unwrap();
    let layout = *b"\x18\0\0\0\0\x10\0\0module_layout\0\0\0";
    let printk = *b"\x10\0\0\0\x01\x10\0\0_printk\0";
    assert_eq!(data(&module, "__versions"), [&layout[..], &printk[..]].concat());
}

#[test]
fn slots_are_filled() {
    let host = Host::new()
        .ask(record(Kind::Field, "console.flags").number(2))
        .ask(record(Kind::Symbol, "page_offset_base|secret"))
        .ask(record(Kind::Symbol, "native_cpuid").flags(OPTIONAL))
        .ask(page_is_ram())
        .ask(record(Kind::Import, "gone").flags(OPTIONAL).prototype(0, &[]));
    let bytes = make(host).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let slots: Vec<_> = data(&module, ".kbind.slots")
        .chunks(8)
        .map(|slot| u64::from_le_bytes(slot.try_into().unwrap()))
        .collect();
    // A symbol that exists but is not exported is absent for a module.
    assert_eq!(slots, [8, 0, u64::MAX, 1, 0]);
    let pointers = relocations(&module, ".kbind.slots");
    assert_eq!(pointers, [(8, R_X86_64_64, "page_offset_base".into(), 0)]);
    assert_eq!(module.section_by_name(".kbind.slots").unwrap().kind(), SectionKind::ReadOnlyData);
}

#[test]
fn what_is_beside_an_export_is_found_by_the_distance() {
    let ask = |name: &str| record(Kind::Symbol, name);
    let host =
        Host::new().ask(ask("native_cpuid@_printk")).ask(ask("late_hook@gone|null_legacy_pic@_printk"));
    let bytes = make(host).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let pointers = relocations(&module, ".kbind.slots");
    let printk = String::from("_printk");
    assert_eq!(pointers, [(0, R_X86_64_64, printk.clone(), -0x20), (8, R_X86_64_64, printk, 0x40_01e0)]);
    assert!(
        problems(Host::new().ask(ask("twice@_printk"))).contains("2 symbols of this kernel are named twice")
    );
    assert!(problems(Host::new().ask(ask("native_cpuid@late_hook"))).contains("does not export late_hook"));
}

#[test]
fn a_missing_optional_import_ends_in_a_trap() {
    let gone = record(Kind::Import, "gone").flags(OPTIONAL).prototype(0, &[]);
    let bytes = make(Host::new().ask(gone).call("gone")).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    assert_eq!(relocations(&module, ".text").last().unwrap().2, "missing_import");
    assert_eq!(data(&module, ".text.missing"), [0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x0b]);
}

#[test]
fn return_sites_are_listed() {
    let bytes = make(Host::new().jump("__x86_return_thunk").call("__x86_return_thunk")).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let sites: Vec<_> = relocations(&module, ".return_sites").iter().map(|site| (site.0, site.3)).collect();
    assert_eq!(sites, [(0, 24), (4, 32)]);
    let text = data(&module, ".text");
    assert_eq!([text[24], text[32]], [0xe9, 0xe8]);
    assert!(module.section_by_name(".retpoline_sites").is_none());
}

#[test]
fn namespaces_are_imported() {
    let secret = record(Kind::Import, "secret").prototype(0, &[]);
    let bytes = make(Host::new().declare(secret).call("secret")).unwrap();
    let module = Module::parse(&*bytes).unwrap();
    let info = data(&module, ".modinfo");
    assert!(info.windows(18).any(|window| window == b"import_ns=SECRETS\0"));
}

#[test]
fn mismatches_are_refused() {
    let host = |record, name: &str| Host::new().declare(record).call(name);
    let import = |name: &str| record(Kind::Import, name);
    assert!(problems(host(import("gone").prototype(0, &[]), "gone")).contains("does not export gone"));
    let wrong = import("page_is_ram").prototype(4, &[8, 8]);
    assert!(problems(host(wrong, "page_is_ram")).contains("(pfn: 8)"));
    let undescribed = import("page_offset_base").prototype(0, &[]);
    assert!(problems(host(undescribed, "page_offset_base")).contains("cannot be checked"));
    assert!(problems(host(import("secret").flags(VARIADIC), "secret")).contains("variable"));
    assert!(problems(Host::new().call("page_is_ram")).contains("without declaring it"));
    assert!(problems(Host::new().call("memcpy")).contains("does not export memcpy"));
    assert!(problems(Host::new().ask(record(Kind::HookSymbol, "pv_ops\0\0secret"))).contains("guest object"));
}

#[test]
fn a_reserved_export_is_refused() {
    let mut kernel = Kernel::default();
    kernel.exports[3].2 = "module:kvm";
    let secret = record(Kind::Import, "secret").prototype(0, &[]);
    let host = Host::new().declare(secret).call("secret").write();
    let error = make_module(&KernelImage::parse(kernel.vmlinux()).unwrap(), &host).unwrap_err();
    assert!(error.to_string().contains("only kvm may use it"), "{error}");
}

#[test]
fn objects_that_make_no_sense_are_refused() {
    let bad =
        |bytes: Vec<u8>| match make_module(&KernelImage::parse(Kernel::default().vmlinux()).unwrap(), &bytes)
        {
            Err(LinkError::BadObject(reason)) => reason,
            other => panic!("{:?}", other.map(|bytes| bytes.len())),
        };
    assert!(bad(Kernel::default().vmlinux()).contains("not relocatable"));
    let got = Host::new().branch("page_is_ram", &[0xe8; 8], R_X86_64_GOTPCREL);
    assert!(bad(got.write()).contains("which the kernel does not apply"));
    let twice = Host::new().declare(record(Kind::Module, "other\0GPL\0Other"));
    assert!(bad(twice.write()).contains("not exactly one module"));
    assert!(bad(b"\x7fELF".to_vec()).contains("header"));
}

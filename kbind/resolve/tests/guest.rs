//! Joining of guest objects to kernels, with small ones made here.

mod support;

use kbind::format::{CHECKED, Kind, OPTIONAL, OVERLOAD, VARIADIC};
use kbind_resolve::{GuestLink, KernelImage, LinkError, Wait, link_guest};
use support::kernel::{BSS, DATA, Kernel, PV_OPS, TEXT};
use support::object::{CODE, SLOTS, guest, guest_at};
use support::record::{Record, record};

const CPUID: &str = "pv_ops+paravirt_patch_template.cpu.cpuid";

fn image() -> KernelImage {
    KernelImage::parse(Kernel::default().vmlinux()).unwrap()
}

fn link(records: &[Record]) -> GuestLink {
    link_guest(&image(), &guest(records)).unwrap()
}

/// The only slot's value after a record with it is answered.
fn value(record: Record) -> u64 {
    let link = link(&[record.slot(SLOTS + 8)]);
    u64::from_le_bytes(link.segments[1].bytes[8..16].try_into().unwrap())
}

/// The reason for which a record is refused.
fn reason(record: Record) -> String {
    match link_guest(&image(), &guest(&[record.slot(SLOTS)])) {
        Err(LinkError::Mismatch { problems, .. }) if problems.len() == 1 => problems[0].reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_object_is_taken_over_without_its_records() {
    let link = link(&[]);
    assert_eq!(link.entry, CODE + 8);
    assert_eq!(link.symbol("start"), Some(CODE + 8));
    assert_eq!(link.symbol("stop"), None);
    let vaddrs: Vec<_> = link.segments.iter().map(|segment| segment.vaddr).collect();
    assert_eq!(vaddrs, [CODE, SLOTS]);
    assert!(link.segments[0].executable && !link.segments[0].writable);
    assert!(!link.segments[1].executable && link.segments[1].writable);
}

#[test]
fn symbols_are_answered() {
    assert_eq!(value(record(Kind::Symbol, "native_cpuid")), TEXT + 0x10);
    assert_eq!(value(record(Kind::Symbol, "no_such|native_cpuid")), TEXT + 0x10);
    assert_eq!(
        value(record(Kind::Symbol, "pv_ops+paravirt_patch_template.cpu.write_idt_entry")),
        PV_OPS + 16
    );
    assert_eq!(value(record(Kind::Symbol, "cpu_number")), 0x40);
    assert_eq!(value(record(Kind::Symbol, "pv_ops+24")), PV_OPS + 24);
    assert_eq!(value(record(Kind::Symbol, "no_such").flags(OPTIONAL)), u64::MAX);
    assert!(reason(record(Kind::Symbol, "no_such|nor_this")).contains("no symbol nor_this"));
    assert!(reason(record(Kind::Symbol, "twice")).contains("2 symbols"));
    // Two of a name are a doubt, not an absence.
    assert!(reason(record(Kind::Symbol, "twice").flags(OPTIONAL)).contains("2 symbols"));
}

#[test]
fn functions_are_checked() {
    let register =
        |result, arguments: &[u8]| record(Kind::Function, "register_console").prototype(result, arguments);
    assert_eq!(value(register(0, &[8])), TEXT + 0x20);
    assert!(reason(register(0, &[4])).contains("(con: 8)"));
    assert!(reason(register(0, &[8, 8])).contains("(8, 8)"));
    assert!(reason(register(4, &[8])).contains("-> 4"));
    assert!(reason(register(0, &[4]).flags(OPTIONAL)).contains("(con: 8)"));
    let printk = record(Kind::Function, "_printk");
    assert_eq!(value(printk.clone().flags(VARIADIC)), TEXT + 0x30);
    assert!(reason(printk.prototype(4, &[8])).contains("..."));
    // Not described by BTF, so not checked.
    assert_eq!(value(record(Kind::Function, "native_cpuid").prototype(0, &[1])), TEXT + 0x10);
}

#[test]
fn layouts_are_answered() {
    let field = |path, size| record(Kind::Field, path).number(size);
    assert_eq!(value(field("console.flags", 2)), 8);
    assert_eq!(value(field("console.capability", 4)), 16);
    assert_eq!(value(field("console.capability", 16)), 16);
    assert_eq!(value(field("console.capability", 0)), 16);
    assert_eq!(value(field("console.gone|console.model", 4)), 32);
    assert_eq!(value(field("console.gone", 4).flags(OPTIONAL)), u64::MAX);
    assert!(reason(field("console.flags", 4)).contains("2 bytes long in this kernel, 4 expected"));
    assert!(reason(field("console.flags", 4).flags(OPTIONAL)).contains("4 expected"));
    let cpuid = |arity| field("pv_cpu_ops.cpuid", 8).arity(arity);
    assert_eq!(value(cpuid(2)), 0);
    assert!(reason(cpuid(3).flags(OPTIONAL)).contains("called with 2 arguments in this kernel, 3 expected"));
    assert!(reason(field("console.name", 8).arity(1)).contains("console.name is no pointer to a function"));
    assert_eq!(value(record(Kind::Size, "console").number(64)), 64);
    assert!(reason(record(Kind::Size, "console").number(63)).contains("63 at most fit"));
    assert_eq!(value(record(Kind::Enumerator, "MODE_REL")), 1);
    assert_eq!(value(record(Kind::Enumerator, "GONE").flags(OPTIONAL)), u64::MAX);
    assert_eq!(value(record(Kind::Parameter, "page_is_ram\0pfn").number(0)), 1);
    assert_eq!(value(record(Kind::Parameter, "page_is_ram\0page").number(0)), 0);
    assert_eq!(value(record(Kind::Parameter, "page_is_ram\0pfn").number(1)), 0);
}

#[test]
fn hooks_become_pokes() {
    let link = link(&[
        record(Kind::HookFunction, &format!("{CPUID}\0native_cpuid"))
            .flags(CHECKED)
            .arity(2)
            .target(CODE)
            .slot(SLOTS),
        record(Kind::HookSymbol, "legacy_pic\0default_legacy_pic\0null_legacy_pic").flags(CHECKED),
        record(Kind::HookValue, "pv_ops+16\x000").flags(CHECKED).number(7),
        record(Kind::HookFunction, "pv_ops+paravirt_patch_template.cpu.gone\0")
            .flags(OPTIONAL)
            .arity(0)
            .target(CODE),
    ]);
    let pokes: Vec<_> = link.pokes.iter().map(|poke| (poke.vaddr, poke.value)).collect();
    assert_eq!(pokes, [(PV_OPS, CODE), (DATA + 0x200, DATA + 0x210), (PV_OPS + 16, 7)]);
    assert_eq!(link.pokes[0].what, CPUID);
    assert_eq!(link.segments[1].bytes[..8], (TEXT + 0x10).to_le_bytes());
}

#[test]
fn hooks_are_checked() {
    let cpuid = |was: &str| {
        record(Kind::HookFunction, &format!("{CPUID}\0{was}")).flags(CHECKED).arity(2).target(CODE)
    };
    assert!(reason(cpuid("_printk|0")).contains("it holds native_cpuid in this kernel, _printk|0 expected"));
    assert!(reason(cpuid("native_cpuid").arity(3)).contains("called with 2 arguments"));
    let any = "pv_ops+paravirt_patch_template.cpu.any\0";
    assert!(link(&[record(Kind::HookFunction, any).arity(5).target(CODE)]).pokes.len() == 1);
    let narrow = record(Kind::HookFunction, "pv_ops+console.flags\0").arity(0).target(CODE);
    assert!(reason(narrow).contains("not a word"));
    let data = record(Kind::HookFunction, "pv_ops+console.name\0").arity(0).target(CODE);
    assert!(reason(data.flags(OPTIONAL)).contains("no pointer to a function"));
    let late = record(Kind::HookFunction, "late_hook\0").arity(0).target(CODE);
    assert!(reason(late).contains(&format!("{:#x} is not among the initial data", BSS + 8)));
}

#[test]
fn of_overloads_the_one_that_fits_is_taken() {
    let hook = |arity: u8, slot| {
        let hook = record(Kind::HookFunction, &format!("{CPUID}\0native_cpuid")).flags(CHECKED | OVERLOAD);
        hook.arity(arity).target(CODE + u64::from(arity)).slot(slot)
    };
    let both = link(&[hook(3, SLOTS), hook(2, SLOTS + 8)]);
    assert_eq!(both.pokes.iter().map(|poke| poke.value).collect::<Vec<_>>(), [CODE + 2]);
    assert_eq!(both.segments[1].bytes[..8], u64::MAX.to_le_bytes());
    assert_eq!(both.segments[1].bytes[8..16], (TEXT + 0x10).to_le_bytes());
    let field = |arity, slot| {
        record(Kind::Field, "pv_cpu_ops.write_idt_entry").number(8).flags(OVERLOAD).arity(arity).slot(slot)
    };
    let both = link(&[field(2, SLOTS), field(3, SLOTS + 8)]);
    assert_eq!(both.segments[1].bytes[..16], [[16, 0, 0, 0, 0, 0, 0, 0], [0xff; 8]].concat());
    let none = link_guest(&image(), &guest(&[hook(3, 0), hook(4, 0)])).unwrap_err().to_string();
    assert!(none.contains("2 arguments in this kernel, 3 exp") && none.contains("4 exp"), "{none}");
    let wrong = record(Kind::HookFunction, &format!("{CPUID}\0_printk")).flags(CHECKED | OVERLOAD).arity(2);
    assert!(reason(wrong.target(CODE)).contains("it holds native_cpuid"));
}

#[test]
fn waits_are_found_in_functions() {
    let mut vmlinux = Kernel::default().vmlinux();
    let text = memchr::memmem::find(&vmlinux, &[0xc3; 64]).unwrap();
    vmlinux[text + 0x35..][..2].copy_from_slice(&[0xf3, 0x90]);
    let image = KernelImage::parse(vmlinux).unwrap();
    let waits = |end: &str| record(Kind::Waits, &format!("_text\0{end}")).number(26);
    let link = link_guest(&image, &guest(&[waits("sym_1_sym")])).unwrap();
    assert_eq!(link.waits, [Wait { vaddr: TEXT + 0x35, instruction: [0xcd, 26] }]);
    assert!(reason(waits("sym_1_sym")).contains("no pause"));
    assert!(reason(waits("no_such")).contains("no symbol no_such"));
    assert!(reason(waits("pv_ops")).contains("no text from"));
}

#[test]
fn every_problem_is_listed() {
    let records =
        [record(Kind::Symbol, "no_such"), record(Kind::Size, "nothing"), record(Kind::Symbol, "pv_ops")];
    let error = link_guest(&image(), &guest(&records)).unwrap_err().to_string();
    assert!(error.starts_with("kernel 6.99.0-test does not fit"), "{error}");
    assert!(
        error.contains("\n  no_such: ") && error.contains("\n  nothing: ") && !error.contains("\n  pv_ops: ")
    );
}

#[test]
fn an_object_out_of_reach_is_refused() {
    let error = link_guest(&image(), &guest_at(0xffff_ffff_0000_0000, &[])).unwrap_err();
    assert!(error.to_string().contains("too far"), "{error}");
}

#[test]
fn objects_that_make_no_sense_are_refused() {
    let bad = |record: Record| match link_guest(&image(), &guest(&[record])) {
        Err(LinkError::BadObject(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(bad(record(Kind::Symbol, "pv_ops").slot(0x1000)).contains("slot"));
    assert!(bad(record(Kind::Symbol, "pv_ops").slot(SLOTS + 124)).contains("slot"));
    let outside = record(Kind::HookFunction, &format!("{CPUID}\0")).arity(2).target(SLOTS);
    assert!(bad(outside).contains("function"));
    assert!(bad(record(Kind::Symbol, "pv_ops").arity(99)).contains("record"));
    assert!(reason(record(Kind::Import, "pv_ops")).contains("host object"));
    assert!(matches!(link_guest(&image(), b"\x7fELF"), Err(LinkError::BadObject(_))));
}

//! A small kernel: no code, but all the tables.

use super::btf::Btf;
use super::elf::{Elf, Part, Section};
use super::kallsyms::{self, Order};
use super::pad;

pub const RELEASE: &str = "6.99.0-test";
pub const TEXT: u64 = 0xffff_ffff_8100_0000;
pub const RODATA: u64 = 0xffff_ffff_8120_0000;
pub const DATA: u64 = 0xffff_ffff_8140_0000;
pub const BSS: u64 = DATA + 0x1000;
/// Where `pv_ops` is; its member `cpu.write_idt_entry` is its third word.
pub const PV_OPS: u64 = DATA + 0x100;
pub const FILLERS: usize = 700;

pub struct Kernel {
    pub order: Order,
    pub symbols: Vec<(String, u64)>,
    pub btf: Option<Btf>,
    /// Words at addresses in the data segment.
    pub words: Vec<(u64, u64)>,
    /// Name, GPL only, namespace.
    pub exports: Vec<(&'static str, bool, &'static str)>,
    pub section_headers: bool,
    /// Symbols around each table.
    pub bounds: bool,
    /// One table of exports and one of their flags, as in 7.x, instead of two tables.
    pub flag_table: bool,
    pub crcs: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        let mut symbols = vec![
            ("Afixed_percpu_data".into(), 0),
            ("Acpu_number".into(), 0x40),
            ("T_text".into(), TEXT),
            ("Tnative_cpuid".into(), TEXT + 0x10),
            ("Tregister_console".into(), TEXT + 0x20),
            ("T_printk".into(), TEXT + 0x30),
            ("ttwice".into(), TEXT + 0x40),
            ("ttwice".into(), TEXT + 0x50),
            ("Dpv_ops".into(), PV_OPS),
            ("Dlegacy_pic".into(), DATA + 0x200),
            ("dnull_legacy_pic".into(), DATA + 0x210),
            ("ddefault_legacy_pic".into(), DATA + 0x220),
            ("B__bss_start".into(), BSS),
            ("blate_hook".into(), BSS + 8),
            ("B__bss_stop".into(), BSS + 0x1000),
        ];
        symbols.extend(
            (0..FILLERS).map(|index| (format!("tsym_{index}_sym"), TEXT + 0x1000 + 16 * index as u64)),
        );
        // A name whose length takes two bytes.
        symbols.push((format!("t{}", "long".repeat(40)), TEXT + 0x8000));
        symbols.sort_by_key(|&(_, address)| address);
        let words = vec![(PV_OPS, TEXT + 0x10), (DATA + 0x200, DATA + 0x220)];
        let exports = vec![
            ("module_layout", false, ""),
            ("_printk", false, ""),
            ("page_is_ram", true, ""),
            ("secret", true, "SECRETS"),
            ("page_offset_base", false, ""),
            ("__x86_return_thunk", false, ""),
        ];
        Self {
            order: Order::Last,
            symbols,
            btf: Some(types(false)),
            words,
            exports,
            section_headers: true,
            bounds: false,
            flag_table: false,
            crcs: true,
        }
    }
}

/// The types that the tests ask for.
/// `linked` chooses the form of `struct modversion_info`.
pub fn types(linked: bool) -> Btf {
    let mut btf = Btf::new();
    let (char, int, long) = (btf.int("char", 1), btf.int("int", 4), btf.int("unsigned long", 8));
    let (short, void) = (btf.int("short", 2), btf.pointer(0));
    let text = btf.pointer(char);
    let cpuid = btf.prototype(0, &[("leaf", int), ("subleaf", int)]);
    let cpuid = btf.pointer(cpuid);
    let cpu = btf.structure(
        "pv_cpu_ops",
        24,
        &[("cpuid", cpuid, 0), ("any", void, 64), ("write_idt_entry", cpuid, 128)],
    );
    btf.structure("paravirt_patch_template", 24, &[("cpu", cpu, 0)]);
    let words = btf.array(int, 4);
    let inner = btf.structure("", 20, &[("capability", words, 0), ("model", int, 128)]);
    let either = btf.union("", 20, &[("", inner, 0), ("raw", long, 0)]);
    let flags = btf.constant(short);
    btf.structure("console", 64, &[("name", text, 0), ("flags", flags, 64), ("", either, 128)]);
    btf.bit_structure("bits", 8, &[("one", int, 1 << 24), ("whole", int, 32)]);
    btf.structure("double", 8, &[("here", int, 0)]);
    btf.structure("double", 8, &[("here", int, 32)]);
    let alias = btf.structure("", 12, &[("x", int, 64)]);
    btf.typedef("alias_t", alias);
    btf.enumeration("mode", &[("MODE_ABS", 0), ("MODE_REL", 1), ("MODE_NONE", -3)]);
    btf.enumeration64("wide", &[("WIDE", 1 << 40)]);
    btf.function("register_console", 0, &[("con", void)]);
    btf.function("_printk", int, &[("fmt", text), ("", 0)]);
    btf.function("page_is_ram", int, &[("pfn", long)]);
    btf.function("secret", 0, &[]);
    let name = btf.array(char, 56);
    btf.structure("module", 256, &[("name", name, 64), ("init", void, 1024), ("exit", void, 1600)]);
    if linked {
        let name = btf.array(char, 0);
        btf.structure("modversion_info", 8, &[("next", int, 0), ("crc", int, 32), ("name", name, 64)]);
    } else {
        btf.structure("modversion_info", 64, &[("crc", long, 0), ("name", name, 64)]);
    }
    btf
}

impl Kernel {
    pub fn vmlinux(&self) -> Vec<u8> {
        let mut rodata = Part { vaddr: RODATA, paddr: 0x120_0000, flags: 4, bytes: Vec::new(), bss: 0 };
        let mut elf = Elf { entry: 0x100_0000, ..Elf::default() };
        rodata.bytes.extend(format!("Linux version {RELEASE} (test) #1\0").bytes());
        rodata.bytes.extend(format!("{RELEASE} SMP preempt mod_unload modversions \0").bytes());
        let mut section = |name: &'static str, bytes: &[u8], rest: &[u8]| {
            pad(&mut rodata.bytes, 8);
            elf.sections.push(Section { name, part: 1, start: rodata.bytes.len(), len: bytes.len() });
            rodata.bytes.extend(bytes);
            rodata.bytes.extend(rest);
        };
        if let Some(btf) = &self.btf {
            section(".BTF", &btf.write(), &[]);
        }
        section(".notes", b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd\0\0", &[]);
        let groups: &[_] = if self.flag_table { &[None] } else { &[Some(false), Some(true)] };
        for &gpl in groups {
            let [symtab, strings, crcs, flags] = self.exports(gpl);
            section(if gpl == Some(true) { "__ksymtab_gpl" } else { "__ksymtab" }, &symtab, &strings);
            if self.crcs {
                section(if gpl == Some(true) { "__kcrctab_gpl" } else { "__kcrctab" }, &crcs, &[]);
            }
            if self.flag_table {
                section("__kflagstab", &flags, &[]);
            }
        }
        let symbols = self.all_symbols(&elf.sections);
        pad(&mut rodata.bytes, 8);
        let tables = kallsyms::write(&symbols, self.order, RODATA + rodata.bytes.len() as u64);
        rodata.bytes.extend(tables);
        let text = Part { vaddr: TEXT, paddr: 0x100_0000, flags: 5, bytes: vec![0xc3; 0x9000], bss: 0 };
        elf.parts = vec![text, rodata, self.data()];
        if !self.section_headers {
            elf.sections.clear();
        }
        elf.write()
    }

    /// The symbols, with those around the sections if these are wanted.
    fn all_symbols(&self, sections: &[Section]) -> Vec<(String, u64)> {
        let mut symbols = self.symbols.clone();
        for section in sections.iter().filter(|_| self.bounds) {
            let name = section.name.trim_start_matches('.');
            let start = RODATA + section.start as u64;
            symbols.push((format!("R__start_{name}"), start));
            symbols.push((format!("R__stop_{name}"), start + section.len as u64));
        }
        symbols.sort_by_key(|&(_, address)| address);
        symbols
    }

    /// The table of `struct kernel_symbol`, the strings that follow it, the checksums and the flags.
    fn exports(&self, gpl: Option<bool>) -> [Vec<u8>; 4] {
        let chosen: Vec<_> =
            self.exports.iter().filter(|export| gpl.is_none_or(|gpl| export.1 == gpl)).collect();
        let flags = chosen.iter().map(|export| u8::from(export.1)).collect();
        let (mut table, mut crcs, mut strings) = (Vec::new(), Vec::new(), vec![0]);
        let base = 12 * chosen.len();
        for (index, (name, _, namespace)) in chosen.into_iter().enumerate() {
            let mut reference = |text: &str, field: usize| {
                let at = if text.is_empty() { 0 } else { strings.len() };
                if at != 0 {
                    strings.extend(text.bytes().chain([0]));
                }
                (base + at) as u32 - (12 * index + field) as u32
            };
            let words = [0, reference(name, 4), reference(namespace, 8)];
            table.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            crcs.extend((0x1000 + index as u32).to_le_bytes());
        }
        [table, strings, crcs, flags]
    }

    fn data(&self) -> Part {
        let mut bytes = vec![0; 0x1000];
        for &(address, value) in &self.words {
            bytes[(address - DATA) as usize..][..8].copy_from_slice(&value.to_le_bytes());
        }
        Part { vaddr: DATA, paddr: 0x140_0000, flags: 6, bytes, bss: 0x1000 }
    }
}

/// Wraps a payload the way a bzImage does; the build appends the unpacked size.
pub fn bzimage(payload: &[u8], unpacked: usize) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x201] = 0x6a;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    image[0x20e..0x210].copy_from_slice(&0x180u16.to_le_bytes());
    image[0x236] = 1;
    image[0x380..0x380 + RELEASE.len() + 8].copy_from_slice(format!("{RELEASE} (test)\0").as_bytes());
    image[0x248..0x24c].copy_from_slice(&0x40u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    image.resize(1024 + 0x40, 0);
    image.extend(payload);
    image.extend((unpacked as u32).to_le_bytes());
    image
}

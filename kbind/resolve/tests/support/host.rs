//! A small host object, as a compiler writes it.

use super::record::{Record, record};
use kbind::format::{Kind, OPTIONAL, VARIADIC};
use object::elf::{R_X86_64_64, R_X86_64_PLT32, RelocationType};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// `call` of a symbol that is not here, then `jmp` likewise: the text is made of these.
const CALL: [u8; 8] = [0xe8, 0, 0, 0, 0, 0x90, 0x90, 0x90];
const JMP: [u8; 8] = [0xe9, 0, 0, 0, 0, 0x90, 0x90, 0x90];

pub struct Host {
    elf: Object<'static>,
    text: SectionId,
    slots: SectionId,
    meta: SectionId,
}

impl Host {
    /// An object with init and exit functions and a record that says so.
    pub fn new() -> Self {
        let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = elf.add_section(Vec::new(), b".text.start".to_vec(), SectionKind::Text);
        let slots = elf.add_section(Vec::new(), b".kbind.slots".to_vec(), SectionKind::Data);
        let meta = elf.add_section(Vec::new(), b".kbind.meta".to_vec(), SectionKind::ReadOnlyData);
        let bss = elf.add_section(Vec::new(), b".bss.room".to_vec(), SectionKind::UninitializedData);
        elf.append_section_bss(bss, 4096, 64);
        let mut host = Self { elf, text, slots, meta };
        let (init, exit) = (host.function("init", &CALL), host.function("exit", &CALL));
        let at = host.append(record(Kind::Module, "tiny\0GPL\0A test"));
        host.point(at + 48, init);
        host.point(at + 56, exit);
        host
    }

    fn function(&mut self, name: &str, code: &[u8]) -> SymbolId {
        let value = self.elf.append_section_data(self.text, code, 16);
        self.symbol(name, SymbolSection::Section(self.text), value)
    }

    fn symbol(&mut self, name: &str, section: SymbolSection, value: u64) -> SymbolId {
        self.elf.add_symbol(Symbol {
            name: name.into(),
            value,
            size: 0,
            kind: if section == SymbolSection::Undefined { SymbolKind::Unknown } else { SymbolKind::Text },
            scope: if section == SymbolSection::Undefined {
                SymbolScope::Unknown
            } else {
                SymbolScope::Linkage
            },
            weak: false,
            section,
            flags: SymbolFlags::None,
        })
    }

    fn append(&mut self, record: Record) -> u64 {
        self.elf.append_section_data(self.meta, &record.write(), 8)
    }

    fn relocate(
        &mut self,
        section: SectionId,
        offset: u64,
        symbol: SymbolId,
        r_type: RelocationType,
        addend: i64,
    ) {
        let flags = RelocationFlags::Elf { r_type };
        self.elf.add_relocation(section, Relocation { offset, symbol, addend, flags }).unwrap();
    }

    fn point(&mut self, at: u64, symbol: SymbolId) {
        self.relocate(self.meta, at, symbol, R_X86_64_64, 0);
    }

    /// A record with a slot.
    pub fn ask(mut self, record: Record) -> Self {
        let slot = self.elf.append_section_data(self.slots, &[0xff; 8], 8);
        let symbol = self.elf.section_symbol(self.slots);
        let at = self.append(record);
        self.relocate(self.meta, at + 40, symbol, R_X86_64_64, slot as i64);
        self
    }

    /// A record without a slot.
    pub fn declare(mut self, record: Record) -> Self {
        self.append(record);
        self
    }

    /// A call of an undefined symbol.
    pub fn call(self, name: &str) -> Self {
        self.branch(name, &CALL, R_X86_64_PLT32)
    }

    /// A jump to an undefined symbol.
    pub fn jump(self, name: &str) -> Self {
        self.branch(name, &JMP, R_X86_64_PLT32)
    }

    pub fn branch(mut self, name: &str, code: &[u8], kind: RelocationType) -> Self {
        let at = self.elf.append_section_data(self.text, code, 8);
        let symbol = self.symbol(name, SymbolSection::Undefined, 0);
        self.relocate(self.text, at + 1, symbol, kind, -4);
        self
    }

    pub fn write(self) -> Vec<u8> {
        self.elf.write().unwrap()
    }
}

/// A declaration of `printk`, which all kernels export.
pub fn printk() -> Record {
    record(Kind::Import, "printk|_printk").flags(VARIADIC)
}

pub fn page_is_ram() -> Record {
    record(Kind::Import, "page_is_ram").flags(OPTIONAL).prototype(4, &[8])
}

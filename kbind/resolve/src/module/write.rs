//! Writes the module.

use super::bind::{Binding, Bound, Location, THIS_MODULE, Value};
use super::modinfo::Info;
use super::read::{HostObject, Place, Section};
use super::{sites, unwind};
use crate::image::KernelImage;
use kbind::format::{META_SECTION, SLOT_SECTION};
use object::elf::{R_X86_64_64, R_X86_64_PC32, RelocationType};
use object::write::{Mangling, Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};
use std::collections::HashMap;

/// `endbr64; ud2`: where a call to a missing function ends.
const STUB: [u8; 6] = [0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x0b];
/// Alignment of `struct module` (a cache line).
const MODULE_ALIGN: u64 = 64;

struct Output<'a> {
    elf: Object<'static>,
    host: &'a HostObject,
    bound: &'a Bound,
    /// Where each section of the object went.
    places: HashMap<usize, (SectionId, u64)>,
    imports: HashMap<String, SymbolId>,
    stub: Option<SymbolId>,
    this_module: SymbolId,
}

pub fn write(image: &KernelImage, host: &HostObject, bound: &Bound, info: &Info) -> Result<Vec<u8>, String> {
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    elf.set_mangling(Mangling::None);
    let (section, this_module) = describe(&mut elf, info);
    let mut output =
        Output { elf, host, bound, places: HashMap::new(), imports: HashMap::new(), stub: None, this_module };
    output.copy_sections();
    output.name_functions();
    output.relocate_all()?;
    output.fill_slots()?;
    output.point(section, info.init, bound.module.init)?;
    if let Some(exit) = info.exit {
        output.point(section, exit, bound.module.exit)?;
    }
    output.list_sites()?;
    output.unwind(image)?;
    output.elf.write().map_err(|error| error.to_string())
}

/// Adds the sections that do not depend on the object; returns that of `struct module` and its symbol.
fn describe(elf: &mut Object, info: &Info) -> (SectionId, SymbolId) {
    let mut add = |name: &str, kind, data: &[u8], align| {
        let section = elf.add_section(Vec::new(), name.into(), kind);
        elf.append_section_data(section, data, align);
        section
    };
    add(".modinfo", SectionKind::ReadOnlyData, &info.modinfo, 1);
    if let Some(versions) = &info.versions {
        add("__versions", SectionKind::ReadOnlyData, versions, 8);
    }
    let section = add(".gnu.linkonce.this_module", SectionKind::Data, &info.this_module, MODULE_ALIGN);
    let symbol = Symbol {
        scope: SymbolScope::Dynamic,
        ..local(THIS_MODULE, SymbolKind::Data, section, 0, info.this_module.len() as u64)
    };
    let symbol = elf.add_symbol(symbol);
    (section, symbol)
}

fn local(name: &str, kind: SymbolKind, section: SectionId, value: u64, size: u64) -> Symbol {
    Symbol {
        name: name.into(),
        value,
        size,
        kind,
        scope: SymbolScope::Compilation,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}

/// The name of the section in the module: one for each kind, as a linker would do it.
fn merged_name(name: &str) -> &str {
    const GROUPS: [&str; 5] = [".text", ".rodata", ".data.rel.ro", ".data", ".bss"];
    let in_group = |group: &&&str| {
        name.strip_prefix(**group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    GROUPS.iter().find(in_group).copied().unwrap_or(name)
}

fn kind(section: &Section) -> SectionKind {
    // Slots and relocated constants are written once, by the loader, before protection is set.
    let constant = section.name == SLOT_SECTION || section.name.starts_with(".data.rel.ro");
    match section {
        _ if section.executable => SectionKind::Text,
        _ if section.zeroed => SectionKind::UninitializedData,
        _ if section.writable && !constant => SectionKind::Data,
        _ => SectionKind::ReadOnlyData,
    }
}

impl Output<'_> {
    fn copy_sections(&mut self) {
        let mut merged: HashMap<(&str, SectionKind), SectionId> = HashMap::new();
        for (index, section) in self.host.sections.iter().enumerate() {
            if section.name == META_SECTION || Some(index) == self.host.frames {
                continue;
            }
            let (name, kind) = (merged_name(&section.name), kind(section));
            let id = *merged
                .entry((name, kind))
                .or_insert_with(|| self.elf.add_section(Vec::new(), name.into(), kind));
            let offset = if section.zeroed {
                self.elf.append_section_bss(id, section.size, section.align)
            } else {
                self.elf.append_section_data(id, &section.data, section.align)
            };
            self.places.insert(index, (id, offset));
        }
    }

    /// Names of functions, for traces.
    fn name_functions(&mut self) {
        for symbol in self.host.symbols.iter().filter(|symbol| symbol.function && !symbol.name.is_empty()) {
            let Place::Section(section) = symbol.place else { continue };
            let Some(&(id, offset)) = self.places.get(&section) else { continue };
            self.elf.add_symbol(local(
                &symbol.name,
                SymbolKind::Text,
                id,
                offset + symbol.value,
                symbol.size,
            ));
        }
    }

    fn import(&mut self, name: &str) -> SymbolId {
        let elf = &mut self.elf;
        *self.imports.entry(name.into()).or_insert_with(|| {
            elf.add_symbol(Symbol {
                name: name.into(),
                value: 0,
                size: 0,
                kind: SymbolKind::Unknown,
                scope: SymbolScope::Unknown,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            })
        })
    }

    fn stub(&mut self) -> SymbolId {
        *self.stub.get_or_insert_with(|| {
            let section = self.elf.add_section(Vec::new(), b".text.missing".to_vec(), SectionKind::Text);
            self.elf.append_section_data(section, &STUB, 16);
            self.elf.add_symbol(local("missing_import", SymbolKind::Text, section, 0, STUB.len() as u64))
        })
    }

    fn place(&self, (section, offset): Location) -> Result<(SectionId, u64), String> {
        let &(id, start) = self.places.get(&section).ok_or("it refers to a section that is not loaded")?;
        Ok((id, start.checked_add(offset).ok_or("an offset wraps")?))
    }

    fn relocate_all(&mut self) -> Result<(), String> {
        let host = self.host;
        for (index, section) in host.sections.iter().enumerate() {
            let Some(&(id, start)) = self.places.get(&index) else { continue };
            for relocation in &section.relocations {
                let (symbol, addend) = self.target(relocation.symbol, relocation.addend)?;
                self.relocate(id, start + relocation.offset, relocation.kind, symbol, addend)?;
            }
        }
        Ok(())
    }

    /// The symbol and addend in the module for those in the object.
    fn target(&mut self, index: usize, addend: i64) -> Result<(SymbolId, i64), String> {
        match self.bound.symbols.get(&index) {
            Some(Binding::Export(name)) => return Ok((self.import(name), addend)),
            Some(Binding::Stub) => return Ok((self.stub(), addend)),
            Some(Binding::ThisModule) => return Ok((self.this_module, addend)),
            None => {}
        }
        let symbol = self.host.symbols.get(index).ok_or("it has no such symbol")?;
        let Place::Section(section) = symbol.place else {
            return Err(format!("it refers to {:?}, which is nowhere", symbol.name));
        };
        let (id, offset) = self.place((section, symbol.value))?;
        let offset = i64::try_from(offset).map_err(|_| "an offset wraps")?;
        Ok((self.elf.section_symbol(id), addend.checked_add(offset).ok_or("an offset wraps")?))
    }

    fn relocate(
        &mut self,
        section: SectionId,
        offset: u64,
        r_type: RelocationType,
        symbol: SymbolId,
        addend: i64,
    ) -> Result<(), String> {
        let relocation = Relocation { offset, symbol, addend, flags: RelocationFlags::Elf { r_type } };
        self.elf.add_relocation(section, relocation).map_err(|error| error.to_string())
    }

    fn fill_slots(&mut self) -> Result<(), String> {
        for (location, value) in &self.bound.slots {
            let (section, offset) = self.place(*location)?;
            let at = usize::try_from(offset).map_err(|_| "an offset wraps")?;
            let number = match value {
                Value::Number(number) => *number,
                Value::Export(..) => 0,
            };
            let data = self.elf.section_mut(section).data_mut().get_mut(at..);
            let word = data.and_then(|data| data.first_chunk_mut::<8>()).ok_or("a slot is outside")?;
            word.copy_from_slice(&number.to_le_bytes());
            if let Value::Export(name, add) = value {
                let symbol = self.import(name);
                self.relocate(section, offset, R_X86_64_64, symbol, add.cast_signed())?;
            }
        }
        Ok(())
    }

    /// Writes the address of a place of the object into a word.
    fn point(&mut self, section: SectionId, offset: u64, target: Location) -> Result<(), String> {
        let (id, value) = self.place(target)?;
        let symbol = self.elf.section_symbol(id);
        let addend = i64::try_from(value).map_err(|_| "an offset wraps")?;
        self.relocate(section, offset, R_X86_64_64, symbol, addend)
    }

    /// A section of 32-bit distances to places of the object.
    fn distances(&mut self, name: &str, targets: &[Location]) -> Result<(), String> {
        if targets.is_empty() {
            return Ok(());
        }
        let section = self.elf.add_section(Vec::new(), name.into(), SectionKind::ReadOnlyData);
        self.elf.append_section_data(section, &vec![0; 4 * targets.len()], 4);
        for (index, &target) in targets.iter().enumerate() {
            let (id, value) = self.place(target)?;
            let symbol = self.elf.section_symbol(id);
            let addend = i64::try_from(value).map_err(|_| "an offset wraps")?;
            self.relocate(section, 4 * index as u64, R_X86_64_PC32, symbol, addend)?;
        }
        Ok(())
    }

    fn list_sites(&mut self) -> Result<(), String> {
        let found = sites::find(self.host, &self.bound.symbols);
        self.distances(".return_sites", &found.returns)?;
        self.distances(".retpoline_sites", &found.retpolines)
    }

    fn unwind(&mut self, image: &KernelImage) -> Result<(), String> {
        let Some(table) = unwind::table(image, self.host)? else { return Ok(()) };
        self.distances(".orc_unwind_ip", &table.places)?;
        let section = self.elf.add_section(Vec::new(), b".orc_unwind".to_vec(), SectionKind::ReadOnlyData);
        self.elf.append_section_data(section, &table.entries, 2);
        let section = self.elf.add_section(Vec::new(), b".orc_header".to_vec(), SectionKind::ReadOnlyData);
        self.elf.append_section_data(section, &table.header, 1);
        Ok(())
    }
}

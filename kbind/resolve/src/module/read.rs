//! Reads the relocatable host object.

use crate::bytes::slice;
use crate::records::{self, Record};
use kbind::format::META_SECTION;
use object::LittleEndian;
use object::elf::{
    ET_REL, FileHeader64, R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32,
    RelocationType, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_UNDEF, SHT_NOBITS, SHT_NOTE,
    SHT_SYMTAB, STT_FUNC,
};
use object::read::SectionIndex;
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};

type Elf = FileHeader64<LittleEndian>;

/// The relocations that the kernel's module loader knows and a compiler emits for it.
const SUPPORTED: [RelocationType; 5] =
    [R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_32, R_X86_64_32S];

pub struct Relocation {
    pub offset: u64,
    /// Index in [`HostObject::symbols`].
    pub symbol: usize,
    pub addend: i64,
    pub kind: RelocationType,
}

pub struct Section {
    pub name: String,
    pub executable: bool,
    pub writable: bool,
    /// Empty for zeroed memory.
    pub data: Vec<u8>,
    pub size: u64,
    pub zeroed: bool,
    pub align: u64,
    pub relocations: Vec<Relocation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Undefined,
    Absolute,
    /// Index in [`HostObject::sections`].
    Section(usize),
    /// In a section that is not loaded.
    Elsewhere,
}

pub struct Symbol {
    pub name: String,
    pub place: Place,
    pub value: u64,
    pub size: u64,
    pub function: bool,
}

/// A record and the section (by index) that holds it.
pub struct Located {
    pub record: Record,
    section: usize,
}

pub struct HostObject {
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
    pub records: Vec<Located>,
    /// Index of the `.eh_frame` section.
    pub frames: Option<usize>,
}

impl HostObject {
    /// The section and offset that an address in a record leads to.
    pub fn pointer(&self, located: &Located, field: usize) -> Option<(usize, u64)> {
        let at = (located.record.at + field) as u64;
        let section = self.sections.get(located.section)?;
        let relocation = section.relocations.iter().find(|relocation| relocation.offset == at)?;
        let symbol = self.symbols.get(relocation.symbol)?;
        match symbol.place {
            Place::Section(section) => Some((section, symbol.value.checked_add_signed(relocation.addend)?)),
            _ => None,
        }
    }
}

pub fn parse(object: &[u8]) -> Result<HostObject, String> {
    let text = |error: object::read::Error| error.to_string();
    let header = Elf::parse(object).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    if header.e_type(endian) != ET_REL {
        return Err("the host object is not relocatable".into());
    }
    let table = header.sections(endian, object).map_err(text)?;
    let symbols = table.symbols(endian, object, SHT_SYMTAB).map_err(text)?;
    // Position of each section of the file among those that are kept.
    let mut kept = vec![None; table.len()];
    let mut sections: Vec<Section> = Vec::new();
    for (index, section) in table.enumerate() {
        if section.sh_flags(endian).contains(SHF_ALLOC) && section.sh_type(endian) != SHT_NOTE {
            kept[index.0] = Some(sections.len());
            sections.push(read_section(&table, section, endian, object)?);
        }
    }
    read_relocations(&table, &kept, &mut sections, endian, object)?;
    let symbols = read_symbols(&symbols, &kept, endian)?;
    let mut records = Vec::new();
    for (section, data) in sections.iter().enumerate().filter(|(_, section)| section.name == META_SECTION) {
        records.extend(records::parse(&data.data)?.into_iter().map(|record| Located { record, section }));
    }
    let frames = sections.iter().position(|section| section.name == ".eh_frame");
    check(&sections, &symbols)?;
    Ok(HostObject { sections, symbols, records, frames })
}

fn read_section(
    table: &SectionTable<Elf>,
    section: &object::elf::SectionHeader64<LittleEndian>,
    endian: LittleEndian,
    object: &[u8],
) -> Result<Section, String> {
    let text = |error: object::read::Error| error.to_string();
    let name = table.section_name(endian, section).map_err(text)?;
    let flags = section.sh_flags(endian);
    let align = section.sh_addralign(endian).max(1);
    if !align.is_power_of_two() || align > 1 << 20 {
        return Err("a section has an impossible alignment".into());
    }
    let size = section.sh_size(endian);
    if size > 1 << 28 {
        return Err("a section is absurdly large".into());
    }
    let executable = flags.contains(SHF_EXECINSTR);
    let zeroed = section.sh_type(endian) == SHT_NOBITS;
    if executable && zeroed {
        return Err("a section of code is without its bytes".into());
    }
    Ok(Section {
        name: String::from_utf8_lossy(name).into_owned(),
        executable,
        writable: flags.contains(SHF_WRITE),
        data: section.data(endian, object).map_err(text)?.to_vec(),
        size,
        zeroed,
        align,
        relocations: Vec::new(),
    })
}

fn read_relocations(
    table: &SectionTable<Elf>,
    kept: &[Option<usize>],
    sections: &mut [Section],
    endian: LittleEndian,
    object: &[u8],
) -> Result<(), String> {
    for section in table.iter() {
        let Some((rela, _)) = section.rela(endian, object).map_err(|error| error.to_string())? else {
            continue;
        };
        let SectionIndex(target) = section.info_link(endian);
        let Some(target) = kept.get(target).copied().flatten().and_then(|index| sections.get_mut(index))
        else {
            continue;
        };
        target.relocations.extend(rela.iter().map(|rela| Relocation {
            offset: rela.r_offset(endian),
            symbol: rela.r_sym(endian, false) as usize,
            addend: rela.r_addend(endian),
            kind: rela.r_type(endian, false),
        }));
    }
    Ok(())
}

fn read_symbols(
    table: &SymbolTable<Elf>,
    kept: &[Option<usize>],
    endian: LittleEndian,
) -> Result<Vec<Symbol>, String> {
    let read = |(index, symbol): (object::SymbolIndex, &object::elf::Sym64<LittleEndian>)| {
        let name = table.symbol_name(endian, symbol).map_err(|error| error.to_string())?;
        let place = match table.symbol_section(endian, symbol, index).map_err(|error| error.to_string())? {
            Some(SectionIndex(section)) => {
                kept.get(section).copied().flatten().map_or(Place::Elsewhere, Place::Section)
            }
            None if symbol.st_shndx(endian) == SHN_UNDEF => Place::Undefined,
            None if symbol.st_shndx(endian) == SHN_ABS => Place::Absolute,
            None => Place::Elsewhere,
        };
        Ok(Symbol {
            name: String::from_utf8_lossy(name).into_owned(),
            place,
            value: symbol.st_value(endian),
            size: symbol.st_size(endian),
            function: symbol.st_type() == STT_FUNC,
        })
    };
    // The null symbol stays, so that numbers are those of the file.
    let null = Symbol { name: String::new(), place: Place::Elsewhere, value: 0, size: 0, function: false };
    std::iter::once(Ok(null)).chain(table.enumerate().filter(|(index, _)| index.0 != 0).map(read)).collect()
}

fn check(sections: &[Section], symbols: &[Symbol]) -> Result<(), String> {
    for section in sections {
        for relocation in &section.relocations {
            let what = || format!("the relocation at {}+{:#x}", section.name, relocation.offset);
            if !SUPPORTED.contains(&relocation.kind) {
                return Err(format!(
                    "{} is of kind {:?}, which the kernel does not apply",
                    what(),
                    relocation.kind
                ));
            }
            let width = if relocation.kind == R_X86_64_64 { 8 } else { 4 };
            let inside =
                usize::try_from(relocation.offset).ok().and_then(|at| slice(&section.data, at, width));
            if inside.is_none() || symbols.get(relocation.symbol).is_none() {
                return Err(format!("{} leads out of it", what()));
            }
        }
    }
    Ok(())
}

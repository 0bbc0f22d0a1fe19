//! A file of names and addresses, for a debugger.

use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};
use object::{Endianness, write::Error};

/// A name for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolAt {
    /// The name, not empty.
    pub name: Vec<u8>,
    /// Virtual address.
    pub address: u64,
    /// It is the address of code.
    pub code: bool,
}

/// An executable without contents that names addresses: what `gdb` takes with `add-symbol-file`.
///
/// # Errors
/// A name that holds a zero byte, or a file of more than 4 GiB.
pub fn symbol_file(symbols: &[SymbolAt]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    let text_name = writer.add_section_name(b".text");
    writer.reserve_null_section_index();
    let text = writer.reserve_section_index();
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    writer.reserve_null_symbol_index();
    let names: Vec<_> = symbols
        .iter()
        .map(|symbol| {
            writer.reserve_symbol_index(symbol.code.then_some(text));
            writer.add_string(&symbol.name)
        })
        .collect();
    writer.reserve_symtab();
    writer.reserve_strtab()?;
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();
    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_null_symbol();
    for (symbol, name) in symbols.iter().zip(names) {
        let st_name = writer.string_offset(Some(name));
        let kind = if symbol.code { elf::STT_FUNC } else { elf::STT_OBJECT };
        writer.write_symbol(&Sym {
            section: symbol.code.then_some(text.0),
            st_name,
            st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, kind),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SHN_ABS,
            st_value: symbol.address,
            st_size: 0,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    let sh_name = writer.section_name_offset(Some(text_name));
    writer.write_section_header(&text_header(sh_name, symbols));
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(bytes)
}

/// The section that holds all code, from the first symbol to the page of the last.
fn text_header(sh_name: u32, symbols: &[SymbolAt]) -> SectionHeader {
    const PAGE: u64 = 4096;
    let code = || symbols.iter().filter(|symbol| symbol.code).map(|symbol| symbol.address);
    let sh_addr = code().min().unwrap_or(0);
    SectionHeader {
        sh_name,
        sh_type: elf::SHT_NOBITS,
        sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
        sh_addr,
        sh_offset: 0,
        sh_size: (code().max().unwrap_or(0) - sh_addr).saturating_add(PAGE).min(u64::MAX - sh_addr),
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::ElfFile64;
    use object::{Object, ObjectSymbol};

    #[test]
    fn names_and_addresses_come_back() {
        let symbol = |name: &str, address, code| SymbolAt { name: name.into(), address, code };
        let symbols = [
            symbol("enter", 0xffff_ffff_c000_1000, true),
            symbol("leave", 0xffff_ffff_f80c_0000, true),
            symbol("page", 0x40, false),
        ];
        let bytes = symbol_file(&symbols).unwrap();
        let file = ElfFile64::<Endianness>::parse(&*bytes).unwrap();
        let back: Vec<_> = file
            .symbols()
            .map(|found| symbol(found.name().unwrap(), found.address(), found.section_index().is_some()))
            .collect();
        assert_eq!(back, symbols);
    }

    #[test]
    fn a_file_without_symbols_is_one() {
        let bytes = symbol_file(&[]).unwrap();
        assert_eq!(ElfFile64::<Endianness>::parse(&*bytes).unwrap().symbols().count(), 0);
    }
}

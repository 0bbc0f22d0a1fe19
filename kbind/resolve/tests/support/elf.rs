//! A minimal linked ELF file.

use super::pad;

pub struct Part {
    pub vaddr: u64,
    pub paddr: u64,
    pub flags: u32,
    pub bytes: Vec<u8>,
    /// Zeroed bytes behind.
    pub bss: u64,
}

/// A named piece of a part.
pub struct Section {
    pub name: &'static str,
    pub part: usize,
    pub start: usize,
    pub len: usize,
}

#[derive(Default)]
pub struct Elf {
    pub entry: u64,
    pub parts: Vec<Part>,
    pub sections: Vec<Section>,
    pub symbols: Vec<(&'static str, u64)>,
}

const HEADER: usize = 64;
const PROGRAM: usize = 56;

impl Elf {
    pub fn write(&self) -> Vec<u8> {
        let mut file = vec![0; HEADER + PROGRAM * self.parts.len()];
        let mut starts = Vec::new();
        for part in &self.parts {
            pad(&mut file, 4096);
            starts.push(file.len());
            file.extend(&part.bytes);
        }
        for (index, part) in self.parts.iter().enumerate() {
            let header = program(part, starts[index] as u64);
            file[HEADER + PROGRAM * index..][..PROGRAM].copy_from_slice(&header);
        }
        pad(&mut file, 8);
        let table = self.section_headers(&mut file, &starts);
        let start = file.len() as u64;
        file.extend(&table);
        let header = self.header(start, (table.len() / HEADER) as u16);
        file[..HEADER].copy_from_slice(&header);
        file
    }

    fn header(&self, sections: u64, count: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        // ET_EXEC, EM_X86_64
        header.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        header.extend(self.entry.to_le_bytes());
        header.extend((HEADER as u64).to_le_bytes());
        header.extend(sections.to_le_bytes());
        header.extend(0u32.to_le_bytes());
        let halves = [HEADER as u16, PROGRAM as u16, self.parts.len() as u16, 64, count, count - 1];
        header.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        header
    }

    fn section_headers(&self, file: &mut Vec<u8>, starts: &[usize]) -> Vec<u8> {
        let mut names = vec![0];
        let mut name = |text: &str| {
            let at = names.len() as u32;
            names.extend(text.bytes().chain([0]));
            at
        };
        let mut table = vec![0; 64];
        for section in &self.sections {
            let vaddr = self.parts[section.part].vaddr + section.start as u64;
            let offset = (starts[section.part] + section.start) as u64;
            table.extend(header(name(section.name), 1, [2, vaddr, offset, section.len as u64], [0, 0], 0));
        }
        let (symtab, strtab) = self.symbol_tables();
        let strings = 2 + self.sections.len() as u32;
        let at = file.len() as u64;
        file.extend(&symtab);
        table.extend(header(name(".symtab"), 2, [0, 0, at, symtab.len() as u64], [strings, 1], 24));
        let at = file.len() as u64;
        file.extend(&strtab);
        table.extend(header(name(".strtab"), 3, [0, 0, at, strtab.len() as u64], [0, 0], 0));
        let (index, at) = (name(".shstrtab"), file.len() as u64);
        file.extend(&names);
        table.extend(header(index, 3, [0, 0, at, names.len() as u64], [0, 0], 0));
        pad(file, 8);
        table
    }

    fn symbol_tables(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut symtab, mut strtab) = (vec![0; 24], vec![0]);
        for &(name, value) in &self.symbols {
            symtab.extend((strtab.len() as u32).to_le_bytes());
            // STB_GLOBAL, STT_FUNC, section 1
            symtab.extend([0x12, 0, 1, 0]);
            symtab.extend(value.to_le_bytes());
            symtab.extend(0u64.to_le_bytes());
            strtab.extend(name.bytes().chain([0]));
        }
        (symtab, strtab)
    }
}

fn program(part: &Part, offset: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(1u32.to_le_bytes());
    header.extend(part.flags.to_le_bytes());
    let len = part.bytes.len() as u64;
    for value in [offset, part.vaddr, part.paddr, len, len + part.bss, 4096] {
        header.extend(value.to_le_bytes());
    }
    header
}

/// `place` is flags, address, offset and size; `links` are `sh_link` and `sh_info`.
fn header(name: u32, kind: u32, place: [u64; 4], links: [u32; 2], entry: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(name.to_le_bytes());
    header.extend(kind.to_le_bytes());
    header.extend(place.iter().flat_map(|value| value.to_le_bytes()));
    header.extend(links.iter().flat_map(|value| value.to_le_bytes()));
    header.extend(8u64.to_le_bytes());
    header.extend(entry.to_le_bytes());
    header
}

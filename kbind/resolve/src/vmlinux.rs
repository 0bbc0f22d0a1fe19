//! The ELF file of a kernel: segments, sections, and the bytes behind an address.

use crate::bytes::slice;
use crate::error::ImageError;
use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use std::ops::Range;

/// A part of the kernel that is loaded as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Link address, virtual.
    pub vaddr: u64,
    /// Link address, physical.
    pub paddr: u64,
    /// Its bytes in the vmlinux.
    pub file: Range<usize>,
    /// Bytes in memory; what exceeds the file is zero.
    pub memsz: u64,
    /// `PF_X` = 1, `PF_W` = 2, `PF_R` = 4.
    pub flags: u32,
}

pub struct Section {
    name: String,
    pub vaddr: u64,
    pub file: Range<usize>,
}

pub struct Vmlinux {
    pub bytes: Vec<u8>,
    pub entry: u64,
    pub segments: Vec<Segment>,
    sections: Vec<Section>,
}

fn bad(reason: impl ToString) -> ImageError {
    ImageError::BadElf(reason.to_string())
}

impl Vmlinux {
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        if bytes.get(4) == Some(&1) {
            return Err(ImageError::Not64Bit("its ELF file is a 32-bit one"));
        }
        let header = FileHeader64::<LittleEndian>::parse(&*bytes).map_err(bad)?;
        let endian = header.endian().map_err(|_| ImageError::Not64Bit("its ELF file is big endian"))?;
        if header.e_machine(endian) != EM_X86_64 {
            return Err(ImageError::Not64Bit("its ELF file is for another machine"));
        }
        let entry = header.e_entry(endian);
        let mut segments = Vec::new();
        for program in header.program_headers(endian, &*bytes).map_err(bad)? {
            if program.p_type(endian) == PT_LOAD {
                segments.push(segment(program, endian, bytes.len())?);
            }
        }
        if segments.is_empty() {
            return Err(bad("it has no segment to load"));
        }
        let sections = sections(header, endian, &bytes);
        Ok(Self { entry, segments, sections, bytes })
    }

    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The bytes in the file for a range of addresses.
    pub fn read(&self, vaddr: u64, len: usize) -> Option<&[u8]> {
        slice(&self.bytes, self.offset(vaddr, len)?, len)
    }

    fn offset(&self, vaddr: u64, len: usize) -> Option<usize> {
        self.segments.iter().find_map(|segment| {
            let inside = usize::try_from(vaddr.checked_sub(segment.vaddr)?).ok()?;
            let start = segment.file.start.checked_add(inside)?;
            (start.checked_add(len)? <= segment.file.end).then_some(start)
        })
    }

    /// The address that a byte of the file is loaded to.
    pub fn vaddr_of(&self, offset: usize) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.file.contains(&offset))?;
        segment.vaddr.checked_add((offset - segment.file.start) as u64)
    }

    /// True when the address is loaded, zeroed memory included.
    pub fn contains(&self, vaddr: u64) -> bool {
        self.segments.iter().any(|segment| vaddr.wrapping_sub(segment.vaddr) < segment.memsz)
    }

    /// Addresses from the first to the last executable byte.
    pub fn text(&self) -> Option<Range<u64>> {
        let executable = self.segments.iter().filter(|segment| segment.flags & 1 != 0);
        executable.fold(None, |range: Option<Range<u64>>, segment| {
            let end = segment.vaddr.saturating_add(segment.memsz);
            let range = range.unwrap_or(segment.vaddr..end);
            Some(range.start.min(segment.vaddr)..range.end.max(end))
        })
    }
}

fn segment(
    program: &object::elf::ProgramHeader64<LittleEndian>,
    endian: LittleEndian,
    len: usize,
) -> Result<Segment, ImageError> {
    let (start, size) = program.file_range(endian);
    let file = range(start, size, len).ok_or(ImageError::Truncated("a segment of the vmlinux"))?;
    let (vaddr, memsz) = (program.p_vaddr(endian), program.p_memsz(endian));
    if memsz < size || vaddr.checked_add(memsz).is_none() {
        return Err(bad("a segment is larger in the file than in memory"));
    }
    Ok(Segment { vaddr, paddr: program.p_paddr(endian), file, memsz, flags: program.p_flags(endian).0 })
}

fn range(start: u64, size: u64, len: usize) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    (end <= len).then_some(start..end)
}

/// Sections are a help, not a need: a kernel without them is read through its symbols.
fn sections(header: &FileHeader64<LittleEndian>, endian: LittleEndian, bytes: &[u8]) -> Vec<Section> {
    let Ok(table) = header.sections(endian, bytes) else { return Vec::new() };
    let read = |section: &object::elf::SectionHeader64<LittleEndian>| {
        if section.sh_type(endian) == SHT_NOBITS {
            return None;
        }
        let name = table.section_name(endian, section).ok()?;
        Some(Section {
            name: std::str::from_utf8(name).ok()?.into(),
            vaddr: section.sh_addr(endian),
            file: range(section.sh_offset(endian), section.sh_size(endian), bytes.len())?,
        })
    };
    table.iter().filter_map(read).collect()
}

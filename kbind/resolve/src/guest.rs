//! Joins the guest object to the kernel that it will boot with.

use crate::answer::{self, Answer, Failure, Place};
use crate::bytes::slice;
use crate::error::{LinkError, Problem};
use crate::image::KernelImage;
use crate::records::{self, Record};
use crate::waits;
use kbind::format::{ABSENT, Kind, META_SECTION};
use object::LittleEndian;
use object::elf::{ET_EXEC, FileHeader64, PF_W, PF_X, PT_LOAD, SHN_UNDEF, SHT_SYMTAB, STB_GLOBAL};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use std::collections::{BTreeMap, BTreeSet};

/// Farthest that a direct call reaches, bytes.
const REL32: u64 = i32::MAX as u64;

/// A part of the guest object, ready to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSegment {
    /// Virtual address in the guest.
    pub vaddr: u64,
    /// Its bytes, slots filled.
    pub bytes: Vec<u8>,
    /// Bytes in memory; what exceeds `bytes` is zero.
    pub memsz: u64,
    /// Holds code.
    pub executable: bool,
    /// Holds data that changes.
    pub writable: bool,
}

/// A data word of the kernel to be replaced before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poke {
    /// Virtual link address of the word.
    pub vaddr: u64,
    /// The new value.
    pub value: u64,
    /// The place, as the object names it.
    pub what: String,
}

/// An instruction of the kernel to be replaced before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Virtual link address of a `pause`.
    pub vaddr: u64,
    /// What takes its place: a software interrupt.
    pub instruction: [u8; 2],
}

/// A guest object that fits a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLink {
    /// ELF entry point of the object.
    pub entry: u64,
    /// Global symbols of the object.
    pub symbols: BTreeMap<String, u64>,
    /// The object, all slots filled.
    pub segments: Vec<ObjectSegment>,
    /// The hooks.
    pub pokes: Vec<Poke>,
    /// Where the kernel waits.
    pub waits: Vec<Wait>,
}

impl GuestLink {
    /// Address of a global symbol of the object.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }
}

/// Fills the slots of the guest object and lists the hooks to write into the kernel.
///
/// # Errors
/// [`LinkError::Mismatch`] names everything in which the kernel differs from what the object asks.
pub fn link_guest(image: &KernelImage, object: &[u8]) -> Result<GuestLink, LinkError> {
    image.check_guest()?;
    let (mut link, meta) = read_object(object).map_err(LinkError::BadObject)?;
    let records = records::parse(meta).map_err(LinkError::BadObject)?;
    let mut problems = Vec::new();
    check_reach(image, &link, &mut problems);
    let (mut chosen, mut others) = (BTreeSet::new(), Vec::new());
    for record in &records {
        let problem = |failure: Failure| Problem { slot: record.name().into(), reason: failure.reason() };
        match resolve(image, record) {
            Ok(answer) => {
                chosen.insert(record.name());
                apply(&mut link, record, answer).map_err(LinkError::BadObject)?;
            }
            Err(Failure::Missing(_)) if record.optional() => {}
            Err(failure @ Failure::Other(_)) if record.overload() => others.push(problem(failure)),
            Err(failure) => problems.push(problem(failure)),
        }
    }
    problems.extend(others.into_iter().filter(|problem| !chosen.contains(&*problem.slot)));
    if problems.is_empty() {
        return Ok(link);
    }
    Err(LinkError::Mismatch { release: image.release().into(), problems })
}

#[derive(Default)]
struct Resolved {
    slot: Option<u64>,
    poke: Option<(u64, u64)>,
    waits: Vec<Wait>,
}

fn resolve(image: &KernelImage, record: &Record) -> Answer<Resolved> {
    let layout = image.layout();
    let value = match record.kind {
        Kind::Symbol => {
            symbol_place(image, record.name()).map(|place| place.symbol.wrapping_add(place.offset))?
        }
        Kind::Function => function(image, record)?,
        Kind::Field => answer::field(record, layout)?,
        Kind::Size => answer::size(record, layout)?,
        Kind::Enumerator => answer::enumerator(record, layout)?,
        Kind::Parameter => answer::parameter(record, layout),
        Kind::HookFunction | Kind::HookSymbol | Kind::HookValue => return hook(image, record),
        Kind::Waits => return find_waits(image, record),
        Kind::Late => return Ok(Resolved::default()),
        Kind::Import | Kind::ImportData | Kind::Module => {
            return Err(Failure::Wrong("only a host object can import".into()));
        }
    };
    if value == ABSENT {
        return Err(Failure::Wrong("its value is the one that stands for absence".into()));
    }
    Ok(Resolved { slot: Some(value), ..Resolved::default() })
}

fn symbol_place<'a>(image: &KernelImage, names: &'a str) -> Answer<Place<'a, u64>> {
    answer::first_place(names, image.layout(), |name| answer::symbol(image.symbols(), name))
}

fn function(image: &KernelImage, record: &Record) -> Answer<u64> {
    let place = symbol_place(image, record.name())?;
    answer::prototype(record, place.name, image.layout())?;
    Ok(place.symbol.wrapping_add(place.offset))
}

fn hook(image: &KernelImage, record: &Record) -> Answer<Resolved> {
    let layout = image.layout();
    let place = symbol_place(image, record.name())?;
    if let Some(path) = place.path {
        let size = layout.field(path)?.size;
        if size != 8 {
            return Err(Failure::Wrong(format!("{size} bytes long in this kernel, not a word")));
        }
    }
    answer::arity(record, place.path, layout)?;
    let vaddr = place.symbol.wrapping_add(place.offset);
    let old = old_word(image, vaddr)?;
    if record.checked() {
        check_old(image, record.string(1), old)?;
    }
    let value = match record.kind {
        Kind::HookFunction => record.target,
        Kind::HookValue => record.number,
        _ => answer::first(record.string(2), |name| answer::symbol(image.symbols(), name))?,
    };
    Ok(Resolved { slot: Some(old), poke: Some((vaddr, value)), ..Resolved::default() })
}

fn find_waits(image: &KernelImage, record: &Record) -> Answer<Resolved> {
    /// `int`, with the vector in the second byte (Intel SDM volume 2).
    const INT: u8 = 0xcd;
    let vector = u8::try_from(record.number).map_err(|_| Failure::Wrong("no vector".into()))?;
    let symbol = |name| answer::symbol(image.symbols(), name);
    let found = waits::pauses(image, symbol(record.name())?, symbol(record.string(1))?)?;
    let waits = found.into_iter().map(|vaddr| Wait { vaddr, instruction: [INT, vector] }).collect();
    Ok(Resolved { waits, ..Resolved::default() })
}

fn old_word(image: &KernelImage, vaddr: u64) -> Answer<u64> {
    let cleared = |start: u64, stop: u64| (start..stop).contains(&vaddr);
    let bss = image.symbols().find_one("__bss_start").zip(image.symbols().find_one("__bss_stop"));
    let bytes = image.read_bytes(vaddr, 8).filter(|_| !bss.is_some_and(|(start, stop)| cleared(start, stop)));
    bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes).ok_or_else(|| {
        Failure::Wrong(format!(
            "{vaddr:#x} is not among the initial data of the kernel (.bss is cleared at start)"
        ))
    })
}

fn check_old(image: &KernelImage, allowed: &str, old: u64) -> Answer<()> {
    let holds = |name: &str| match name {
        "0" => old == 0,
        _ => image.symbols().addresses(name).contains(&old),
    };
    if allowed.split('|').any(holds) {
        return Ok(());
    }
    let found = image.symbols().iter().find(|&(_, _, address)| address == old);
    let found =
        found.map_or_else(|| format!("{old:#x}"), |(name, ..)| String::from_utf8_lossy(name).into_owned());
    Err(Failure::Wrong(format!("it holds {found} in this kernel, {allowed} expected")))
}

fn apply(link: &mut GuestLink, record: &Record, answer: Resolved) -> Result<(), String> {
    if let (Some(value), true) = (answer.slot, record.slot != 0) {
        fill(link, record.slot, value)
            .ok_or_else(|| format!("the slot of {} is not in it", record.name()))?;
    }
    link.waits.extend(answer.waits);
    let Some((vaddr, value)) = answer.poke else { return Ok(()) };
    if record.kind == Kind::HookFunction
        && !link.segments.iter().any(|part| part.executable && part.holds(value))
    {
        return Err(format!("the function for {} is not in it", record.name()));
    }
    link.pokes.push(Poke { vaddr, value, what: record.name().into() });
    Ok(())
}

fn fill(link: &mut GuestLink, vaddr: u64, value: u64) -> Option<()> {
    let part = link.segments.iter_mut().find(|part| part.holds(vaddr))?;
    let at = usize::try_from(vaddr - part.vaddr).ok()?;
    part.bytes.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

impl ObjectSegment {
    fn holds(&self, vaddr: u64) -> bool {
        vaddr.wrapping_sub(self.vaddr) < self.memsz
    }
}

/// The kernel patches its calls of hooks into direct ones, which must reach the object.
fn check_reach(image: &KernelImage, link: &GuestLink, problems: &mut Vec<Problem>) {
    let Some(text) = image.text() else { return };
    for part in link.segments.iter().filter(|part| part.executable) {
        let end = part.vaddr.saturating_add(part.memsz);
        if end.max(text.end) - part.vaddr.min(text.start) > REL32 {
            let reason = format!(
                "it is at {:#x}, too far from the text of this kernel at {:#x} for direct calls",
                part.vaddr, text.start
            );
            problems.push(Problem { slot: "the object".into(), reason });
        }
    }
}

fn read_object(object: &[u8]) -> Result<(GuestLink, &[u8]), String> {
    let text = |error: object::read::Error| error.to_string();
    let header = FileHeader64::<LittleEndian>::parse(object).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    if header.e_type(endian) != ET_EXEC {
        return Err("the guest object is not linked".into());
    }
    let sections = header.sections(endian, object).map_err(text)?;
    let (_, section) =
        sections.section_by_name(endian, META_SECTION.as_bytes()).ok_or("the guest object has no records")?;
    let meta = section.data(endian, object).map_err(text)?;
    let mut segments = Vec::new();
    for program in header.program_headers(endian, object).map_err(text)? {
        let is_meta = section.sh_addr(endian).wrapping_sub(program.p_vaddr(endian)) < program.p_memsz(endian);
        if program.p_type(endian) == PT_LOAD && !is_meta && program.p_memsz(endian) > 0 {
            segments.push(segment(program, endian, object).ok_or("a segment is cut short")?);
        }
    }
    let symbols = sections.symbols(endian, object, SHT_SYMTAB).map_err(text)?;
    let globals = symbols
        .iter()
        .filter(|symbol| symbol.st_bind() == STB_GLOBAL && symbol.st_shndx(endian) != SHN_UNDEF);
    let named = globals.filter_map(|symbol| {
        let name = symbols.symbol_name(endian, symbol).ok()?;
        Some((std::str::from_utf8(name).ok()?.to_string(), symbol.st_value(endian)))
    });
    let (entry, symbols) = (header.e_entry(endian), named.collect());
    Ok((GuestLink { entry, symbols, segments, pokes: Vec::new(), waits: Vec::new() }, meta))
}

fn segment(
    program: &object::elf::ProgramHeader64<LittleEndian>,
    endian: LittleEndian,
    object: &[u8],
) -> Option<ObjectSegment> {
    let (start, len) = program.file_range(endian);
    let bytes = slice(object, usize::try_from(start).ok()?, usize::try_from(len).ok()?)?;
    let memsz = program.p_memsz(endian);
    let vaddr = program.p_vaddr(endian);
    vaddr.checked_add(memsz)?;
    let flags = program.p_flags(endian);
    (memsz >= len).then(|| ObjectSegment {
        vaddr,
        bytes: bytes.to_vec(),
        memsz,
        executable: flags.contains(PF_X),
        writable: flags.contains(PF_W),
    })
}

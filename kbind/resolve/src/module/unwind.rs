//! The unwind table of the module, out of the `.eh_frame` of the object.
//!
//! Source: arch/x86/include/asm/orc_types.h; tools/objtool/orc_gen.c (which does the same from the code).
//! The numbers there are macros, so that BTF does not show when they change. The kernel names the set by a
//! hash in `.orc_header`; with an unknown one the table is left out, and traces follow frame pointers.

use super::bind::Location;
use super::read::{HostObject, Place};
use crate::image::KernelImage;
use gimli::{BaseAddresses, CfaRule, CieOrFde, EhFrame, LittleEndian, Register, RegisterRule, UnwindSection};
use object::elf::{R_X86_64_64, R_X86_64_PC32};

/// `ORC_HASH` of the kernels whose numbers are those below (6.4 to 6.12 at least).
const KNOWN: [u8; 20] = [
    0xfe, 0x5d, 0x32, 0xbf, 0x58, 0x1b, 0xd6, 0x3b, 0x2c, 0xa9, 0xa5, 0xc6, 0x5b, 0xa5, 0xa6, 0x25, 0xea,
    0xb3, 0xfe, 0x24,
];

const REG_UNDEFINED: u16 = 0;
const REG_PREV_SP: u16 = 1;
const REG_BP: u16 = 4;
const REG_SP: u16 = 5;
const TYPE_UNDEFINED: u16 = 0;
const TYPE_CALL: u16 = 2;

const RBP: Register = Register(6);
const RSP: Register = Register(7);
const ENTRY: usize = 6;
/// Distance between the addresses that sections are given while `.eh_frame` is read.
const SPACING: u64 = 16 << 20;

pub struct Table {
    /// Start of what each entry describes.
    pub places: Vec<Location>,
    /// `struct orc_entry` each.
    pub entries: Vec<u8>,
    /// Contents of `.orc_header`.
    pub header: Vec<u8>,
}

/// The table, or nothing when this kernel's format is not known.
pub fn table(image: &KernelImage, host: &HostObject) -> Result<Option<Table>, String> {
    let known = image.orc_hash().is_some_and(|hash| hash == KNOWN)
        && image.layout().size_of("orc_entry") == Ok(ENTRY as u64);
    let Some(frames) = host.frames.filter(|_| known) else { return Ok(None) };
    let frames = relocated(host, frames).ok_or("its unwind information is damaged")?;
    let mut table = Table { places: Vec::new(), entries: Vec::new(), header: KNOWN.to_vec() };
    read(&frames, &mut table).map_err(|error| format!("its unwind information is damaged: {error}"))?;
    Ok(Some(table))
}

fn address(section: usize, offset: u64) -> u64 {
    (section as u64 + 1) * SPACING + offset
}

fn location(address: u64) -> Option<Location> {
    Some((usize::try_from((address / SPACING).checked_sub(1)?).ok()?, address % SPACING))
}

/// The `.eh_frame` at address 0, with its relocations applied.
fn relocated(host: &HostObject, index: usize) -> Option<Vec<u8>> {
    let section = host.sections.get(index)?;
    let mut data = section.data.clone();
    for relocation in &section.relocations {
        let symbol = host.symbols.get(relocation.symbol)?;
        let Place::Section(target) = symbol.place else { return None };
        let value = address(target, symbol.value).wrapping_add_signed(relocation.addend);
        let at = usize::try_from(relocation.offset).ok()?;
        match relocation.kind {
            R_X86_64_64 => data.get_mut(at..)?.get_mut(..8)?.copy_from_slice(&value.to_le_bytes()),
            R_X86_64_PC32 => {
                let distance = value.wrapping_sub(relocation.offset) as u32;
                data.get_mut(at..)?.get_mut(..4)?.copy_from_slice(&distance.to_le_bytes());
            }
            _ => return None,
        }
    }
    Some(data)
}

fn read(frames: &[u8], table: &mut Table) -> Result<(), gimli::Error> {
    let frames = EhFrame::new(frames, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(0);
    let mut context = gimli::UnwindContext::new();
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next()? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let function = partial.parse(EhFrame::cie_from_offset)?;
        let mut rows = function.rows(&frames, &bases, &mut context)?;
        while let Some(row) = rows.next_row()? {
            table.push(row.start_address(), orc(row.cfa(), row.register(RBP)));
        }
        table.push(function.end_address(), UNKNOWN);
    }
    Ok(())
}

/// The words of a `struct orc_entry`: SP offset, BP offset, registers and type.
type Orc = [u16; 3];

/// Nothing is known: the unwinder stops.
const UNKNOWN: Orc = [0, 0, REG_UNDEFINED | REG_UNDEFINED << 4 | TYPE_UNDEFINED << 8];

fn orc(cfa: &CfaRule<usize>, rbp: Option<RegisterRule<usize>>) -> Orc {
    let offset = |offset: i64| i16::try_from(offset).ok().map(i16::cast_unsigned);
    let stack = match *cfa {
        CfaRule::RegisterAndOffset { register: RSP, offset: from } => offset(from).map(|from| (REG_SP, from)),
        CfaRule::RegisterAndOffset { register: RBP, offset: from } => offset(from).map(|from| (REG_BP, from)),
        _ => None,
    };
    let frame = match rbp {
        Some(RegisterRule::Offset(from)) => offset(from).map(|from| (REG_PREV_SP, from)),
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some((REG_UNDEFINED, 0)),
        _ => None,
    };
    match (stack, frame) {
        (Some((sp, sp_offset)), Some((bp, bp_offset))) => {
            [sp_offset, bp_offset, sp | bp << 4 | TYPE_CALL << 8]
        }
        _ => UNKNOWN,
    }
}

impl Table {
    fn push(&mut self, address: u64, entry: Orc) {
        let Some(place) = location(address) else { return };
        self.places.push(place);
        self.entries.extend(entry.iter().flat_map(|word| word.to_le_bytes()));
    }
}

//! The call sites that the kernel rewrites for speculation control.
//!
//! Source: arch/x86/kernel/alternative.c, `apply_returns` and `apply_retpolines`.

use super::bind::Binding;
use super::read::{HostObject, Section};
use object::elf::{R_X86_64_PC32, R_X86_64_PLT32};
use std::collections::HashMap;

const RETURN_THUNK: &str = "__x86_return_thunk";
const INDIRECT_THUNK: &str = "__x86_indirect_thunk_";
const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;

/// Places of instructions: section and offset in the object.
#[derive(Default)]
pub struct Sites {
    pub returns: Vec<(usize, u64)>,
    pub retpolines: Vec<(usize, u64)>,
}

pub fn find(host: &HostObject, symbols: &HashMap<usize, Binding>) -> Sites {
    let mut sites = Sites::default();
    for (index, section) in host.sections.iter().enumerate().filter(|(_, section)| section.executable) {
        for relocation in &section.relocations {
            let Some(Binding::Export(name)) = symbols.get(&relocation.symbol) else { continue };
            if ![R_X86_64_PC32, R_X86_64_PLT32].contains(&relocation.kind) {
                continue;
            }
            let Some(start) = branch(section, relocation.offset) else { continue };
            if name == RETURN_THUNK {
                sites.returns.push((index, start));
            } else if name.starts_with(INDIRECT_THUNK) {
                sites.retpolines.push((index, start));
            }
        }
    }
    sites
}

/// Start of the branch whose displacement is at `offset`.
fn branch(section: &Section, offset: u64) -> Option<u64> {
    let at = usize::try_from(offset).ok()?;
    let opcode = *section.data.get(at.checked_sub(1)?)?;
    if [CALL, JMP].contains(&opcode) {
        return Some(offset - 1);
    }
    // A conditional jump has two bytes of opcode.
    let conditional = opcode & 0xf0 == 0x80 && *section.data.get(at.checked_sub(2)?)? == 0x0f;
    conditional.then(|| offset - 2)
}
